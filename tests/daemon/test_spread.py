# SPDX-License-Identifier: MIT
"""Flows counted per queue, and what of them is drawn."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from pyvnet.daemon import spread as spread_module
from pyvnet.daemon.plot import MAX_ROWS, FlowRow, Panel, plot_spread
from pyvnet.daemon.spread import Spread
from pyvnet.spec.rss import HashReport

if TYPE_CHECKING:
    from pathlib import Path

TCP, UDP = HashReport.TCPV4, HashReport.UDPV4


def counted(*frames: tuple[int, int, int], table_length: int = 4) -> Spread:
    spread = Spread((0, 1), table_length, by_flow=True)
    for report, value, queue in frames:
        spread.count(report, value, queue, partial("flow {}".format, value))
    return spread


def test_a_flow_is_what_hashes_alike() -> None:
    spread = counted((TCP, 5, 1), (UDP, 5, 1), (TCP, 5, 1), (0, 0, 0))
    panel = spread.panel("now")
    assert [(row.name, dict(row.queues)) for row in panel.flows] == [
        ("TCPv4 flow 5", {1: 2}),
        ("UDPv4 flow 5", {1: 1}),
        ("no hash", {0: 1}),
    ]
    assert panel.queues == {0: 1, 1: 3}
    assert (spread.entries, spread.unclassified) == ([0, 3, 0, 0], 1)


def test_another_table_moves_flows_but_not_what_has_no_hash() -> None:
    spread = counted((TCP, 5, 1), (TCP, 6, 0), (0, 0, 0))
    panel = spread.panel_under("suggested", (0, 0, 1, 1), {0: 2, 1: 1})
    assert [dict(row.queues) for row in panel.flows] == [{0: 1}, {1: 1}, {0: 1}]
    assert panel.queues == {0: 2, 1: 1}


def test_flows_beyond_the_bound_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread_module, "MAX_FLOWS", 2)
    spread = counted((TCP, 0, 0), (TCP, 1, 1), (TCP, 2, 0), (TCP, 3, 1), (TCP, 3, 1), (0, 0, 0))
    now = spread.panel("now")
    assert [row.name for row in now.flows] == ["TCPv4 flow 0", "TCPv4 flow 1", "no hash"]
    assert now.others == {0: 1, 1: 2}
    assert spread.panel_under("moved", (0, 0, 1, 0), {}).others == {1: 1, 0: 2}
    assert spread.queues.total() == 6


@pytest.mark.may_leak("matplotlib keeps the fonts it found open")
@pytest.mark.parametrize("flows", [0, 1, MAX_ROWS, MAX_ROWS + 1])
def test_any_number_of_flows_can_be_drawn(tmp_path: Path, flows: int) -> None:
    rows = [FlowRow(f"flow {number}", {number % 3: 1 + number}) for number in range(flows)]
    queues = {queue: sum(row.queues.get(queue, 0) for row in rows) for queue in range(3)}
    plot_spread(tmp_path / "x.svg", [Panel("any", queues, rows)])
    assert f"{flows} flows" in (tmp_path / "x.svg").read_text()
