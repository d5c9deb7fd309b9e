# SPDX-License-Identifier: MIT
"""Round trips in the default mode, where everybody sleeps, and what an idle device costs."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.lib.needs import TAP, built
from bench.lib.peers import TAP_NAME, quiet
from bench.lib.process import BenchError
from bench.lib.row import Figure, Goal, Row, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lib.room import Room
    from bench.lib.row import Measure, Setup

PLAIN: Final = "C program, as many wake-ups"
OURS: Final = "pyvnet, default mode"
ASLEEP: Final = "pyvnet, --poll-us 0"
IDLE: Final = "pyvnet, default mode, idle"
_SETTLES: Final = 0.3  # seconds until an idle device has nothing left to do
_WATCHED: Final = 3.0  # times the seconds of a measurement


@contextmanager
def plain(room: Room) -> Iterator[Measure]:
    """A device that does the least: read, one bell, write."""
    quiet(room)
    options = ("--device-cpu", room.cpus.backend, "--seconds", room.seconds)
    yield lambda: trips(room.run("wakeups", "--tap", TAP_NAME, *options))


def ours(*how: str) -> Setup:
    """As a user starts it; ``how``: more options of serve."""

    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        quiet(room)
        serving = room.serve("--tap", TAP_NAME, "--queues", "1", *how)
        options = ("--socket", serving.socket, "--seconds", room.seconds)

        def take() -> dict[str, float]:
            before = room.counters(TAP_NAME)
            result = room.run("wakeups", "--tap", TAP_NAME, *options)
            read = room.counters(TAP_NAME).tx_packets - before.tx_packets
            if read < result["rounds"]:
                raise BenchError(
                    f"{result['rounds']} round trips, but {read} frames read off the tap"
                )
            return trips(result)

        yield take

    return setup


@contextmanager
def idle(room: Room) -> Iterator[Measure]:
    """A front-end that has had traffic stays connected and does nothing."""
    quiet(room)
    serving = room.serve("--tap", TAP_NAME, "--queues", "1")
    words = ("--socket", serving.socket, "--seconds", 0.2, "--stay", 1)
    front = room.program("wakeups", "--tap", TAP_NAME, *words)
    front.until(r"p50_us")

    def take() -> dict[str, float]:
        waits = threading.Event()
        waits.wait(_SETTLES)
        before = serving.cpu_seconds()
        seconds = _WATCHED * room.seconds
        waits.wait(seconds)
        used = serving.cpu_seconds() - before
        if not front.alive():
            raise front.error("left, so that nobody was connected")
        return {"idle_cpu": 100 * used / seconds}

    yield take


def trips(result: dict[str, float]) -> dict[str, float]:
    """The figures of a round."""
    return {"p50": result["p50_us"], "p99": result["p99_us"]}


_NEEDS: Final = (TAP, built("wakeups"))

ROW = Row(
    number=5,
    question="Round trip in the default mode: what does a device cost that sleeps?",
    meaning="How soon a guest that was idle answers, and that an idle guest's device uses no CPU. "
    "Waking sleepers is nearly all of it, whoever wrote the device: the default mode looks on for "
    "50 µs first and often need not be woken; with --poll-us 0 it sleeps as the C program does.",
    figures=(
        Figure("p50", "µs", "less"),
        Figure("p99", "µs", "less"),
        Figure("idle_cpu", "% of a CPU", "less"),
    ),
    variants=(
        Variant(OURS, ours(), _NEEDS, ours=True),
        Variant(ASLEEP, ours("--poll-us", "0"), _NEEDS, ours=True),
        Variant(PLAIN, plain, _NEEDS),
        Variant(IDLE, idle, _NEEDS, ours=True),
    ),
    goals=(
        Goal("p50", of=OURS, to=PLAIN, at_most=1.15, stretch=1.05),
        Goal("p50", of=ASLEEP, to=PLAIN, at_most=1.15, stretch=1.05),
        Goal("idle_cpu", of=IDLE, at_most=0.1),
    ),
    rounds=7,
    warm_up=0,
    seconds=0.1,
    windows=5,
    keep=True,
)
