# SPDX-License-Identifier: MIT
"""Who is told when: "Used Buffer Notification Suppression", "Available Buffer Notification"."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import case
from pyvnet.conformance.cases._rings import (
    Calls,
    crosses,
    flush,
    head_of,
    leaves,
    numbered,
    scatter,
    until,
)
from pyvnet.driver.misbehave import Forger
from pyvnet.spec.features import Feature

if TYPE_CHECKING:
    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver

FEW: Final = 8
FAR_OFF: Final = 0xFFF8  # a used_event nobody gets to


@case("VIO-SPL-07", wire=True)
async def interrupts_come_where_the_flag_is_0(t: Trial) -> None:
    """Without EVENT_IDX a received frame brings an interrupt, whatever used_event says."""
    drv = await t.negotiate()
    queue = drv.receiveqs[0]
    Forger(queue.ring).set_used_event(FAR_OFF)
    calls = Calls(t, queue)
    for number in range(FEW):
        await t.inject(numbered(number))
        seen = await calls.frame(drv, "avail.flags is 0 and a frame came")
        t.equal(seen.data, numbered(number), "the frame received")


@case("VIO-SPL-09", needs=Feature.EVENT_IDX, wire=True)
async def interrupts_come_where_used_event_is_passed(t: Trial) -> None:
    """With EVENT_IDX a frame past used_event brings an interrupt, whatever avail.flags says."""
    drv = await t.negotiate(Feature.EVENT_IDX)
    queue = drv.receiveqs[0]
    Forger(queue.ring).set_avail_flags(1)
    calls = Calls(t, queue)
    for number in range(FEW):
        await t.inject(numbered(number))
        seen = await calls.frame(drv, "used_event was passed")
        t.equal(seen.data, numbered(number), "the frame received")


@case("VIO-SPL-08", wire=True)
async def no_interrupts_come_where_the_flag_is_1(t: Trial) -> None:
    """Without EVENT_IDX frames sent while avail.flags is 1 bring no interrupts."""
    drv = await t.negotiate()
    await _quiet(t, drv, later=0)


@case("VIO-SPL-10", needs=Feature.EVENT_IDX, wire=True)
async def no_interrupts_come_before_used_event(t: Trial) -> None:
    """With EVENT_IDX frames sent before used_event is reached bring no interrupts."""
    drv = await t.negotiate(Feature.EVENT_IDX)
    await _quiet(t, drv, later=FEW)


async def _quiet(t: Trial, drv: Driver, later: int) -> None:
    """Send some frames in silence and one that asks for an interrupt; count the signals.

    A few are in order: a device that gave back the last silent frame may still be about to look
    whether to signal when silence ends, and a signal for what was before may be under way.
    """
    queue, ring = drv.transmitqs[0], drv.transmitqs[0].ring
    calls = Calls(t, queue)
    await flush(t, drv)
    ring.arm()
    await _send_one(t, drv, FEW + 1)
    await calls.come("the first frame asked for one")
    ring.poll()
    ring.arm(later) if later else ring.disarm()
    calls.taken()
    for number in range(FEW):
        await _send_one(t, drv, number)
        await until(t, lambda: ring.ready() == number + 1, "used element")  # noqa: B023
    if not later:
        ring.arm(FEW)
    await _send_one(t, drv, FEW)
    signals = await calls.come("the last frame asked for one")
    t.check(
        signals < FEW // 2, f"{signals} interrupts for {FEW + 1} frames, of which the last asked"
    )


async def _send_one(t: Trial, drv: Driver, number: int) -> None:
    frame = numbered(number)
    queue = drv.transmitqs[0]
    queue.ring.add(scatter(drv, head_of(drv) + frame, ()), frame)
    queue.publish()
    await leaves(t, frame)


@case("VIO-SPL-13", wire=True)
async def used_flags_are_0_or_1(t: Trial) -> None:
    """Without EVENT_IDX used.flags is never anything but 0 or 1."""
    drv = await t.negotiate()
    await _watch_flags(t, drv, {0, 1})


@case("VIO-SPL-14", needs=Feature.EVENT_IDX, wire=True)
async def used_flags_are_0_with_event_idx(t: Trial) -> None:
    """With EVENT_IDX used.flags stays 0."""
    drv = await t.negotiate(Feature.EVENT_IDX)
    await _watch_flags(t, drv, {0})


async def _watch_flags(t: Trial, drv: Driver, allowed: set[int]) -> None:
    words = [drv.memory.words(queue.ring.used_ring, 1) for queue in drv.queues]
    for number in range(FEW):
        await crosses(t, drv, number)
        seen = {word[0] for word in words}
        t.check(seen <= allowed, f"used.flags of the queues: {sorted(seen)}")


@case("VIO-SPL-14", "VIO-SPL-13", wire=True)
async def a_kick_that_was_asked_for_is_enough(t: Trial) -> None:
    """Frames after pauses are sent although the driver kicks only when it is asked to."""
    drv = await t.negotiate(t.offered & Feature.EVENT_IDX)
    ring = drv.transmitqs[0].ring
    for first, second in pairwise(range(FEW)):
        for number in (first, second):
            await _send_one(t, drv, number)
            # Looked for, with frames of the wire's: interrupts are not what is judged here.
            await until(t, lambda: ring.ready() == ring.outstanding, "used elements")
        await flush(t, drv)


@case("VIO-SPL-15", wire=True)
async def kicks_for_nothing_are_survived(t: Trial) -> None:
    """Kicks of every queue with nothing new in it change nothing."""
    drv = await t.negotiate(t.offered & Feature.CTRL_VQ)
    for number in range(FEW):
        for queue in drv.queues:
            queue.kick()
        await crosses(t, drv, number)
    await flush(t, drv)
