# SPDX-License-Identifier: MIT
"""What may change while a ring runs: enabled or not, its fds, its addresses."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from pyvnet.datapath.stats import PairStats
from pyvnet.errors import FrontendError, UsageError
from tests.datapath.rig import Rig, drain, flow_and_serial, frame_of


@pytest.mark.requirement("U-42", "NET-MQ-10")
def test_what_is_sent_on_a_disabled_ring_is_thrown_away_and_counted() -> None:
    with Rig(pairs=2) as rig:
        rig.policy(indirection_table=(0, 1))
        rig.engine.enable_queue(1, on=False)
        rig.send(0, *(frame_of(0, serial) for serial in range(5)))
        rig.wait_sent(0, 5)
        assert rig.stats(0).tx_drop_queue_off == 5
        rig.engine.enable_queue(1, on=True)
        rig.send(0, frame_of(0, 7))
        assert [flow_and_serial(f)[1] for f in rig.from_wire(0, 1)] == [7]
        rig.barrier()  # it is there before it is counted
        assert (rig.stats(0).tx_packets, rig.stats(0).tx_drops) == (1, 5)


@pytest.mark.requirement("U-42")
def test_a_ring_may_start_disabled() -> None:
    with Rig(pairs=1, start=False) as rig:
        rig.policy("automatic")
        for queue in rig.queues:
            setup = queue.ring.setup(queue.index, *queue.fds)
            rig.engine.start_queue(setup, event_idx=True, indirect=True, enabled=False)
        rig.fill(0, 4)
        rig.send(0, frame_of(0))
        rig.wait_sent(0, 1)
        rig.inject(0, frame_of(0))
        rig.rounds(lambda: rig.stats(0).rx_drop_queue_off == 1)
        assert rig.take_all() == []
        rig.engine.enable_queue(0, on=True)
        rig.inject(0, frame_of(0, 2))
        (frame,) = rig.receive(1)
        assert flow_and_serial(frame.data) == (0, 2)


@pytest.mark.requirement("U-11", "NET-RSS-03")
def test_under_rss_a_disabled_receiveq_costs_its_frames() -> None:
    with Rig(pairs=2, buffers=16) as rig:
        rig.policy(indirection_table=(1,))
        rig.engine.enable_queue(2, on=False)
        rig.inject(0, *(frame_of(flow) for flow in range(4)))
        rig.rounds(lambda: rig.totals().rx_drop_queue_off == 4)
        assert rig.take_all() == []


@pytest.mark.requirement("NET-MQ-07")
def test_in_automatic_mode_another_receiveq_takes_over() -> None:
    with Rig(pairs=2, buffers=16) as rig:
        rig.policy("automatic")
        rig.engine.enable_queue(2, on=False)
        rig.inject(1, *(frame_of(flow) for flow in range(4)))
        assert {frame.queue for frame in rig.receive(4)} == {0}


def test_a_chain_that_waited_for_a_full_port_is_thrown_away_when_the_ring_is_disabled() -> None:
    with Rig(pairs=1, queue_size=256, buffer_size=16384) as rig:
        rig.policy("automatic")
        sent = 0
        while rig.transmitq(0).ring.free_descriptors:
            rig.send(0, frame_of(0, sent, 30000))
            sent += 1
            if sent % 64 == 0:
                rig.barrier()
                rig.sent(0)
        rig.engine.enable_queue(1, on=False)
        rig.rounds(lambda: rig.stats(0).tx_packets + rig.stats(0).tx_drop_queue_off == sent)
        assert rig.stats(0).tx_drop_queue_off


@pytest.mark.parametrize("index", [0, 3])
def test_a_ring_that_does_not_run_has_nothing_to_change(index: int) -> None:
    with Rig(pairs=2, start=False) as rig:
        with pytest.raises(UsageError):
            rig.engine.enable_queue(index, on=True)
        with pytest.raises(UsageError):
            rig.engine.move_queue(index, 0, 0, 0)
        with pytest.raises(UsageError):
            rig.engine.set_kick(index, -1)
        with pytest.raises(UsageError):
            rig.engine.set_calls(index, call_fd=-1, err_fd=-1)


@pytest.mark.parametrize("index", [5, 100, 2**31])
def test_a_ring_that_does_not_exist(index: int) -> None:
    with Rig(pairs=2) as rig, pytest.raises(FrontendError):
        rig.engine.enable_queue(index, on=True)


@pytest.mark.requirement("PF-A-17")
@pytest.mark.tsan
def test_no_completion_is_lost_while_the_call_fd_is_replaced() -> None:
    with Rig(pairs=1, buffers=64, event_idx=False) as rig:
        rig.policy("automatic")
        got = 0
        for serial in range(300):
            rig.inject(0, frame_of(0, serial))
            fresh = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            rig.engine.set_calls(0, call_fd=fresh, err_fd=-1)
            os.dup2(fresh, rig.receiveq(0).call_fd, inheritable=False)
            os.close(fresh)
            rig.wait(lambda: bool(got_now(rig)))
            got += 1
        assert got == 300


def got_now(rig: Rig) -> int:
    return len(rig.take(0))


def test_the_new_call_fd_hears_of_what_the_old_one_may_have_missed() -> None:
    with Rig(pairs=1) as rig:
        fresh = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        rig.engine.set_calls(1, call_fd=fresh, err_fd=-1)
        assert drain(fresh) == 1
        os.close(fresh)


def test_a_kick_on_the_new_fd_is_heard_and_one_on_the_old_is_not_lost() -> None:
    with Rig(pairs=1) as rig:
        rig.policy("automatic")
        rig.send(0, frame_of(0, 1), kick=False)
        fresh = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        rig.engine.set_kick(1, fresh)
        assert [flow_and_serial(f)[1] for f in rig.from_wire(0, 1)] == [1]
        rig.send(0, frame_of(0, 2), kick=False)
        os.eventfd_write(fresh, 1)
        assert [flow_and_serial(f)[1] for f in rig.from_wire(0, 1)] == [2]
        os.close(fresh)


def test_whoever_takes_a_ring_over_finds_its_kicks() -> None:
    """One too many is a look in vain; one too few would be a driver that nobody answers."""
    with Rig(pairs=1) as rig:
        rig.policy("automatic")
        queue = rig.transmitq(0)
        rig.send(0, frame_of(0, 1), kick=True)
        assert rig.from_wire(0, 1)
        rig.wait_sent(0, 1)
        state = rig.engine.stop_queue(1)
        assert drain(queue.kick_fd)
        # Nobody runs it: the chain and its kick wait together.
        rig.send(0, frame_of(0, 2), kick=True)
        rig.start_queue(1, state)
        assert [flow_and_serial(f)[1] for f in rig.from_wire(0, 1)] == [2]
        rig.wait_sent(0, 1)
        for _ in range(20):
            state = rig.engine.stop_queue(1)
            queue.kick()
            rig.start_queue(1, state)
            queue.kick()
            rig.barrier()
        assert rig.engine.queue_state(1).running
        assert rig.stats(0).tx_packets == 2


def test_a_kick_fd_that_cannot_be_waited_for_is_refused() -> None:
    with Rig(pairs=1) as rig:
        rig.policy("automatic")
        file = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        with pytest.raises(FrontendError):
            rig.engine.set_kick(1, file)
        os.close(file)
        rig.send(0, frame_of(0, 2), kick=True)
        assert [flow_and_serial(f)[1] for f in rig.from_wire(0, 1)] == [2]


@pytest.mark.requirement("CVE-2026-5747")
def test_other_addresses_are_checked_and_bad_ones_change_nothing() -> None:
    with Rig(pairs=1, buffers=4) as rig:
        rig.policy("automatic")
        ring = rig.receiveq(0).ring.setup(0)
        good = (ring.desc_table, ring.avail_ring, ring.used_ring)
        for bad in ((good[0] + 8, *good[1:]), (good[0], good[1] + 1, good[2]), (2**63, *good[1:])):
            with pytest.raises(FrontendError):
                rig.engine.move_queue(0, *bad)
        rig.engine.move_queue(0, *good)
        rig.inject(0, frame_of(0, 9))
        (frame,) = rig.receive(1)
        assert flow_and_serial(frame.data) == (0, 9)


def test_counters_of_disabled_rings_are_drops() -> None:
    assert PairStats(tx_drop_queue_off=3).tx_drops == 3


def test_memory_may_be_let_go_of_and_come_back() -> None:
    with Rig(pairs=1, start=False) as rig:
        rig.engine.clear_memory()
        with pytest.raises(Exception, match="refused"):
            rig.start_queue(0)
        rig.swap_memory()
        rig.start_queue(0)
        rig.policy("automatic")
        rig.fill(0, 2)
        rig.inject(0, frame_of(0))
        assert len(rig.receive(1)) == 1


@pytest.mark.requirement("U-59")
@pytest.mark.parametrize("start", [0, 65530])
def test_a_ring_whose_front_end_forgot_its_position_goes_on(start: int) -> None:
    """DPDK's virtio-user says 0 when its back-end comes again; used.idx knows better."""
    with Rig(pairs=1, buffers=16, ring_start=start) as rig:
        rig.policy("automatic")
        for turn in range(3):
            rig.send(0, *(frame_of(0, serial) for serial in range(5)))
            sent = rig.from_wire(0, 5)
            assert [flow_and_serial(frame)[1] for frame in sent] == list(range(5))
            rig.wait_sent(0, 5)
            rig.inject(0, *(frame_of(1, serial) for serial in range(5)))
            placed = rig.receive(5)
            assert [flow_and_serial(frame.data)[1] for frame in placed] == list(range(5))
            for index in (0, 1):
                state = rig.engine.stop_queue(index)
                assert state.used_base == (start + 5 * (turn + 1)) % (1 << 16)
                rig.start_queue(index, replace(state, avail_base=0, used_base=0))
