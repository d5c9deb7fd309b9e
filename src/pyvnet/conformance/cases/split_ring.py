# SPDX-License-Identifier: MIT
"""The rings themselves: "Split Virtqueues", "Message Framing"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import case
from pyvnet.conformance.cases._rings import (
    LARGEST,
    SMALLEST,
    Calls,
    arrives,
    collect,
    crosses,
    cuts_of,
    flush,
    head_of,
    leaves,
    numbered,
    scatter,
    until,
)
from pyvnet.driver import Buffer
from pyvnet.driver.misbehave import Forger
from pyvnet.spec.features import NO_FEATURES, Feature
from pyvnet.spec.net_hdr import header_size
from pyvnet.spec.ring import avail_ring_size, desc_table_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver, SplitRing

SIZE: Final = 16  # of queues that are to fill, and to be gone around
ROUNDS: Final = 40
NEAR_WRAP: Final = 0xFFF8
FAR: Final = 512  # bytes between pieces nobody may touch
UNTOUCHED: Final = b"\xfd"  # in none of our frames


# --- used elements ------------------------------------------------------------------------


@case("VIO-SPL-11", "VIO-SPL-12", wire=True)
async def every_chain_comes_back_once(t: Trial) -> None:
    """Transmit chains, more than the ring holds, come back each once and with nothing written."""
    drv = await t.negotiate(queue_size=SIZE)
    for number in range(ROUNDS):
        frame = numbered(number, SMALLEST + 29 * number)
        await drv.send(frame)
        await leaves(t, frame)
    await flush(t, drv)


@case("VIO-SPL-12", "VIO-SPL-11", wire=True)
async def used_length_is_header_and_frame(t: Trial) -> None:
    """used.len of receive buffers is the header's size and the frame's, over rounds of the ring."""
    drv = await t.negotiate(queue_size=SIZE)
    for number in range(ROUNDS):
        size = SMALLEST + 37 * number % (LARGEST - SMALLEST)
        seen = await arrives(t, drv, numbered(number, size))
        t.equal(sum(seen.buffers), header_size(drv.features) + size, "used.len")


@case("VIO-SPL-11", wire=True)
async def chains_published_together_are_all_served(t: Trial) -> None:
    """Chains that become visible by one move of avail.idx are sent, each once and in order."""
    drv = await t.negotiate()
    queue = drv.transmitqs[0]
    frames = [numbered(number, SMALLEST + number) for number in range(SIZE)]
    for frame in frames:
        queue.ring.add(scatter(drv, head_of(drv) + frame, ()), frame)
    queue.publish()
    for frame in frames:
        await leaves(t, frame)
    await flush(t, drv)


@case("VIO-SPL-11", "VIO-SPL-07", wire=True)
async def indexes_wrap(t: Trial) -> None:
    """Frames cross while the indexes of the rings go from 65535 to 0."""
    await _wrap(t, NO_FEATURES)


@case("VIO-SPL-11", "VIO-SPL-09", needs=Feature.EVENT_IDX, wire=True)
async def indexes_wrap_with_event_idx(t: Trial) -> None:
    """With EVENT_IDX frames cross while indexes and events go from 65535 to 0."""
    await _wrap(t, Feature.EVENT_IDX)


async def _wrap(t: Trial, features: Feature) -> None:
    drv = await t.negotiate(features, queue_size=SIZE, ring_start=NEAR_WRAP)
    for number in range(SIZE):
        await crosses(t, drv, number)
    await flush(t, drv)


@case("VIO-FEAT-08", needs=Feature.IN_ORDER, wire=True)
async def in_order_buffers_come_back_in_order(t: Trial) -> None:
    """With IN_ORDER used buffers come in the order they were made available, either way."""
    drv = await t.negotiate(Feature.IN_ORDER, queue_size=SIZE)
    for number in range(ROUNDS):
        await crosses(t, drv, number, SMALLEST + 31 * number)
    await flush(t, drv)


@case("VIO-FEAT-08", needs=Feature.IN_ORDER, wire=True)
async def in_order_chains_published_together_come_back_in_order(t: Trial) -> None:
    """With IN_ORDER chains that become visible by one move of avail.idx come back as they went."""
    drv = await t.negotiate(Feature.IN_ORDER)
    queue = drv.transmitqs[0]
    for number in range(SIZE):
        queue.ring.add(scatter(drv, head_of(drv) + numbered(number), ()), number)
    queue.publish()
    for number in range(SIZE):
        await leaves(t, numbered(number))
    await flush(t, drv)


# --- what is the driver's alone -----------------------------------------------------------


@case("VIO-SPL-03", wire=True)
async def what_is_to_be_read_is_not_written(t: Trial) -> None:
    """Descriptor table, avail ring and transmit buffers are as before when a frame was sent."""
    drv = await t.negotiate()
    queue = drv.transmitqs[0]
    message = head_of(drv) + numbered(1, 200)
    pieces = scatter(drv, message, (5, 30))
    queue.ring.add(pieces, message)
    table = _descriptors(drv, queue.ring)
    queue.publish()
    before = _drivers_own(drv, queue.ring)
    await leaves(t, numbered(1, 200))
    await until(t, queue.ring.ready, "used element")
    t.equal(collect(drv, pieces, len(message)), message, "the transmit buffer afterwards")
    t.check(_descriptors(drv, queue.ring) == table, "the descriptor table changed")
    t.check(_drivers_own(drv, queue.ring) == before, "the descriptor table or avail ring changed")


@case("VIO-SPL-03", wire=True)
async def descriptors_of_receive_buffers_are_not_written(t: Trial) -> None:
    """The receiveq's descriptor table and avail ring are as before when a frame was received."""
    drv = await t.negotiate()
    queue = drv.receiveqs[0]
    Calls(t, queue)  # from here on the driver touches the ring when it is told to
    before = _drivers_own(drv, queue.ring)
    for number in (1, 2):  # with the second it is through with the first
        await t.inject(numbered(number))
        await until(t, lambda: queue.ring.ready() >= number, "used element")  # noqa: B023
    t.check(_drivers_own(drv, queue.ring) == before, "the descriptor table or avail ring changed")


def _descriptors(drv: Driver, ring: SplitRing) -> bytes:
    return drv.memory.read(ring.desc_table, desc_table_size(ring.size))


def _drivers_own(drv: Driver, ring: SplitRing) -> bytes:
    return _descriptors(drv, ring) + drv.memory.read(ring.avail_ring, avail_ring_size(ring.size))


# --- how buffers are cut ------------------------------------------------------------------


@case("VIO-SPL-01", wire=True)
async def transmit_chains_may_be_cut_anywhere(t: Trial) -> None:
    """Header and frame are found in pieces cut before, in and behind the header."""
    drv = await t.negotiate()
    await _send_cut(t, drv, list(cuts_of(header_size(drv.features))))


@case("VIO-SPL-01", "VIO-SPL-06", needs=Feature.INDIRECT_DESC, wire=True)
async def indirect_transmit_chains_may_be_cut_anywhere(t: Trial) -> None:
    """The same pieces, in an indirect table."""
    drv = await t.negotiate(Feature.INDIRECT_DESC)
    await _send_cut(t, drv, list(cuts_of(header_size(drv.features))))


async def _send_cut(t: Trial, drv: Driver, ways: Sequence[tuple[int, ...]]) -> None:
    queue = drv.transmitqs[0]
    for number, cuts in enumerate(ways):
        frame = numbered(number, 300)
        queue.ring.add(scatter(drv, head_of(drv) + frame, cuts), frame)
        queue.publish()
        await leaves(t, frame, f"the frame sent in pieces of {cuts} bytes and the rest")
    await flush(t, drv)


@case("VIO-SPL-01", wire=True)
async def a_transmit_header_may_lie_in_single_bytes(t: Trial) -> None:
    """Every byte of the header, and of the addresses behind it, in a descriptor of its own."""
    drv = await t.negotiate()
    await _send_cut(t, drv, [(1,) * (header_size(drv.features) + 12)])


@case("VIO-SPL-01", wire=True)
async def receive_buffers_may_be_cut_anywhere(t: Trial) -> None:
    """Header and frame are written into pieces cut before, in and behind the header."""
    drv = await t.negotiate(rx_buffers=0)
    await _receive_cut(t, drv, list(cuts_of(header_size(drv.features))))


@case("VIO-SPL-01", "VIO-SPL-06", needs=Feature.INDIRECT_DESC, wire=True)
async def indirect_receive_buffers_may_be_cut_anywhere(t: Trial) -> None:
    """The same pieces, in an indirect table."""
    drv = await t.negotiate(Feature.INDIRECT_DESC, rx_buffers=0)
    await _receive_cut(t, drv, list(cuts_of(header_size(drv.features))))


@case("VIO-SPL-01", wire=True)
async def a_received_header_may_go_into_single_bytes(t: Trial) -> None:
    """Every byte of the header, and of the addresses behind it, into a buffer of its own alone."""
    drv = await t.negotiate(rx_buffers=0)
    frame = numbered(1, 300)
    lengths = [1] * (header_size(drv.features) + 12) + [2048]
    start = drv.memory.alloc(sum(lengths) + FAR * len(lengths))
    pieces, between, gpa = [], [], start
    for length in lengths:
        pieces.append(Buffer(gpa, length, writable=True))
        between.append(Buffer(gpa + length, FAR))
        gpa += length + FAR
    drv.memory.write(start, UNTOUCHED * (gpa - start))
    drv.add_receive_buffer(0, pieces)
    queue = drv.receiveqs[0]
    Calls(t, queue)
    await t.inject(frame)
    await until(t, queue.ring.ready, "used element")
    strayed = sum(FAR - drv.memory.read(*gap[:2]).count(UNTOUCHED) for gap in between)
    t.check(not strayed, f"{strayed} bytes were written outside the buffers")
    seen = drv.receive_nowait()
    t.equal(seen and seen.data, frame, "the frame received")


async def _receive_cut(t: Trial, drv: Driver, ways: Sequence[tuple[int, ...]]) -> None:
    for cuts in ways:
        drv.add_receive_buffer(0, scatter(drv, bytes(2048), cuts, writable=True))
    for number, cuts in enumerate(ways):
        what = f"the frame received in pieces of {cuts} bytes and the rest"
        await arrives(t, drv, numbered(number, 300), what)


@case("VIO-SPL-02", "VIO-SPL-01", wire=True, level="MAY")
async def long_transmit_chains_are_taken(t: Trial) -> None:
    """A frame in 19 pieces is sent, as drivers of today send them."""
    drv = await t.negotiate()
    await _send_cut(t, drv, [(12, *[40] * 17)])


# --- indirect tables ----------------------------------------------------------------------


async def _send_forged(
    t: Trial, drv: Driver, forge: Callable[[Forger, list[Buffer], object], object]
) -> None:
    """Send a frame in a chain of somebody else's making, then an ordinary one."""
    queue = drv.transmitqs[0]
    frame = numbered(1, 300)
    forge(Forger(queue.ring), scatter(drv, head_of(drv) + frame, (7, 40)), frame)
    queue.publish()
    await leaves(t, frame)
    await flush(t, drv)
    await drv.send(numbered(2))
    await leaves(t, numbered(2), "the frame after it")


@case("VIO-SPL-05", needs=Feature.INDIRECT_DESC, wire=True)
async def the_write_flag_of_an_indirect_table_is_ignored(t: Trial) -> None:
    """WRITE on the descriptor that leads to an indirect table changes nothing."""
    drv = await t.negotiate(Feature.INDIRECT_DESC)
    await _send_forged(
        t, drv, lambda forger, pieces, token: forger.indirect_write_flag(pieces, token)
    )


@case("VIO-SPL-06", needs=Feature.INDIRECT_DESC, wire=True)
async def descriptors_may_precede_an_indirect_table(t: Trial) -> None:
    """A chain of ordinary descriptors may end in one that leads to an indirect table."""
    drv = await t.negotiate(Feature.INDIRECT_DESC)
    queue = drv.transmitqs[0]
    for prefix in (1, 2):
        frame = numbered(prefix, 300)
        pieces = scatter(drv, head_of(drv) + frame, (7, 40))
        queue.ring.add(pieces, frame, indirect=True, direct_prefix=prefix)
        queue.publish()
        await leaves(t, frame, f"the frame with {prefix} descriptors before the table")
    await flush(t, drv)


@case("VIO-SPL-06", needs=Feature.INDIRECT_DESC, wire=True)
async def an_indirect_table_may_lie_anywhere(t: Trial) -> None:
    """A table at an odd address is read like any other."""
    drv = await t.negotiate(Feature.INDIRECT_DESC)
    await _send_forged(
        t, drv, lambda forger, pieces, token: forger.indirect_odd_address(pieces, token)
    )


@case("VIO-SPL-06", needs=Feature.INDIRECT_DESC, wire=True)
async def entries_of_an_indirect_table_are_chained_by_next(t: Trial) -> None:
    """The chain in a table goes by ``next``, not by place."""
    drv = await t.negotiate(Feature.INDIRECT_DESC)
    await _send_forged(
        t, drv, lambda forger, pieces, token: forger.indirect_in_order(pieces, (0, 2, 1), token)
    )
