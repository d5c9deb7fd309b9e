# SPDX-License-Identifier: MIT
"""Measure rows: the variants of a row take turns, round by round.

Absolute figures drift by ten percent within minutes, so only what was measured
side by side is compared: A B C, then B C A, …, and ratios are taken round by round.
What drifts within seconds is met by short windows: a round then has several of each
variant, in turn, and their median counts.
"""

from __future__ import annotations

import signal
import statistics
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench.lib import stats
from bench.lib.needs import first_missing
from bench.lib.process import BenchError
from bench.lib.room import Cpus, Room
from bench.lib.steal import calm
from pyvnet.errors import PyvnetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.lib.row import Goal, Measure, Measured, Row, Variant

_FAILURES_ALLOWED: Final = 1
_TRIES: Final = 2  # to measure while no other guest of the host takes the CPU …
_TRIES_KEPT: Final = 4  # … where another try is cheap
QUICK_ROUNDS: Final = 3
QUICK_SECONDS: Final = 0.3


@dataclass(slots=True)
class Taken:
    """What was seen of one variant."""

    variant: Variant
    rounds: list[Measured | None] = field(default_factory=list)
    missing: str | None = None
    machine: bool = False  # what is missing is another machine
    errors: list[str] = field(default_factory=list)
    steal: list[float] = field(default_factory=list)  # of each window, the share of its time
    again: int = 0  # windows thrown away because of that

    @property
    def given_up(self) -> bool:
        """Nothing more is asked of it."""
        return self.missing is not None or len(self.errors) > _FAILURES_ALLOWED

    @property
    def failed(self) -> bool:
        """It is ours, and this machine could have measured it."""
        if not self.variant.ours or self.machine:
            return False
        return self.missing is not None or self.given_up or not any(self.rounds)

    def values(self, figure: str) -> list[float | None]:
        """A figure of each round."""
        return [None if seen is None else seen.get(figure) for seen in self.rounds]

    def known(self, figure: str) -> list[float]:
        """A figure of the rounds in which it was measured."""
        return [value for value in self.values(figure) if value is not None]


@dataclass(slots=True)
class Reading:
    """A goal, and what was read of it; no interval: it could not be read, for ``why``."""

    goal: Goal
    interval: stats.Interval | None = None
    verdict: str = ""
    stretch: str | None = None
    why: str | None = None


@dataclass(slots=True)
class Answer:
    """A row after its rounds."""

    row: Row
    taken: list[Taken]
    readings: list[Reading]
    seconds: float = 0.0

    @property
    def failed(self) -> list[Taken]:
        """Our variants that could not be measured."""
        return [taken for taken in self.taken if taken.failed]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it: ``rounds`` replaces what the rows ask for."""

    quick: bool = False
    rounds: int | None = None

    def of(self, row: Row) -> tuple[int, int, float]:
        """Rounds thrown away, rounds that count, seconds a measurement."""
        if self.quick:
            return 0, self.rounds or QUICK_ROUNDS, min(row.seconds, QUICK_SECONDS)
        return row.warm_up, self.rounds or row.rounds, row.seconds


def say(line: str) -> None:
    """Progress, for whoever waits."""
    print(line, file=sys.stderr, flush=True)


def measure(row: Row, plan: Plan, cpus: Cpus) -> Answer:
    """Measure a row.

    A variant that fails twice is given up; the rest goes on.
    """
    began = time.monotonic()
    warm_up, rounds, seconds = plan.of(row)
    taken = [_look(variant) for variant in row.variants]
    for one in taken:
        if one.missing:
            say(f"row {row.number}: {one.variant.name} left out: {one.missing}")
    with ExitStack() as kept:
        turns = [(one, _turn(row, one.variant, cpus, seconds, kept)) for one in taken]
        for number in range(-warm_up, rounds):
            if all(one.given_up for one in taken):
                break
            _round(row, turns, number, rounds, cpus)
    answer = Answer(row, taken, [read(goal, taken) for goal in row.goals])
    answer.seconds = time.monotonic() - began
    return answer


def _look(variant: Variant) -> Taken:
    taken = Taken(variant)
    if found := first_missing(variant.needs):
        need, taken.missing = found
        taken.machine = need.machine
    return taken


def _round(
    row: Row, turns: Sequence[tuple[Taken, Any]], number: int, rounds: int, cpus: Cpus
) -> None:
    seen: list[list[Measured]] = [[] for _ in turns]
    for window in range(row.windows):
        for place, (taken, turn) in order(list(enumerate(turns)), number * row.windows + window):
            if not taken.given_up:
                _window(row, taken, turn, seen[place], cpus)
    words, first = [], row.figures[0]
    for (taken, _), windows in zip(turns, seen, strict=True):
        found = middle(windows)
        if number >= 0:
            taken.rounds.append(found)
        if found and first.name in found:
            words.append(f"{taken.variant.name} {found[first.name]:.4g}")
    label = "warm-up" if number < 0 else f"round {number + 1}/{rounds}"
    say(f"row {row.number} {label}: {', '.join(words)} {first.unit}")


def _window(row: Row, taken: Taken, turn: Any, seen: list[Measured], cpus: Cpus) -> None:
    try:
        reading = calm(turn, cpus, _TRIES_KEPT if row.keep else _TRIES)
    except (BenchError, PyvnetError, OSError) as error:
        taken.errors.append(str(error))
        say(f"row {row.number}: {taken.variant.name}: {error}")
        return
    seen.append(reading.measured)
    taken.steal.append(reading.stolen)
    taken.again += reading.again


def middle(windows: Sequence[Measured]) -> Measured | None:
    """Of each figure the median of a round's windows; None: there was none."""
    if not windows:
        return None
    return {name: statistics.median(one[name] for one in windows) for name in windows[0]}


def order(turns: Sequence[Any], number: int) -> Iterator[Any]:
    """The turns of a round: each one leads as often as the others."""
    for place in range(len(turns)):
        yield turns[(place + number) % len(turns)]


def _turn(row: Row, variant: Variant, cpus: Cpus, seconds: float, kept: ExitStack) -> Any:
    """One measurement of a variant, set up now or, where the row keeps it, once."""
    figures = {figure.name for figure in row.figures}
    held = kept.enter_context(ExitStack())
    standing: list[tuple[Room, Measure]] = []

    def checked(measured: Measured) -> Measured:
        if wrong := set(measured) - figures:
            raise BenchError(f"yields {', '.join(sorted(wrong))}, which the row does not declare")
        return measured

    def once() -> Measured:
        with (
            deadline(row.patience, variant.name),
            Room(cpus, seconds) as room,
            variant.setup(room) as take,
        ):
            return checked(take())

    def again() -> Measured:
        # One that failed is set up anew.
        with deadline(row.patience, variant.name), ExitStack() as failed:
            failed.callback(standing.clear)
            failed.callback(held.close)
            if not standing:
                room = held.enter_context(Room(cpus, seconds))
                standing.append((room, held.enter_context(variant.setup(room))))
            room, take = standing[0]
            room.resume()
            measured = checked(take())
            room.pause()
            failed.pop_all()
        return measured

    return again if row.keep else once


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Raise BenchError in this thread, the main one, after so many seconds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise BenchError(f"{what}: no answer in {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, ring)
    began = time.monotonic()
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:  # somebody else's clock goes on
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.001))


def read(goal: Goal, taken: Sequence[Taken]) -> Reading:
    """What the rounds say about a goal."""
    by_name = {one.variant.name: one for one in taken}
    reading = Reading(goal)
    if found := first_missing(goal.needs):
        reading.why = found[1]
        return reading
    values = by_name[goal.of].known(goal.figure)
    if goal.to is not None and values:
        values = stats.ratios(
            by_name[goal.of].values(goal.figure), by_name[goal.to].values(goal.figure)
        )
    if not values:
        silent = [
            name for name in (goal.of, goal.to) if name and not by_name[name].known(goal.figure)
        ]
        reading.why = f"not measured: {', '.join(silent or [goal.of])}"
        return reading
    reading.interval = stats.bootstrap(values)
    reading.verdict = stats.verdict(goal, reading.interval)
    if goal.stretch is not None:
        reading.stretch = stats.verdict(goal, reading.interval, goal.stretch)
    return reading
