# SPDX-License-Identifier: MIT
"""The questions about tests without a guest: their program measures what it says it does."""

from __future__ import annotations

import pytest

from bench.lib import guest_free
from bench.lib.room import Cpus, Room
from bench.row15_test_set_up import ROW, SMALL


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_free, "TIMES", 3)
    monkeypatch.setattr(guest_free, "FRAMES", 100)


def test_a_scenario_is_entered_and_left() -> None:
    assert 0 < guest_free.bare(1)["ms"] < 1000


@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.parametrize("burst", [1, 32])
def test_every_frame_is_expected(way: str, burst: int) -> None:
    assert 0 < guest_free.frames(way, burst)["seconds"] < 10


def test_a_row_runs_it() -> None:
    (variant,) = (variant for variant in ROW.variants if variant.name == SMALL)
    with Room(Cpus.choose(), 0.05) as room, variant.setup(room) as take:
        assert take()["ms"] > 0
