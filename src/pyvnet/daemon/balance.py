# SPDX-License-Identifier: MIT
"""An indirection table that spreads a measured load evenly over its queues.

Greedy: the entries in order of falling load, each to the queue with the least
load so far; at a tie it stays where it is.  This longest-first order comes
close to the best table there is, which would be hard to find.  One flow is
never split, since all its frames share one entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A table and what it changes; ``before`` and ``after`` are frames per queue."""

    indirection_table: tuple[int, ...]
    moved_entries: int
    before: dict[int, int]
    after: dict[int, int]

    def as_json(self) -> dict[str, object]:
        """``imbalance``: the busiest queue's frames divided by the average, 1.0 at best."""
        return {
            "indirection_table": list(self.indirection_table),
            "moved_entries": self.moved_entries,
            "imbalance_before": round(imbalance(self.before), 4),
            "imbalance_after": round(imbalance(self.after), 4),
            "queues": [
                {"queue": queue, "before": self.before[queue], "after": self.after[queue]}
                for queue in self.before
            ],
        }

    def as_text(self) -> str:
        """For people, with the table as an argument to try it."""
        heading = (
            f"suggested indirection table: {self.moved_entries} of"
            f" {len(self.indirection_table)} entries moved; busiest queue"
            f" {imbalance(self.before):.2f} times the average before,"
            f" {imbalance(self.after):.2f} times after"
        )
        queues = (
            f"queue {queue:>3}  {self.before[queue]:>9} -> {self.after[queue]}"
            for queue in self.before
        )
        argument = f"--table {','.join(map(str, self.indirection_table))}"
        return "\n".join([heading, *queues, argument])


def imbalance(queues: Mapping[int, int]) -> float:
    """Load of the busiest queue divided by the average load; 1.0 when there is no load."""
    total = sum(queues.values())
    return max(queues.values()) * len(queues) / total if total else 1.0


def suggest_table(
    table: Sequence[int], loads: Sequence[int], fixed: Mapping[int, int]
) -> Suggestion:
    """Balance ``loads`` (frames per table entry) over the queues that ``table`` names.

    ``fixed`` is load per queue that no table moves: the unclassified frames.
    On a queue the table does not name it counts for nothing.  Entries without
    load stay as they are, and so does the whole table when moving would not
    relieve the busiest queue.
    """
    targets = sorted(set(table))
    base = {queue: fixed.get(queue, 0) for queue in targets}

    def totals(candidate: Sequence[int]) -> dict[int, int]:
        result = dict(base)
        for queue, load in zip(candidate, loads, strict=True):
            result[queue] += load
        return result

    suggested = list(table)
    filled = dict(base)
    for entry in sorted(range(len(table)), key=lambda entry: (-loads[entry], entry)):
        if loads[entry] == 0:
            break
        least = min(filled.values())
        if filled[table[entry]] == least:
            queue = table[entry]
        else:
            queue = min(target for target in targets if filled[target] == least)
        suggested[entry] = queue
        filled[queue] += loads[entry]

    before, after = totals(table), totals(suggested)
    if max(after.values()) >= max(before.values()):
        suggested, after = list(table), before
    moved = sum(old != new for old, new in zip(table, suggested, strict=True))
    return Suggestion(tuple(suggested), moved, before, after)
