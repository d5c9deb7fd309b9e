# SPDX-License-Identifier: MIT
"""A ring that breaks in the middle of a batch: what came before the break is the driver's."""

from __future__ import annotations

import select

from pyvnet.datapath.engine import BreakReason, RingBroken
from pyvnet.driver.ring_split import Buffer
from tests.datapath.rig import DEADLINE, Rig, drain

UNMAPPED = 1 << 52


def test_frames_placed_before_the_break_are_published_and_notified() -> None:
    with Rig(pairs=1, port="null", queue_size=16) as rig:
        rig.policy(hash_types=0)
        queue = rig.receiveq(0)
        good = Buffer(rig.memory.alloc(2048), 2048, writable=True)
        bad = Buffer(UNMAPPED, 2048, writable=True)
        queue.ring.add([good], good)
        queue.ring.add([bad], bad)
        queue.publish()

        rig.port.inject(0, 3)

        assert select.select([rig.engine.event_fd], [], [], DEADLINE)[0]
        assert rig.engine.next_event() == RingBroken(0, BreakReason.DESC_ADDRESS)
        assert drain(queue.call_fd) > 0
        assert drain(queue.err_fd) == 1
        assert len(rig.take(0, refill=False)) == 1 == rig.stats(0).rx_packets
        rig.rounds(lambda: rig.stats(0).rx_port_frames == 3)
        rig.rounds(lambda: rig.stats(0).rx_drop_queue_off == 2)
        rig.assert_counters_add_up()
