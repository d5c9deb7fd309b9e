# SPDX-License-Identifier: MIT
"""Medians, quartiles, the interval of a paired ratio, and what it says about a goal."""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.lib.row import Goal

RESAMPLES: Final = 2000
_LEVEL: Final = 0.95

MET: Final = "met"
MISSED: Final = "missed"
INCONCLUSIVE: Final = "inconclusive"


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float


class Interval(NamedTuple):
    """A median, and the bootstrap interval (95 %) around it."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median, first and third quartile of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def bootstrap(values: Sequence[float]) -> Interval:
    """The median of ``values`` and its percentile bootstrap interval; the same for the same values.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    rng = random.Random(0)  # noqa: S311 - the same values give the same interval
    medians = sorted(
        statistics.median(rng.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    tail = int((1 - _LEVEL) / 2 * RESAMPLES)
    return Interval(statistics.median(values), medians[tail], medians[-1 - tail])


def ratios(of: Sequence[float | None], to: Sequence[float | None]) -> list[float]:
    """The ratio of each round in which both were measured: what drifts, drifts for both."""
    return [a / b for a, b in zip(of, to, strict=False) if a is not None and b]


def verdict(goal: Goal, interval: Interval, bound: float | None = None) -> str:
    """Met, missed, or inconclusive: the interval spans the bound.

    A goal with ``reaching`` is met by a median within the bound whose interval
    reaches the other figure: it is shown to be no worse, not to be better.
    ``bound`` replaces the required one (for the stretch goal).
    """
    # Turned so that more is better.
    if goal.at_least is not None:
        limit, sign = goal.at_least, 1.0
    else:
        limit, sign = goal.at_most or 0.0, -1.0
    limit = sign * (limit if bound is None else bound)
    median = sign * interval.median
    worst, best = sorted((sign * interval.low, sign * interval.high))
    if best < limit:
        return MISSED
    if goal.reaching is not None and bound is None:
        return MET if median >= limit and best >= sign * goal.reaching else INCONCLUSIVE
    return MET if worst >= limit else INCONCLUSIVE
