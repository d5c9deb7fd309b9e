# SPDX-License-Identifier: MIT
"""Medians, intervals and verdicts, on figures whose answer is known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.lib import steal
from bench.lib.room import Cpus
from bench.lib.row import Goal
from bench.lib.stats import Interval, bootstrap, ratios, spread, verdict

VALUES = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=9)


def test_median_and_quartiles() -> None:
    assert spread([5, 1, 4, 2, 3]) == (3, 2, 4)
    assert spread([7]) == (7, 7, 7)


@settings(max_examples=25)
@given(VALUES)
def test_an_interval_holds_its_median_and_stays_within_what_was_seen(values: list[float]) -> None:
    interval = bootstrap(values)
    assert min(values) <= interval.low <= interval.median <= interval.high <= max(values)
    assert bootstrap(values) == interval


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = random.Random(7)
    intervals = [bootstrap([rng.gauss(10, 1) for _ in range(9)]) for _ in range(60)]
    assert sum(one.low <= 10 <= one.high for one in intervals) >= 50


def test_a_ratio_is_taken_round_by_round() -> None:
    drifting = [1.0, 2.0, 4.0]
    assert ratios([2 * value for value in drifting], drifting) == [2, 2, 2]


def test_a_round_with_one_of_the_two_does_not_count() -> None:
    assert ratios([1.0, None, 3.0, 4.0], [1.0, 1.0, None, 2.0]) == [1, 2]
    assert ratios([1.0], [0.0]) == []


@pytest.mark.parametrize(
    ("bounds", "interval", "expected"),
    [
        ({"at_least": 1.25}, (1.4, 1.3, 1.5), "met"),
        ({"at_least": 1.25}, (1.3, 1.2, 1.4), "inconclusive"),
        ({"at_least": 1.25}, (1.1, 1.0, 1.2), "missed"),
        ({"at_most": 0.5}, (0.4, 0.3, 0.5), "met"),
        ({"at_most": 0.5}, (0.5, 0.4, 0.6), "inconclusive"),
        ({"at_most": 0.5}, (0.7, 0.6, 0.8), "missed"),
        ({"at_least": 0.97, "reaching": 1.0}, (0.98, 0.95, 1.01), "met"),
        ({"at_least": 0.97, "reaching": 1.0}, (0.98, 0.97, 0.99), "inconclusive"),
        ({"at_least": 0.97, "reaching": 1.0}, (0.96, 0.95, 1.01), "inconclusive"),
        ({"at_least": 0.97, "reaching": 1.0}, (0.9, 0.85, 0.95), "missed"),
    ],
)
def test_what_an_interval_says_about_a_goal(
    bounds: dict[str, float], interval: tuple[float, float, float], expected: str
) -> None:
    goal = Goal(
        *("mpps", "a", "b"),
        at_least=bounds.get("at_least"),
        at_most=bounds.get("at_most"),
        reaching=bounds.get("reaching"),
    )
    assert verdict(goal, Interval(*interval)) == expected


def test_a_stretch_goal_is_judged_by_its_own_bound() -> None:
    goal = Goal("mpps", of="a", to="b", at_least=0.97, reaching=1.0, stretch=1.3)
    assert verdict(goal, Interval(1.2, 1.1, 1.25), goal.stretch) == "missed"


def test_stolen_time_is_that_of_the_two_cpus() -> None:
    text = "cpu 9 9 9 9 9 9 9 99 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu1 0 0 0 0 0 0 0 4 0 0\n"
    assert steal.stolen_ticks(text, Cpus(0, 1)) == 12
    assert steal.stolen_ticks(text, Cpus(0, 0)) == 8
    assert steal.share(0, 1.0, Cpus(0, 1)) == 0
    assert steal.share(1000, 1.0, Cpus(0, 1)) > steal.ALLOWED
    assert steal.share(1000, 1e-6, Cpus(0, 1)) == 0  # shorter than a tick can tell
