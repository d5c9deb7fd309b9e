# SPDX-License-Identifier: MIT
"""Threads at work, worth watching with the thread sanitizer (`make tsan`).

Bounded by counts.  Without the sanitizer the same tests check that nothing
hangs, leaks or is counted twice.  What Python itself does to guest memory is
not instrumented; the races looked for are those between workers, and between
workers and the control thread.
"""

from __future__ import annotations

import os
import random
import select
import threading
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.datapath.config import EngineConfig
from pyvnet.driver.ring_split import Buffer
from tests.datapath.rig import (
    DEADLINE,
    KEY,
    OTHER_KEY,
    Queue,
    Rig,
    drain,
    flow_and_serial,
    frame_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.tsan

STEPS = 150
POLICIES: list[dict[str, Any]] = [
    {"key": KEY},
    {"key": OTHER_KEY},
    {"indirection_table": (3, 2, 1, 0)},
    {"indirection_table": (2,), "port_queues": 3},
    {"header_length": 12},
    {"header_length": 12, "merge_rx": False},
    {"mode": "automatic"},
    {"mode": "automatic", "pairs": 2, "port_queues": 2},
    {"mode": "automatic", "pairs": 1, "port_queues": 1, "header_length": 12},
]


@pytest.fixture(scope="module", autouse=True)
def _sanitizer_thread() -> None:
    """The sanitizer starts a thread of its own with the first one; it is not a leak of a test."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Run ``work`` over and over in another thread."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def main() -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    thread = threading.Thread(target=main)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def traffic(rig: Rig, serial: int) -> None:
    """Frames both ways on every pair; what a socket or ring does not take now is left out."""
    for pair in range(rig.pairs):
        if rig.transmitq(pair).ring.free_descriptors > 4:
            rig.send(pair, *(frame_of(pair, serial) for _ in range(4)))
        if rig.port.kind == "null":
            rig.port.inject(pair, 300)
            continue
        wire = rig.port.wire(pair)
        try:
            for flow in range(16):
                wire.send(frame_of(flow, serial))
        except BlockingIOError:
            pass
        try:
            while True:
                wire.recv()
        except BlockingIOError:
            pass


def restart(rig: Rig, index: int) -> None:
    rig.start_queue(index, rig.engine.stop_queue(index))


@pytest.mark.requirement("U-41")
@pytest.mark.parametrize("port", ["null", "pair"])
@pytest.mark.parametrize("workers", [4, 2, 1])
def test_control_under_traffic(port: str, workers: int) -> None:
    chance = random.Random(workers)
    with Rig(workers=workers, port=port, buffers=60, handoff_slots=8) as rig:

        def look() -> None:
            for pair in range(rig.pairs):
                rig.stats(pair)

        actions: list[Callable[[], object]] = [
            *(lambda values=values: rig.policy(**values) for values in POLICIES),
            rig.swap_memory,
            lambda: restart(rig, chance.randrange(2 * rig.pairs)),
            lambda: rig.engine.queue_state(chance.randrange(2 * rig.pairs)),
            rig.engine.next_event,
        ]
        rig.policy()
        with beside(look):
            for serial in range(STEPS):
                traffic(rig, serial)
                chance.choice(actions)()
                rig.recycle()
        rig.policy()
        rig.barrier()
        # Every frame read is in one place; those on their way between workers have come to rest.
        rig.rounds(lambda: (t := rig.totals()).rx_port_frames == t.rx_packets + t.rx_drops)
        totals = rig.totals()
        assert totals.rx_packets
        assert totals.tx_packets
        assert bool(totals.rx_handoffs) is (workers > 1)
        assert not totals.rings_broken


@pytest.mark.parametrize("port", ["null", "pair"])
def test_engines_end_in_the_middle_of_traffic(port: str) -> None:
    for workers in (4, 3, 2, 1) * 5:
        with Rig(workers=workers, port=port, buffers=30) as rig:
            rig.policy()
            traffic(rig, workers)


@pytest.mark.parametrize("workers", [4, 2])
def test_rings_break_and_ports_go_while_others_run(workers: int) -> None:
    for round_ in range(6):
        with Rig(workers=workers, buffers=60) as rig:
            rig.policy()
            traffic(rig, round_)
            with beside(rig.engine.next_event):
                rig.receiveq(3).ring._avail[1] += 1000
                rig.transmitq(2).ring._avail[1] += 1000
                rig.transmitq(2).kick()
                for wire in (1, 2):
                    rig.port.wire(wire)._socket.close()
                for flow in range(64):
                    rig.inject(0, frame_of(flow))
                rig.rounds(lambda: rig.stats(2).rings_broken > 0)
                rig.rounds(lambda: rig.stats(0).rx_port_frames >= 64)
            rig.send(0, frame_of(0))
            rig.rounds(lambda: rig.stats(0).tx_packets > 0)


def test_the_control_queue_beside_running_workers() -> None:
    with Rig(workers=4, buffers=60) as rig:
        rig.policy()
        ctrl = Queue(rig, 2 * rig.pairs, 16)
        rig.queues.append(ctrl)
        rig.start_queue(ctrl.index)
        gpa = rig.memory.alloc(64)
        with beside(lambda: rig.stats(0)):
            for serial in range(STEPS):
                traffic(rig, serial)
                ctrl.ring.add([Buffer(gpa, 6), Buffer(gpa + 32, 1, writable=True)])
                ctrl.publish()
                rig.memory.write(gpa, serial.to_bytes(6, "little"))
                assert rig.engine.ctrl_pop() == (serial.to_bytes(6, "little"), 1)
                rig.policy(**POLICIES[serial % len(POLICIES)])
                if serial % 3 == 0:
                    rig.swap_memory()
                rig.engine.ctrl_complete(bytes([serial % 2]))
                used = ctrl.ring.poll()
                assert used is not None
                assert used.length == 1
                assert rig.memory.read(gpa + 32, 1)[0] == serial % 2
                rig.recycle()
        for fd in ctrl.fds:
            rig._undo.callback(os.close, fd)


FED = 2000


def feed(rig: Rig, chance: random.Random) -> Callable[[], None]:
    """A driver that kicks if it is asked to, at any moment of the worker's way to sleep."""
    serials = iter(range(FED))

    def work() -> None:
        rig.sent(0)
        burst = min(chance.choice((1, 1, 1, 2, 5, 20)), rig.transmitq(0).ring.free_descriptors)
        rig.send(0, *(frame_of(0, serial) for serial in islice(serials, burst)))
        for _ in range(chance.randrange(300)):
            pass

    return work


def await_frames(rig: Rig, pair: int, count: int) -> None:
    """As a driver that sleeps until it is called."""
    queue = rig.receiveq(pair)
    while count := count - len(rig.take(pair)):
        drain(queue.call_fd)
        if not queue.ring.arm():
            assert select.select([queue.call_fd], [], [], DEADLINE)[0], f"hangs: {rig.totals()}"


@pytest.mark.parametrize("event_idx", [True, False])
@pytest.mark.parametrize("poll_us", [0, 20])
def test_nobody_is_overlooked_on_the_way_to_sleep(event_idx: bool, poll_us: int) -> None:
    """Driver and worker, worker and worker: one not seen before a sleep would wait for ever."""
    chance = random.Random(poll_us)
    config = EngineConfig(poll_us=poll_us)
    with Rig(pairs=2, event_idx=event_idx, buffers=60, config=config) as rig:
        # What worker 0 reads, worker 1 places.
        rig.policy(indirection_table=(1,), port_queues=1)
        with beside(feed(rig, random.Random(1))):
            for turn in range(FED // 20):
                burst = chance.choice((1, 1, 2, 10))
                rig.inject(0, *(frame_of(1, turn) for _ in range(burst)))
                sent = rig.from_wire(0, 20)
                assert [flow_and_serial(frame)[1] for frame in sent] == list(
                    range(20 * turn, 20 * turn + 20)
                )
                await_frames(rig, 1, burst)
        assert rig.stats(1).rx_handoffs == rig.stats(0).rx_port_frames
        rig.assert_counters_add_up()
