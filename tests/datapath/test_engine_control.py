# SPDX-License-Identifier: MIT
"""What control does under traffic: policies, memory tables, rings; and nothing when idle."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from pyvnet.datapath.config import DEFAULT_POLL_US, EngineConfig
from pyvnet.datapath.engine import BreakReason, PortGone, RingBroken
from pyvnet.datapath.memory import GuestMemory as MappedMemory
from pyvnet.driver.memory import GuestMemory, RegionSpec
from pyvnet.reference import classify, steer
from tests.datapath.rig import (
    ALL_TYPES,
    KEY,
    OTHER_KEY,
    ROUND_ROBIN,
    Received,
    Rig,
    flow_and_serial,
    frame_of,
    ordered,
)

# Whatever the environment says: an idle engine sleeps.
SLEEPING = EngineConfig(poll_us=DEFAULT_POLL_US)


def follows(frame: Received, key: bytes, table: tuple[int, ...] = ROUND_ROBIN) -> bool:
    expected = classify(frame.data, ALL_TYPES, key)
    seen = (frame.header.hash_value, frame.header.hash_report, frame.queue)
    return seen == (expected.value, expected.report, steer(expected, table, 0))


@pytest.mark.requirement("U-41", "NET-MQ-03", "OUR-CVQ-08")
@pytest.mark.parametrize("workers", [4, 2, 1])
def test_after_a_new_policy_no_frame_of_the_old_one_appears(workers: int) -> None:
    with Rig(workers=workers, queue_size=256, buffers=200) as rig:
        keys = (KEY, OTHER_KEY)
        rig.policy(key=keys[0])
        for change in range(1, 13):
            # Traffic under way on every host port queue while the key changes.
            for flow in range(48):
                rig.inject(flow % 4, frame_of(flow, change))
            rig.policy(key=keys[change % 2])
            # What the driver can see now was placed before; what comes is all new.
            placed = [frame for pair in range(4) for frame in rig.take(pair)]
            rest = rig.receive(48 - len(placed))
            for frame in placed:
                assert follows(frame, keys[0]) or follows(frame, keys[1])
            for frame in rest:
                assert follows(frame, keys[change % 2])
        assert rig.totals().rx_drops == 0


@pytest.mark.requirement("U-41", "NET-MQ-03", "NET-MQ-01")
def test_after_a_shrink_no_frame_reaches_a_higher_queue() -> None:
    with Rig(workers=2, queue_size=256, buffers=200) as rig:
        for _ in range(10):
            rig.policy()
            for flow in range(40):
                rig.inject(flow % 4, frame_of(flow))
            rig.policy("automatic", pairs=1, port_queues=1)
            higher = [rig.receiveq(pair).ring.ready() for pair in (1, 2, 3)]
            rig.inject(0, *(frame_of(flow) for flow in range(20)))
            # Frames left on detached host port queues stay there until they are attached again.
            rig.rounds(lambda: rig.stats(0).rx_port_frames % 30 == 0)
            rig.barrier()
            assert [rig.receiveq(pair).ring.ready() for pair in (1, 2, 3)] == higher
            rig.take_all()


@pytest.mark.requirement("U-62")
def test_frames_queued_in_a_host_queue_before_a_shrink_are_drained_not_lost() -> None:
    with Rig(pairs=2, workers=2, queue_size=512, buffers=400, handoff_slots=256) as rig:
        rig.policy("automatic", pairs=2)
        rig.inject(1, *(frame_of(1, serial) for serial in range(150)))
        rig.policy("automatic", pairs=1, port_queues=1)
        assert len({frame.data for frame in rig.receive(150)}) == 150


@pytest.mark.requirement("U-62")
def test_a_detached_host_queue_is_not_read_any_more() -> None:
    with Rig(pairs=2, workers=2, port="null") as rig:
        rig.policy(hash_types=0, port_queues=2)
        rig.port.inject(1, 1 << 40)  # without end
        rig.rounds(lambda: rig.stats(1).rx_port_frames > 0)
        rig.policy(hash_types=0, port_queues=1)
        seen = rig.stats(1).rx_port_frames
        rig.port.inject(0, 10_000)
        rig.rounds(lambda: rig.stats(0).rx_port_frames == 10_000)
        assert rig.stats(1).rx_port_frames == seen
        rig.policy(hash_types=0, port_queues=2)
        rig.rounds(lambda: rig.stats(1).rx_port_frames > seen)


@pytest.mark.parametrize("header", [12, 20])
def test_the_header_length_changes_under_traffic(header: int) -> None:
    with Rig(workers=2, buffers=40) as rig:
        for length in (32 - header, header, 32 - header):
            rig.policy(header_length=length)
            for flow in range(20):
                rig.inject(flow % 4, frame_of(flow))
            frames = rig.receive(20)
            assert {flow_and_serial(frame.data)[0] for frame in frames} == set(range(20))


@pytest.mark.parametrize("workers", [4, 2])
def test_the_memory_table_is_swapped_under_traffic_and_no_frame_is_lost(workers: int) -> None:
    with Rig(workers=workers, buffers=60) as rig:
        rig.policy()
        received = []
        for serial in range(25):
            for flow in range(16):
                rig.inject(flow % 4, frame_of(flow, serial))
            for pair in range(4):
                rig.send(pair, frame_of(pair, serial))
            rig.swap_memory()
            received += rig.receive(16)
            for pair in range(4):
                assert rig.from_wire(pair, 1) == [frame_of(pair, serial)]
                rig.wait_sent(pair, 1)
        assert ordered(received) == {flow: list(range(25)) for flow in range(16)}
        # Old tables are gone: what is mapped is the driver's view and the engine's.
        maps = Path("/proc/self/maps").read_text()
        assert maps.count("memfd:pyvnet-guest-engine") == 2


def test_a_ring_the_new_table_does_not_cover_breaks_and_says_so_once() -> None:
    other = [RegionSpec(0x1000, 4096)]
    with Rig(pairs=2, workers=2, buffers=8) as rig, GuestMemory(other) as elsewhere:
        rig.policy()
        with MappedMemory(elsewhere.regions) as mapped:
            rig.engine.set_memory(mapped)
        events = set()
        while (event := rig.engine.next_event()) is not None:
            assert isinstance(event, RingBroken)
            events.add((event.index, event.reason))
        assert events == {(index, BreakReason.RING_ADDRESS) for index in range(4)}
        for queue in rig.queues:
            assert os.eventfd_read(queue.err_fd) == 1
            assert not rig.engine.queue_state(queue.index).running
        rig.inject(0, frame_of(1))
        rig.rounds(lambda: rig.totals().rx_drop_queue_off == 1)


@pytest.mark.requirement("VIO-STAT-02")
@pytest.mark.parametrize("workers", [2, 1])
def test_a_broken_ring_stops_alone(workers: int) -> None:
    with Rig(pairs=2, workers=workers, buffers=8) as rig:
        rig.policy()
        ring = rig.transmitq(0).ring
        ring._avail[2] = 0xFFFF
        ring._avail[1] = 1
        rig.transmitq(0).kick()
        _readable(rig.engine.event_fd)
        assert rig.engine.next_event() == RingBroken(1, BreakReason.DESC_INDEX)
        assert rig.engine.next_event() is None
        assert os.eventfd_read(rig.transmitq(0).err_fd) == 1
        for _ in range(3):
            rig.transmitq(0).kick()
            rig.barrier()
        assert rig.stats(0).rings_broken == 1
        rig.send(1, frame_of(1))
        assert rig.from_wire(1, 1) == [frame_of(1)]
        rig.inject(0, *(frame_of(flow) for flow in range(8)))
        assert len(rig.receive(8)) == 8


@pytest.mark.requirement("VIO-RST-02", "VIO-RST-03")
@pytest.mark.parametrize("workers", [4, 1])
def test_rings_stop_and_resume_where_they_stood(workers: int) -> None:
    with Rig(workers=workers, buffers=32) as rig:
        rig.policy("automatic")
        received: list[Received] = []
        for serial in range(20):
            for pair in range(4):
                rig.inject(pair, frame_of(pair, serial))
                rig.send(pair, frame_of(pair, serial))
            received += rig.receive(4)
            states = [rig.engine.stop_queue(index) for index in range(8)]
            used = [queue.ring._used[1] for queue in rig.queues]
            for queue in rig.queues:
                queue.kick()
            rig.barrier()
            assert [queue.ring._used[1] for queue in rig.queues] == used
            for index, state in enumerate(states):
                assert not state.broken
                rig.start_queue(index, state)
            for pair in range(4):
                assert rig.from_wire(pair, 1) == [frame_of(pair, serial)]
                rig.wait_sent(pair, 1)
        assert ordered(received) == {pair: list(range(20)) for pair in range(4)}


def test_a_wire_whose_far_end_closes_is_reported_once_and_the_others_go_on() -> None:
    with Rig(pairs=2, workers=2, buffers=8, config=SLEEPING) as rig:
        rig.policy("automatic")
        rig.port.wire(1)._socket.close()
        _readable(rig.engine.event_fd)
        assert rig.engine.next_event() == PortGone(1)
        assert rig.engine.next_event() is None
        rig.send(1, frame_of(1), frame_of(1))
        rig.wait_sent(1, 2)
        assert rig.stats(1).tx_drop_port == 2
        rig.send(0, frame_of(0))
        assert rig.from_wire(0, 1) == [frame_of(0)]
        select.select([], [], [], 0.05)  # the frame goes out before its worker sleeps
        before = _worker_activity()
        select.select([], [], [], 0.2)
        assert _worker_activity() == before


def _readable(fd: int) -> None:
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    assert waiting.poll(30000), "hangs"


def _worker_activity() -> dict[str, tuple[int, int, int]]:
    """CPU ticks and context switches of every thread but this one."""
    activity = {}
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) == os.getpid():
            continue
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        switches = [
            int(line.split()[1])
            for line in (task / "status").read_text().splitlines()
            if "ctxt_switches" in line
        ]
        activity[task.name] = (int(fields[11]) + int(fields[12]), switches[0], switches[1])
    return activity


@pytest.mark.parametrize(
    "state", ["fresh", "after traffic", "no buffers", "full wire", "ring broken"]
)
@pytest.mark.parametrize("event_idx", [True, False])
def test_an_idle_engine_does_not_run_at_all(state: str, event_idx: bool) -> None:
    """Not even once: no thread is scheduled while nothing happens."""
    buffers = 0 if state == "no buffers" else 40
    with Rig(workers=4, buffers=buffers, event_idx=event_idx, config=SLEEPING) as rig:
        rig.policy("automatic")
        if state == "after traffic":
            for flow in range(40):
                rig.inject(flow % 4, frame_of(flow))
            rig.receive(40)
            for pair in range(4):
                rig.send(pair, frame_of(pair))
                rig.wait_sent(pair, 1)
        elif state == "no buffers":
            for pair in range(4):
                rig.inject(pair, *(frame_of(pair, serial) for serial in range(5)))
            rig.rounds(lambda: rig.totals().rx_port_frames == 4)
        elif state == "full wire":
            while rig.transmitq(0).ring.outstanding < 8:
                rig.send(0, frame_of(0, 0, 60000))
                rig.barrier()
                rig.sent(0)
        elif state == "ring broken":
            rig.receiveq(0).ring._avail[1] += 1000
            rig.inject(0, *(frame_of(0) for _ in range(50)))
            rig.receiveq(0).kick()
            rig.rounds(lambda: rig.totals().rings_broken == 1)
        for _ in range(3):
            rig.barrier()
        select.select(
            [], [], [], 0.05
        )  # the last command's answer goes out before its worker sleeps
        before = _worker_activity()
        assert len(before) >= 4
        select.select([], [], [], 0.3)
        assert _worker_activity() == before
