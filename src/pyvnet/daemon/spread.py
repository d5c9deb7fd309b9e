# SPDX-License-Identifier: MIT
"""How flows spread over receive queues, in bounded memory.

A flow is what hashes alike: the same hash type and the same value.  The first
`MAX_FLOWS` are counted one by one, whatever comes after them together.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from pyvnet.daemon.plot import FlowRow, Panel
from pyvnet.spec.rss import REPORT_NAMES, HashReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MAX_FLOWS: Final = 1 << 12

_Key = tuple[int, int]  # hash report and hash value
_NO_HASH: Final = (int(HashReport.NONE), 0)


class Spread:
    """Frames per queue and per table entry, and with ``by_flow`` per flow.

    Attributes:
        queues: frames per queue; every queue named in the beginning is there.
        entries: frames with a hash per entry of the indirection table.
        unclassified: frames without one.
    """

    def __init__(self, queues: Iterable[int], table_length: int, *, by_flow: bool) -> None:
        self.queues: Counter[int] = Counter(dict.fromkeys(queues, 0))
        self.entries = [0] * table_length
        self.unclassified = 0
        self._flows: dict[_Key, Counter[int]] | None = {} if by_flow else None
        self._names: dict[_Key, str] = {}
        self._others: Counter[tuple[int, int]] = Counter()  # by table entry and queue

    def count(self, report: int, value: int, queue: int, name: Callable[[], str]) -> None:
        """One frame; ``name`` is asked for what to call its flow, once a flow."""
        self.queues[queue] += 1
        hashed = report != HashReport.NONE
        entry = value & (len(self.entries) - 1)
        if hashed:
            self.entries[entry] += 1
        else:
            self.unclassified += 1
        if self._flows is None:
            return
        key = (report, value) if hashed else _NO_HASH
        flow = self._flows.get(key)
        if flow is None:
            if len(self._flows) >= MAX_FLOWS and hashed:
                self._others[entry, queue] += 1
                return
            flow = self._flows[key] = Counter()
            self._names[key] = f"{REPORT_NAMES[report]} {name()}" if hashed else "no hash"
        flow[queue] += 1

    def panel(self, title: str) -> Panel:
        """What was counted, to be drawn; needs ``by_flow``."""
        return self._panel(title, self.queues, None)

    def panel_under(self, title: str, table: Sequence[int], queues: Mapping[int, int]) -> Panel:
        """The same flows in the same order under another indirection table."""
        return self._panel(title, queues, table)

    def _panel(self, title: str, queues: Mapping[int, int], table: Sequence[int] | None) -> Panel:
        rows = []
        for key, counts in (self._flows or {}).items():
            if table is None or key == _NO_HASH:
                row = counts
            else:
                row = Counter({table[key[1] % len(table)]: counts.total()})
            rows.append(FlowRow(self._names[key], row))
        others: Counter[int] = Counter()
        for (entry, queue), frames in self._others.items():
            others[queue if table is None else table[entry]] += frames
        return Panel(title, queues, rows, others)
