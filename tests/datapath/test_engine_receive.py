# SPDX-License-Identifier: MIT
"""The receive line: steering, handing over, waiting for buffers, dropping, and its counters."""

from __future__ import annotations

import itertools

import pytest

from pyvnet.reference import classify, steer
from tests.datapath.rig import (
    ALL_TYPES,
    KEY,
    ROUND_ROBIN,
    Received,
    Rig,
    flow_and_serial,
    frame_of,
    ordered,
)

FLOWS = 24
ROUNDS = 10


def assert_as_reference(received: Received, key: bytes = KEY) -> None:
    """Queue, hash and report of a frame are what the slow reading of the standard says."""
    expected = classify(received.data, ALL_TYPES, key)
    assert received.header.hash_value == expected.value
    assert received.header.hash_report == expected.report
    assert received.queue == steer(expected, ROUND_ROBIN, 0)


@pytest.mark.requirement("NET-RSS-01", "NET-RSS-02", "NET-REP-01", "NET-RX-01")
@pytest.mark.parametrize("workers", [4, 2, 1])
@pytest.mark.parametrize("event_idx", [True, False])
def test_frames_steered_to_another_workers_ring_arrive_once_and_in_order(
    workers: int, event_idx: bool
) -> None:
    with Rig(workers=workers, event_idx=event_idx, buffers=60) as rig:
        rig.policy()
        received: list[Received] = []
        for serial in range(ROUNDS):
            # Every flow keeps to one host port queue, as the kernel would have it.
            for flow in range(FLOWS):
                rig.inject(flow % 4, frame_of(flow, serial))
            received += rig.receive(FLOWS)
        assert ordered(received) == {flow: list(range(ROUNDS)) for flow in range(FLOWS)}
        for frame in received:
            assert_as_reference(frame)
        totals = rig.totals()
        assert totals.rx_packets == FLOWS * ROUNDS
        assert totals.rx_drops == 0
        assert bool(totals.rx_handoffs) is (workers > 1)
        astray = sum(f.queue != flow_and_serial(f.data)[0] % 4 for f in received)
        assert totals.rx_resteered == astray > 0
        rig.assert_counters_add_up()


@pytest.mark.requirement("OUR-RX-20")
def test_a_handoff_without_a_free_slot_is_dropped_and_counted_for_the_queue_it_was_for() -> None:
    count = 64  # in one burst, against one slot in flight
    with Rig(pairs=2, workers=2, handoff_slots=1, port="null", queue_size=256, buffers=200) as rig:
        rig.policy(indirection_table=(1,), hash_types=0, unclassified_queue=1)
        rig.port.inject(0, count)
        rig.rounds(lambda: rig.stats(0).rx_port_frames == count and rig.totals().rx_packets > 0)
        rig.rounds(lambda: rig.totals().rx_packets + rig.totals().rx_drops == count)
        assert rig.stats(1).rx_drop_handoff == rig.totals().rx_drops > 0
        assert rig.stats(1).rx_handoffs == rig.stats(1).rx_packets
        rig.assert_counters_add_up()


@pytest.mark.requirement("VIO-SPL-09", "NET-RX-04")
def test_one_notification_for_a_batch() -> None:
    with Rig(pairs=1, port="null", queue_size=128, buffers=100) as rig:
        rig.policy(hash_types=0)
        rig.port.inject(0, 50)
        rig.rounds(lambda: rig.stats(0).rx_packets == 50)
        rig.barrier()  # frames are counted before the burst that brought them is over
        # Asked for at the first element only, and not again: one burst, one notification.
        assert rig.stats(0).rx_notifications == 1
        assert len(rig.take(0)) == 50


@pytest.mark.requirement("VIO-SPL-07", "VIO-SPL-08", "VIO-SPL-09", "VIO-SPL-10")
@pytest.mark.parametrize("event_idx", [True, False])
def test_a_driver_that_asks_for_silence_gets_it_and_one_that_asks_again_is_told(
    event_idx: bool,
) -> None:
    with Rig(pairs=1, port="null", queue_size=128, buffers=100, event_idx=event_idx) as rig:
        rig.policy(hash_types=0)
        queue = rig.receiveq(0)
        if event_idx:
            # The low flag bit means nothing now; used_event far away means silence.
            queue.ring._avail[0] = 1
            queue.ring._avail[2 + queue.ring.size] = 90
        else:
            # used_event means nothing now.
            queue.ring._avail[2 + queue.ring.size] = 0
            queue.ring.disarm()
        rig.port.inject(0, 20)
        rig.rounds(lambda: rig.stats(0).rx_packets == 20)
        assert (queue.calls(), rig.stats(0).rx_notifications) == (0, 0)
        assert len(rig.take(0)) == 20
        assert not queue.ring.arm()
        rig.port.inject(0, 1)
        rig.receive(1)
        rig.barrier()  # the frame is there before it is counted
        assert rig.stats(0).rx_notifications == 1


@pytest.mark.requirement("VIO-SPL-09")
@pytest.mark.parametrize("first", [0xFFF0, 0xFFFF, 0x7FFE])
def test_indexes_wrap_without_a_frame_or_a_notification_lost(first: int) -> None:
    with Rig(pairs=1, workers=1, queue_size=16, ring_start=first, buffers=16) as rig:
        rig.policy()
        for serial in range(40):
            rig.inject(0, frame_of(1, serial))
            (received,) = rig.receive(1)
            assert flow_and_serial(received.data) == (1, serial)


@pytest.mark.requirement("U-43", "NET-MQ-04")
@pytest.mark.parametrize("event_idx", [True, False])
@pytest.mark.parametrize("workers", [2, 1])
def test_a_queue_of_its_own_without_buffers_waits_and_loses_nothing(
    workers: int, event_idx: bool
) -> None:
    count = 100
    with Rig(pairs=2, workers=workers, event_idx=event_idx, queue_size=16) as rig:
        rig.policy("automatic")
        rig.inject(0, *(frame_of(0, serial) for serial in range(count)))
        # The other queue is not held up.
        rig.fill(1, 8)
        rig.inject(1, *(frame_of(1, serial) for serial in range(8)))
        assert ordered(rig.receive(8)) == {1: list(range(8))}
        rig.rounds(lambda: rig.stats(0).rx_port_frames == 1)  # read, and held
        received: list[Received] = []
        while len(received) < count:
            rig.fill(0, 4)  # kicks, for that is what the device asked for
            rig.wait(lambda: rig.receiveq(0).ring.ready() == 4)
            received += rig.take(0, refill=False)
        assert ordered(received) == {0: list(range(count))}
        assert rig.totals().rx_drops == 0
        rig.assert_counters_add_up()


@pytest.mark.requirement("U-43", "NET-RSS-02", "OUR-RX-20")
@pytest.mark.parametrize("workers", [4, 1])
def test_rss_without_buffers_drops_counts_and_never_resteers(workers: int) -> None:
    with Rig(workers=workers, queue_size=128) as rig:
        rig.policy()
        for pair in (0, 1, 3):
            rig.fill(pair, 100)
        expected = {
            flow: steer(classify(frame_of(flow), ALL_TYPES, KEY), ROUND_ROBIN, 0)
            for flow in range(64)
        }
        starved = sum(queue == 2 for queue in expected.values())
        assert 0 < starved < 64
        for flow in expected:
            rig.inject(0, frame_of(flow))
        received = rig.receive(64 - starved)
        assert {flow_and_serial(f.data)[0]: f.queue for f in received} == {
            flow: queue for flow, queue in expected.items() if queue != 2
        }
        rig.rounds(lambda: rig.stats(2).rx_drop_overruns == starved)
        rig.assert_counters_add_up()


@pytest.mark.requirement("NET-MQ-07", "NET-MQ-08", "NET-MQ-06")
@pytest.mark.parametrize("workers", [4, 2, 1])
def test_automatic_steering_goes_around_a_queue_that_is_off(workers: int) -> None:
    with Rig(workers=workers, buffers=16) as rig:
        rig.policy("automatic")
        rig.engine.stop_queue(2 * 1)
        rig.inject(1, frame_of(1))
        (received,) = rig.receive(1)
        assert received.queue != 1
        assert rig.totals().rx_resteered == 0  # nobody told it to be on that one
        for pair in (0, 2, 3):
            rig.engine.stop_queue(2 * pair)
        rig.inject(1, frame_of(1), frame_of(1))
        rig.rounds(lambda: rig.totals().rx_drop_queue_off == 2)
        rig.assert_counters_add_up()


@pytest.mark.requirement("U-11", "NET-RSS-03", "VIO-RST-03")
@pytest.mark.parametrize("workers", [4, 2, 1])
def test_rss_drops_for_a_queue_that_is_off_and_never_folds(workers: int) -> None:
    with Rig(workers=workers, buffers=60) as rig:
        rig.policy()
        rig.engine.stop_queue(2 * 2)
        flows = range(40)
        off = sum(steer(classify(frame_of(f), ALL_TYPES, KEY), ROUND_ROBIN, 0) == 2 for f in flows)
        for flow in flows:
            rig.inject(flow % 4, frame_of(flow))
        for frame in rig.receive(len(flows) - off):
            assert_as_reference(frame)
        rig.rounds(lambda: rig.totals().rx_drop_queue_off == off)
        rig.assert_counters_add_up()


@pytest.mark.requirement("NET-MQ-02")
def test_before_any_command_only_the_first_queue_gets_frames() -> None:
    with Rig(buffers=16) as rig:
        rig.inject(0, *(frame_of(flow) for flow in range(10)))
        assert {frame.queue for frame in rig.receive(10)} == {0}


@pytest.mark.requirement("NET-RX-01", "NET-RX-02", "NET-RX-03", "OUR-RX-19")
@pytest.mark.parametrize("header", [12, 20])
@pytest.mark.parametrize("size", [60, 172, 180, 188, 1514, 9000])
def test_a_frame_larger_than_a_buffer_is_spread_and_fills_all_but_the_last(
    header: int, size: int
) -> None:
    with Rig(pairs=1, buffer_size=200, buffers=60) as rig:
        rig.policy(header_length=header)
        frame = frame_of(1, 7, size)
        rig.inject(0, frame)
        (received,) = rig.receive(1)
        assert received.data == frame
        assert received.buffers == received.header.num_buffers == -(-(size + header) // 200)
        assert received.header.flags == received.header.gso_type == 0


@pytest.mark.requirement("NET-RX-01")
@pytest.mark.parametrize("indirect", [True, False])
@pytest.mark.parametrize("event_idx", [True, False])
@pytest.mark.parametrize("merge", [True, False])
def test_every_combination_of_ring_features_carries_both_directions(
    merge: bool, event_idx: bool, indirect: bool
) -> None:
    with Rig(workers=2, indirect=indirect, event_idx=event_idx, buffers=32) as rig:
        rig.policy(merge_rx=merge)
        for serial in range(5):
            for flow in range(8):
                rig.inject(flow % 4, frame_of(flow, serial, 60 + 100 * serial))
            for frame in rig.receive(8):
                assert_as_reference(frame)
                assert frame.header.num_buffers == 1
            for pair in range(4):
                rig.send(pair, frame_of(pair, serial), cut=17)
                assert rig.from_wire(pair, 1) == [frame_of(pair, serial)]
                rig.wait_sent(pair, 1)


@pytest.mark.requirement("NET-RX-01", "OUR-RX-20")
def test_without_mergeable_buffers_a_frame_that_never_fits_is_dropped_and_costs_no_buffer() -> None:
    with Rig(pairs=1, buffer_size=200, buffers=8) as rig:
        rig.policy(merge_rx=False)
        for size in (181, 1514):
            rig.inject(0, frame_of(1, 0, size))
        rig.inject(0, *(frame_of(1, serial, 180) for serial in range(8)))
        assert ordered(rig.receive(8)) == {1: list(range(8))}
        assert rig.stats(0).rx_drop_too_big == 2
        rig.assert_counters_add_up()


@pytest.mark.requirement("OUR-RX-20", "NET-RX-04")
def test_too_few_buffers_for_the_whole_frame_show_none_of_it() -> None:
    with Rig(pairs=2, buffer_size=200) as rig:
        rig.policy(indirection_table=(0,))
        rig.fill(0, 7)
        rig.inject(0, frame_of(1, 0, 1514))  # wants 8
        rig.rounds(lambda: rig.stats(0).rx_drop_overruns == 1)
        assert rig.receiveq(0).ring.ready() == 0
        # The seven are where they were: as many small frames fit.
        rig.inject(0, *(frame_of(1, serial) for serial in range(7)))
        rig.wait(lambda: rig.receiveq(0).ring.ready() == 7)
        rig.assert_counters_add_up()


@pytest.mark.requirement("OUR-RX-21")
@pytest.mark.parametrize("size", [0, 1, 13, 14, 20, 33])
def test_runts_arrive_as_they_are(size: int) -> None:
    with Rig(pairs=1, buffers=4) as rig:
        rig.policy()
        frame = frame_of(1)[:size]
        rig.inject(0, frame)
        (received,) = rig.receive(1)
        assert received.data == frame


def test_a_host_port_that_gives_less_than_a_header_or_too_much_is_counted() -> None:
    with Rig(pairs=1, buffers=4) as rig:
        rig.policy()
        wire = rig.port.wire(0)
        for length in (1, 11):
            wire.send(b"", bytes(length))
        wire.send(bytes(65558))
        rig.inject(0, frame_of(1))
        assert len(rig.receive(1)) == 1
        assert rig.stats(0).rx_drop_port == 3
        rig.assert_counters_add_up()


@pytest.mark.requirement("NET-RX-02")
def test_the_largest_frame_arrives() -> None:
    with Rig(pairs=1, queue_size=64, buffers=60) as rig:
        rig.policy()
        frame = frame_of(1, 0, 65557)
        rig.inject(0, frame)
        (received,) = rig.receive(1)
        assert received.data == frame


@pytest.mark.requirement("U-43")
def test_a_frame_held_goes_on_when_the_policy_changes() -> None:
    with Rig(pairs=2, workers=2) as rig:
        rig.policy("automatic")
        rig.inject(0, frame_of(3))
        rig.rounds(lambda: rig.stats(0).rx_port_frames == 1)
        rig.fill(1, 4)
        rig.policy(indirection_table=(1,))
        (received,) = rig.receive(1)
        assert (received.queue, flow_and_serial(received.data)) == (1, (3, 0))


@pytest.mark.requirement("U-43")
def test_a_frame_held_for_a_ring_that_stops_goes_to_one_that_runs() -> None:
    with Rig(pairs=2, workers=2) as rig:
        rig.policy("automatic")
        rig.inject(0, frame_of(3))
        rig.rounds(lambda: rig.stats(0).rx_port_frames == 1)
        rig.fill(1, 4)
        rig.engine.stop_queue(0)
        (received,) = rig.receive(1)
        assert (received.queue, flow_and_serial(received.data)) == (1, (3, 0))


@pytest.mark.requirement("OUR-RX-20")
def test_counters_add_up_under_every_kind_of_drop_at_once() -> None:
    with Rig(workers=2, buffer_size=200, handoff_slots=2, buffers=20) as rig:
        rig.policy(merge_rx=False)
        rig.engine.stop_queue(2 * 3)
        count = 0
        for serial, flow in itertools.product(range(40), range(12)):
            # Half of them come to the worker that owns their receiveq and need no slot of the few.
            rig.inject((flow + serial) % 4, frame_of(flow, serial, 60 + 60 * (serial % 4)))
            count += 1
        rig.port.wire(0).send(b"", b"short")
        rig.rounds(lambda: rig.totals().rx_port_frames == count + 1)
        rig.rounds(lambda: rig.totals().rx_packets + rig.totals().rx_drops == count + 1)
        totals = rig.totals()
        assert totals.rx_drop_too_big
        assert totals.rx_drop_queue_off
        assert totals.rx_drop_overruns
        assert totals.rx_drop_port == 1
