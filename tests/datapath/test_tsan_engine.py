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
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.driver.ring_split import Buffer
from tests.datapath.rig import KEY, OTHER_KEY, Queue, Rig, frame_of

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
