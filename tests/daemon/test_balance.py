# SPDX-License-Identifier: MIT
"""The suggested indirection table.  Our own tool: no requirement of the standard to cite."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvnet.daemon.balance import imbalance, suggest_table


def test_load_of_one_queue_is_spread() -> None:
    suggestion = suggest_table([0, 1, 0, 1], [30, 0, 30, 0], {})
    assert suggestion.indirection_table == (0, 1, 1, 1)
    assert suggestion.before == {0: 60, 1: 0}
    assert suggestion.after == {0: 30, 1: 30}
    assert suggestion.moved_entries == 1


def test_entries_without_load_and_ties_stay_where_they_are() -> None:
    suggestion = suggest_table([1, 0, 1, 0], [10, 10, 0, 0], {})
    assert suggestion.indirection_table == (1, 0, 1, 0)
    assert suggestion.moved_entries == 0


def test_unclassified_frames_are_load_that_cannot_move() -> None:
    suggestion = suggest_table([0, 1], [10, 10], {0: 20})
    assert suggestion.indirection_table == (1, 1)
    assert suggestion.after == {0: 20, 1: 20}


def test_unclassified_queue_outside_the_table_counts_for_nothing() -> None:
    assert suggest_table([0, 1], [10, 10], {5: 100}).before == {0: 10, 1: 10}


def test_one_heavy_entry_is_never_split() -> None:
    suggestion = suggest_table([0, 1, 0, 1], [100, 1, 1, 1], {})
    assert suggestion.after == {0: 100, 1: 3}


def test_table_that_longest_first_cannot_better_stays() -> None:
    # 3+3 and 2+2+2 are even already; longest-first gives 3+2+2 and 3+2.
    suggestion = suggest_table([0, 0, 1, 1, 1, 0, 0, 1], [3, 3, 2, 2, 2, 0, 0, 0], {})
    assert suggestion.moved_entries == 0
    assert suggestion.after == {0: 6, 1: 6}


@pytest.mark.parametrize(
    ("queues", "expected"), [({0: 0, 1: 0}, 1.0), ({0: 5, 1: 5}, 1.0), ({3: 30, 4: 10}, 1.5)]
)
def test_imbalance(queues: dict[int, int], expected: float) -> None:
    assert imbalance(queues) == expected


@given(
    entries=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 1000)), min_size=1, max_size=128),
    unclassified=st.integers(0, 1000),
)
def test_invariant_frames_are_kept_and_the_busiest_queue_is_never_busier(
    entries: list[tuple[int, int]], unclassified: int
) -> None:
    table = [queue for queue, _ in entries]
    suggestion = suggest_table(table, [load for _, load in entries], {0: unclassified})
    assert sum(suggestion.before.values()) == sum(suggestion.after.values())
    assert max(suggestion.after.values()) <= max(suggestion.before.values())
    assert set(suggestion.indirection_table) <= set(table)
    differing = sum(a != b for a, b in zip(table, suggestion.indirection_table, strict=True))
    assert differing == suggestion.moved_entries
