# SPDX-License-Identifier: MIT
"""Chains are taken many at a time: nobody may notice, whatever stands in the middle of a batch."""

from __future__ import annotations

import select
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.datapath.engine import BreakReason, RingBroken
from pyvnet.driver.ring_split import Buffer
from tests.datapath.rig import DEADLINE, Rig, drain, flow_and_serial, frame_of

if TYPE_CHECKING:
    from collections.abc import Sequence

UNMAPPED = 1 << 52
# Around what a page of ours holds (2048 with the header), in pieces and in one.
SIZES = (60, 2027, 2028, 2029, 2036, 2037, 9000, 61, 30000)


def stage(rig: Rig, data: bytes, cuts: Sequence[int] = (), **second: Any) -> None:
    """Put one chain on transmitq 0, not yet visible; ``second`` changes its second piece."""
    gpa = rig.memory.alloc(len(data))
    rig.memory.write(gpa, data)
    bounds = [0, *cuts, len(data)]
    pieces = [Buffer(gpa + start, end - start) for start, end in pairwise(bounds)]
    if second:
        pieces[1] = pieces[1]._replace(**second)
    rig.transmitq(0).ring.add(pieces, Buffer(gpa, len(data)))


def serials(frames: Sequence[bytes]) -> list[int]:
    return [flow_and_serial(frame)[1] for frame in frames]


@pytest.mark.parametrize("event_idx", [True, False])
@pytest.mark.parametrize("count", [1, 5, 6, 63, 64, 65, 129, 256])
def test_as_many_as_there_are_leave_in_order(count: int, event_idx: bool) -> None:
    with Rig(pairs=1, queue_size=256, event_idx=event_idx) as rig:
        rig.policy()
        rig.send(0, *(frame_of(0, serial) for serial in range(count)))
        assert serials(rig.from_wire(0, count)) == list(range(count))
        rig.wait_sent(0, count)
        stats = rig.stats(0)
        assert (stats.tx_packets, stats.tx_bytes, stats.tx_drops) == (count, 60 * count, 0)


@pytest.mark.requirement("VIO-SPL-01", "U-54")
@pytest.mark.parametrize("header_length", [12, 20])
def test_short_and_long_frames_keep_their_order_and_their_bytes(header_length: int) -> None:
    """Copied ones and those sent as they lie, cut by the driver wherever it likes."""
    frames = [frame_of(0, i, SIZES[i % len(SIZES)]) for i in range(60)]
    with Rig(pairs=1, queue_size=256, buffer_size=8192) as rig:
        rig.policy("automatic", header_length=header_length)
        for i, frame in enumerate(frames):
            cuts = [cut for cut in (i, header_length + 14 + i, 1000, 2040) if 0 < cut < len(frame)]
            stage(rig, bytes(header_length) + frame, sorted(set(cuts)) if i % 2 else ())
        rig.transmitq(0).publish()
        assert rig.from_wire(0, len(frames)) == frames
        rig.wait_sent(0, len(frames))
        assert rig.stats(0).tx_bytes == sum(map(len, frames))


@pytest.mark.requirement("OUR-TX-12")
def test_a_malformed_chain_costs_its_neighbours_nothing() -> None:
    """Too short ones, and some with a buffer to write to, between good ones."""
    with Rig(pairs=1, queue_size=256) as rig:
        rig.policy()
        for serial in range(40):
            stage(rig, bytes(20) + frame_of(0, serial))
            if serial % 3 == 0:
                stage(rig, bytes(20 + 13))
            if serial % 5 == 0:
                stage(rig, bytes(20) + frame_of(0, 999), (30,), writable=True)
        rig.transmitq(0).publish()
        assert serials(rig.from_wire(0, 40)) == list(range(40))
        rig.wait_sent(0, 40 + 14 + 8)
        stats = rig.stats(0)
        assert (stats.tx_packets, stats.tx_drop_malformed) == (40, 14 + 8)
        with pytest.raises(BlockingIOError):
            rig.port.wire(0).recv()


@pytest.mark.parametrize("good", [0, 1, 5, 63, 64, 65])
def test_what_stands_before_a_break_is_sent_and_returned_and_nothing_behind_it(good: int) -> None:
    with Rig(pairs=1, queue_size=256) as rig:
        rig.policy()
        queue = rig.transmitq(0)
        for serial in range(good):
            stage(rig, bytes(20) + frame_of(0, serial))
        stage(rig, bytes(20) + frame_of(0, 999), (20,), gpa=UNMAPPED)
        for _ in range(3):
            stage(rig, bytes(20) + frame_of(0, 999))
        queue.publish()

        assert select.select([rig.engine.event_fd], [], [], DEADLINE)[0]
        assert rig.engine.next_event() == RingBroken(1, BreakReason.DESC_ADDRESS)
        assert drain(queue.err_fd) == 1
        assert (drain(queue.call_fd) > 0) == (good > 0)
        assert serials(rig.from_wire(0, good)) == list(range(good))
        assert rig.sent(0) == good == rig.stats(0).tx_packets
        assert rig.engine.queue_state(1).used_base == good
        with pytest.raises(BlockingIOError):
            rig.port.wire(0).recv()


def test_what_the_wire_has_no_room_for_is_taken_again_and_counted_once() -> None:
    """Batches end wherever the socket is full; malformed chains behind that place go back too."""
    with Rig(pairs=1, queue_size=256, buffer_size=16384) as rig:
        rig.policy()
        sent = malformed = 0
        while rig.transmitq(0).ring.free_descriptors:
            if sent % 4 == 3 and malformed * 4 < sent:
                stage(rig, bytes(20 + 13))
                malformed += 1
            else:
                stage(rig, bytes(20) + frame_of(0, sent, 30000 if sent % 2 else 60))
                sent += 1
            if (sent + malformed) % 64 == 0:
                rig.transmitq(0).publish()
                rig.barrier()
                rig.sent(0)
            assert sent < 20000
        rig.transmitq(0).publish()
        rig.rounds(lambda: rig.stats(0).tx_packets < sent)
        assert serials(rig.from_wire(0, sent)) == list(range(sent))
        rig.rounds(lambda: rig.stats(0).tx_packets == sent)
        rig.rounds(lambda: rig.stats(0).tx_drop_malformed == malformed)
        assert rig.stats(0).tx_drop_port == 0
