# SPDX-License-Identifier: MIT
"""The questions about steering, in short: what they count is right, whatever it takes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.lib.process import BenchError
from bench.lib.room import Cpus, Room
from bench.row13_steering_cost import ROW as COST
from bench.row13_steering_cost import UDP6
from bench.row14_steering_end_to_end import steered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.lib.row import Measure

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.needs_tap]

ROOT = Path(__file__).parents[2]
SECONDS = 0.05
COUNTED = 30_000


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    programs = ("build/bench/frontend", "build/bench/replay")
    subprocess.run(["make", "-s", *programs], cwd=ROOT, check=True)


def test_the_program_is_timed_for_each_frame_sent() -> None:
    (variant,) = (variant for variant in COST.variants if variant.name == UDP6)
    with Room(Cpus.choose(), SECONDS) as room, variant.setup(room) as take:
        seen = take()
    assert seen["ns"] > 0
    assert seen["repeated"] > 0


def patiently(take: Measure) -> Mapping[str, float]:
    """In so short a window others may have had the CPUs all the time: another tells more."""
    while True:
        try:
            return take()
        except BenchError as error:
            if "no frame came" not in str(error):
                raise


@pytest.mark.parametrize(("owner", "crossed"), [("software", True), ("ebpf", False)])
def test_frames_cross_between_workers_unless_the_kernel_steers(owner: str, crossed: bool) -> None:
    with Room(Cpus.choose(), SECONDS) as room, steered(owner, counted=COUNTED)(room) as take:
        seen = patiently(take)
    assert bool(seen["handoffs"]) is crossed
    assert seen["mpps"] > 0


def test_another_owner_than_asked_for_is_not_measured() -> None:
    with Room(Cpus.choose(), SECONDS) as room, pytest.raises(BenchError, match="not by kernel"):
        steered("kernel-hash")(room).__enter__()
