# SPDX-License-Identifier: MIT
"""What a row file declares: the question, who is compared, and what is aimed at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from bench.lib.needs import Need
    from bench.lib.room import Room

Measured: TypeAlias = Mapping[str, float]
Measure: TypeAlias = Callable[[], Measured]
Setup: TypeAlias = "Callable[[Room], AbstractContextManager[Measure]]"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number a variant yields: its name, its unit, and which way is better."""

    name: str
    unit: str
    better: Literal["more", "less"] = "more"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to do the work of a row.

    Attributes:
        name: as the table shows it.
        setup: takes a `Room`, yields a function that measures once and returns
            {figure name: value}; everything it started ends when it is left.
        needs: what must be there (bench/lib/needs.py).
        ours: pyvnet itself; if it cannot be measured, the run has failed.
    """

    name: str
    setup: Setup
    needs: tuple[Need, ...] = ()
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Goal:
    """What is aimed at: figure(of) / figure(to), or figure(of) alone, within a bound.

    Attributes:
        figure: which one.
        of: the variant that is judged.
        to: the variant it is compared with, round by round; None: the value counts.
        at_least: the bound from below, or None.
        at_most: the bound from above, or None; exactly one of the two is set.
        stretch: the bound one would like.
        reaching: the interval must reach this too (for "no worse than").
        needs: a goal for certain machines only.
    """

    figure: str
    of: str
    to: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    stretch: float | None = None
    reaching: float | None = None
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A question, and how it is answered.

    Attributes:
        number: its place in the table; `--rows` takes it.
        question: one line.
        meaning: one line on what the answer means to a user.
        figures: what each variant yields; the first is the one that is drawn.
        variants: all of them take turns in each round.
        goals: readings, not conditions.
        rounds: how many of a full run count.
        warm_up: rounds before those, thrown away.
        seconds: how long one measurement should take (`Room.seconds`); --quick shortens it.
        windows: how often each variant has its turn in a round; the median is the round's.
        keep: set up once for all rounds instead of for each.  Processes of the room
            are paused while another variant has its turn.
        patience: seconds after which a setup or a measurement counts as hung.
    """

    number: int
    question: str
    meaning: str
    figures: tuple[Figure, ...]
    variants: tuple[Variant, ...]
    goals: tuple[Goal, ...] = ()
    rounds: int = 7
    warm_up: int = 1
    seconds: float = 1.0
    windows: int = 1
    keep: bool = False
    patience: float = 60.0

    def problems(self) -> list[str]:
        """What is wrong with the declaration itself."""
        names = [variant.name for variant in self.variants]
        figures = {figure.name for figure in self.figures}
        found = [f"two variants are called {name!r}" for name in names if names.count(name) > 1]
        for goal in self.goals:
            found += [
                f"a goal names the variant {name!r}, which is not there"
                for name in (goal.of, goal.to)
                if name is not None and name not in names
            ]
            if goal.figure not in figures:
                found.append(f"a goal names the figure {goal.figure!r}, which is not there")
            if (goal.at_least is None) == (goal.at_most is None):
                found.append(f"a goal of {goal.of!r} needs one of at_least and at_most")
        return found
