# SPDX-License-Identifier: MIT
"""Rings stopped, resumed and set up anew, memory that comes and goes, and what a reset ends."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import case
from pyvnet.conformance.cases._rings import (
    Calls,
    comes_in,
    crosses,
    flush,
    goes_out,
    head_of,
    leaves,
    numbered,
    scatter,
    undisturbed,
)
from pyvnet.driver import Buffer, GuestMemory, RegionSpec
from pyvnet.spec.features import Feature
from pyvnet.spec.ring import used_ring_size
from pyvnet.spec.status import DeviceStatus

if TYPE_CHECKING:
    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver
    from pyvnet.driver.queue import DriverQueue

ROUNDS: Final = 3
RESENT_AFTER: Final = 0.05  # seconds; for forwarders that need a moment after a start
FEW: Final = 4
ELSEWHERE: Final = 0x40_0000_0000  # beyond all that a driver lays out by itself
MIB: Final = 1 << 20
_STOPPED: Final = "the used ring of a stopped queue"


async def _stop(drv: Driver, queue: DriverQueue) -> tuple[int, int]:
    return await drv.transport.stop_queue(queue.index)


async def _resume(drv: Driver, queue: DriverQueue, bases: tuple[int, int]) -> None:
    avail_base, used_base = bases
    setup = replace(queue.setup(), avail_base=avail_base, used_base=used_base)
    await drv.transport.set_queue(setup)


def _used(drv: Driver, queue: DriverQueue) -> bytes:
    return drv.memory.read(queue.ring.used_ring, used_ring_size(queue.ring.size))


@case("VHU-RING-04", wire=True)
async def a_stopped_ring_says_where_it_stands(t: Trial) -> None:
    """Stopping a ring returns the next avail entry it would have taken."""
    drv = await t.negotiate()
    for number in range(FEW):
        await crosses(t, drv, number)
    await flush(t, drv)
    for queue in (drv.transmitqs[0], drv.receiveqs[0]):
        expected = queue.ring.setup(queue.index).avail_base
        t.equal((await _stop(drv, queue))[0], expected, f"base of virtqueue {queue.index}")


@case("VHU-RING-09", "VIO-SPL-11", wire=True)
async def rings_go_on_where_they_stood(t: Trial) -> None:
    """Rings that are stopped and resumed at their bases lose and repeat nothing."""
    drv = await t.negotiate()
    for number in range(ROUNDS):
        await crosses(t, drv, number)
        await flush(t, drv)
        both = (drv.receiveqs[0], drv.transmitqs[0])
        bases = [await _stop(drv, queue) for queue in both]
        for queue, base in zip(both, bases, strict=True):
            await _resume(drv, queue, base)
        await t.started(drv)
    await crosses(t, drv, ROUNDS)


@case("VHU-RING-03", "VIO-RST-03", wire=True)
async def a_stopped_receiveq_is_left_alone(t: Trial) -> None:
    """Frames that come while the receiveq is stopped are not placed and bring no interrupt."""
    drv = await t.negotiate()
    await crosses(t, drv, 1)
    queue = drv.receiveqs[0]
    bases = await _stop(drv, queue)
    calls = Calls(t, queue)
    calls.taken()
    before = _used(drv, queue)
    for number in range(FEW):
        await t.inject(numbered(10 + number))
    sends = partial(goes_out, t, drv, numbered(1))
    await undisturbed(t, before, lambda: _used(drv, queue), _STOPPED, sends, sends)
    t.equal(calls.taken(), 0, "interrupts of a stopped queue")
    await _resume(drv, queue, bases)


@case("VHU-RING-03", "VHU-RING-09", wire=True)
async def a_stopped_transmitq_is_served_when_it_is_resumed(t: Trial) -> None:
    """What is made available while the transmitq is stopped is served after it, once, in order."""
    drv = await t.negotiate()
    await crosses(t, drv, 1)
    await flush(t, drv)
    queue = drv.transmitqs[0]
    bases = await _stop(drv, queue)
    before = _used(drv, queue)
    frames = [numbered(10 + number) for number in range(FEW)]
    for frame in frames:
        queue.ring.add(scatter(drv, head_of(drv) + frame, ()), frame)
    queue.publish()
    queue.kick()
    turn = numbered(2)
    receives = partial(comes_in, t, drv, turn)
    await undisturbed(t, before, lambda: _used(drv, queue), _STOPPED, receives, receives)
    await _resume(drv, queue, bases)
    seen = [frame for frame in await _sent_before(t, drv, 100) if frame != turn]
    left = iter(frames)
    t.check(all(frame in left for frame in seen), f"{len(seen)} frames on the wire, not those sent")
    await flush(t, drv)


async def _sent_before(t: Trial, drv: Driver, number: int) -> list[bytes]:
    """Frames on the wire before one that is sent now, and again if that was lost."""
    seen: list[bytes] = []
    t.doing = "a frame on the wire"
    last: set[bytes] = set()
    while not seen or seen[-1] not in last:
        last.add(numbered(number + len(last)))
        await drv.send(numbered(number + len(last) - 1))
        with suppress(TimeoutError):
            seen.append((await t.wire.receive(RESENT_AFTER)).data)
    return [frame for frame in seen if frame not in last]


@case("VHU-RING-03", needs=Feature.MQ, wire=True, level="DESC")
async def stopping_one_pair_leaves_the_others_running(t: Trial) -> None:
    """Frames go on crossing on pair 0 while the last pair is stopped."""
    drv = await t.negotiate(pairs=2)
    await crosses(t, drv, 1)
    for queue in (drv.receiveqs[1], drv.transmitqs[1]):
        await _stop(drv, queue)
    for number in range(FEW):
        await drv.send(numbered(number))
        await leaves(t, numbered(number))


@case("VIO-FEAT-04", "VIO-RST-01", wire=True)
async def a_driver_may_begin_again_with_other_rings(t: Trial) -> None:
    """After a reset queues may have another size and other places, again and again."""
    drv = await t.negotiate()
    accepted = drv.features
    for number, size in enumerate((16, 256, 64)):
        await drv.negotiate(accepted, queue_size=size, pairs=drv.pairs)
        await t.started(drv)
        await crosses(t, drv, number)


@case("VHU-MEM-01", wire=True)
async def memory_may_be_other_memory_at_the_same_place(t: Trial) -> None:
    """After a reset the same addresses may lead into another file, which is the one that counts."""
    drv = await t.negotiate()
    accepted = drv.features
    for number in range(2):
        await drv.negotiate(accepted, pairs=drv.pairs)
        await t.started(drv)
        await crosses(t, drv, number)


@case("VIO-RST-02", wire=True)
async def a_device_that_was_reset_touches_nothing(t: Trial) -> None:
    """After a reset frames and kicks change no ring and bring no interrupt."""
    drv = await t.negotiate()
    await crosses(t, drv, 1)
    await flush(t, drv)
    queues = (drv.receiveqs[0], drv.transmitqs[0])
    calls = [Calls(t, queue) for queue in queues]
    sending = drv.transmitqs[0]
    sending.ring.add(scatter(drv, head_of(drv) + numbered(2), ()), b"never sent")
    await drv.transport.set_status(DeviceStatus.RESET)
    await drv.transport.device_features()
    for call in calls:
        call.taken()
    sending.publish()
    before = [_used(drv, queue) for queue in queues]
    for number in range(FEW):
        await t.inject(numbered(10 + number))
        for queue in queues:
            queue.kick()
    await undisturbed(t, before, lambda: [_used(drv, queue) for queue in queues], "a used ring")
    t.equal([call.taken() for call in calls], [0, 0], "interrupts after the reset")


@case("VHU-MEM-01", wire=True)
async def memory_may_come_and_go(t: Trial) -> None:
    """Frames cross while a region of memory is added, used, and taken away again."""
    drv = await t.negotiate()
    await crosses(t, drv, 1)
    with closing(GuestMemory([RegionSpec(ELSEWHERE, MIB)])) as more:
        await drv.transport.set_memory((*drv.memory.regions, *more.regions))
        await t.started(drv)
        await crosses(t, drv, 2)
        message = head_of(drv) + numbered(3)
        gpa = more.alloc(len(message))
        more.write(gpa, message)
        queue = drv.transmitqs[0]
        queue.ring.add([Buffer(gpa, len(message))], message)
        queue.publish()
        await leaves(t, numbered(3), "the frame sent out of the new region")
        await flush(t, drv)
        await drv.transport.set_memory(drv.memory.regions)
    await t.started(drv)
    await crosses(t, drv, 4)
