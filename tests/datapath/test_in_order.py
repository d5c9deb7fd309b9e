# SPDX-License-Identifier: MIT
"""Buffers come back in the order in which they were made available, whatever becomes of them.

The rings themselves are compared; that every chain of every other test here comes back in its
turn is seen by the driver's ring, which raises DeviceViolation (`Queue` of the rig).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pyvnet import Device, Feature, Pair
from pyvnet.datapath.engine import BreakReason, RingBroken
from pyvnet.driver.errors import CommandError
from pyvnet.driver.ring_split import Buffer
from tests.datapath.rig import Rig, frame_of

if TYPE_CHECKING:
    from tests.datapath.rig import Queue

pytestmark = pytest.mark.requirement("VIO-FEAT-08")

UNMAPPED = 1 << 52
SIZE = 256  # chains of a test: no ring wraps, so that its entries tell all of it


def in_order(rig: Rig, queue: Queue) -> int:
    """Used ids are the available entries; returns how many."""
    count = rig.memory.words(queue.ring.used_ring, 2)[1]
    used = list(rig.memory.dwords(queue.ring.used_ring + 4, 2 * SIZE))[: 2 * count : 2]
    assert used == list(rig.memory.words(queue.ring.avail_ring + 4, SIZE))[:count]
    return count


def stage(rig: Rig, queue: Queue, *lengths: int, writable: bool = False) -> None:
    """Put one chain of such pieces on a ring, its descriptors anywhere in the table."""
    pieces = [Buffer(rig.memory.alloc(length), length, writable) for length in lengths]
    for piece in pieces:
        rig.memory.write(piece.gpa, bytes(piece.length))
    queue.ring.add(pieces, pieces[0], indirect=False)


def test_chains_to_send_good_and_bad_long_and_cut() -> None:
    with Rig(pairs=1, queue_size=SIZE, buffer_size=16384) as rig:
        rig.policy()
        queue = rig.transmitq(0)
        for i in range(40):
            stage(rig, queue, 20, 60 + i)
            if i % 3 == 0:
                stage(rig, queue, 20 + 13)  # malformed: no whole Ethernet header
            if i % 7 == 0:
                stage(rig, queue, 9000)
            if i % 5 == 0:
                stage(rig, queue, 80, writable=True)
        queue.publish()
        rig.from_wire(0, 46)
        rig.wait_sent(0, 40 + 14 + 6 + 8)
        assert in_order(rig, queue) == 68


def test_chains_given_back_to_the_ring_because_the_wire_was_full() -> None:
    with Rig(pairs=1, queue_size=SIZE, buffer_size=65536) as rig:
        rig.policy()
        queue = rig.transmitq(0)
        for _ in range(SIZE):
            stage(rig, queue, 20 + 30000)
        queue.publish()
        rig.rounds(lambda: rig.stats(0).tx_packets > 0)
        sent = rig.stats(0).tx_packets
        rig.from_wire(0, SIZE)
        rig.wait_sent(0, SIZE)
        assert sent < SIZE == in_order(rig, queue)


def test_received_frames_in_one_buffer_in_many_and_in_none() -> None:
    with Rig(pairs=1, queue_size=SIZE) as rig:
        rig.policy()
        queue = rig.receiveq(0)
        for i in range(60):
            rig.fill(0, 1, (200, 2048, 90, 512)[i % 4])
            if i % 10 == 9:
                stage(rig, queue, 100)  # nothing a receiveq may hold
        queue.publish()
        frames = [frame_of(i, i, (60, 700, 1514)[i % 3]) for i in range(40)]
        rig.inject(0, *frames)
        rig.rounds(lambda: rig.totals().rx_packets + rig.totals().rx_drops == len(frames))
        assert rig.stats(0).rx_drop_bad_buffer > 0
        assert in_order(rig, queue) > rig.stats(0).rx_packets > 0


@pytest.mark.parametrize("mode", ["rss", "automatic"])
def test_frames_handed_to_other_workers_and_frames_held(mode: str) -> None:
    """All arrive at queue 0: RSS hands most of them on, else they wait there for buffers."""
    with Rig(queue_size=SIZE, workers=2, buffers=8 if mode == "rss" else 0) as rig:
        rig.policy(mode)
        rig.inject(0, *(frame_of(i) for i in range(24)))
        if mode == "automatic":
            rig.rounds(lambda: rig.stats(0).rx_port_frames > 0)
        for pair in range(4):
            for size in (2048, 100, 2048, 1000) * 6:
                rig.fill(pair, 1, size)
        rig.rounds(lambda: rig.totals().rx_packets + rig.totals().rx_drops == 24)
        assert (rig.totals().rx_handoffs > 0) == (mode == "rss")
        placed = [in_order(rig, rig.receiveq(pair)) for pair in range(4)]
        assert sum(placed) >= rig.totals().rx_packets > 0


def test_a_ring_that_broke_and_was_started_anew() -> None:
    with Rig(pairs=1, queue_size=SIZE) as rig:
        rig.policy()
        queue = rig.transmitq(0)
        for _ in range(40):
            stage(rig, queue, 80)
        bad = queue.ring.add([Buffer(UNMAPPED, 80)])
        queue.publish()
        rig.from_wire(0, 40)
        rig.rounds(lambda: rig.stats(0).rings_broken == 1)
        assert rig.engine.next_event() == RingBroken(1, BreakReason.DESC_ADDRESS)
        assert in_order(rig, queue) == 40

        state = rig.engine.stop_queue(1)
        gpa = rig.memory.alloc(80)
        rig.memory.write(gpa, bytes(80))
        queue.ring.write_descriptor(bad.head, gpa, 80, 0, 0)
        rig.start_queue(1, state)
        for _ in range(40):
            stage(rig, queue, 80)
        queue.publish(kick=True)
        rig.from_wire(0, 41)
        rig.rounds(lambda: rig.stats(0).tx_packets == 81)
        assert in_order(rig, queue) == 81


async def test_a_driver_that_negotiated_it_finds_it_on_every_ring() -> None:
    """Its rings raise DeviceViolation for a buffer out of its turn; the control queue's too."""
    port = Pair(2)
    async with asyncio.timeout(30), Device(netdev=port) as device, device.driver() as driver:
        await driver.negotiate()
        assert driver.features & Feature.IN_ORDER
        assert all(queue.ring.in_order for queue in driver.queues)
        for turn in range(80):
            port.wire(0).send(frame_of(turn))
            await driver.receive()
            await driver.send(frame_of(turn), queue=0)
            await driver.ctrl.rx_allmulti(on=bool(turn % 2))
            with pytest.raises(CommandError):
                await driver.ctrl.vq_pairs_set(1000)
