# SPDX-License-Identifier: MIT
"""A test's own device: made, negotiated and taken down again, on the socket-pair port."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.lib.row import Figure, Goal, Row, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lib.room import Room
    from bench.lib.row import Measure, Setup

PROGRAM: Final = Path(__file__).with_name("lib") / "guest_free.py"
FIXTURE: Final = "fixture of pytest, 4 queue pairs"
SCENARIO: Final = "scenario(), 4 queue pairs"
SMALL: Final = "scenario(), 1 queue pair"


def guest_free(*words: str) -> Setup:
    """A process of its own for each measurement, on any CPU."""

    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        def take() -> dict[str, float]:
            with room.start([sys.executable, PROGRAM, *words], private=False) as process:
                return {name: float(value) for name, value in process.result(60.0).items()}

        yield take

    return setup


ROW = Row(
    number=15,
    question="How long does a test take to get a device and a negotiated driver, and to end both?",
    meaning="What each test of a suite costs before it has sent a frame; a guest takes seconds.",
    figures=(Figure("ms", "ms", better="less"),),
    variants=(
        Variant(FIXTURE, guest_free("fixture", "4"), ours=True),
        Variant("fixture of pytest, 1 queue pair", guest_free("fixture", "1"), ours=True),
        Variant(SCENARIO, guest_free("scenario", "4"), ours=True),
        Variant(SMALL, guest_free("scenario", "1"), ours=True),
    ),
    goals=(
        Goal("ms", of=FIXTURE, at_most=15.0),
        Goal("ms", of=SCENARIO, at_most=15.0),
    ),
    rounds=5,
)
