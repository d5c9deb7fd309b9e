# SPDX-License-Identifier: MIT
"""Time the host gave to somebody else while something was measured on a virtual machine."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.lib.room import Cpus
    from bench.lib.row import Measured

ALLOWED: Final = 0.02  # of the time of the two CPUs; more, and the reading is taken again
_STAT: Final = Path("/proc/stat")
_TELLING: Final = 3  # ticks a measurement takes at least
_COLUMN: Final = 8  # proc(5): cpuN user nice system idle iowait irq softirq steal …


class Calm(NamedTuple):
    """A reading, the share of its time that was stolen, and how many were thrown away for it."""

    measured: Measured
    stolen: float
    again: int


def stolen_ticks(text: str, cpus: Cpus) -> int:
    """Ticks stolen so far from the CPUs of back-end and front-end, by the text of /proc/stat."""
    names = {f"cpu{cpus.backend}", f"cpu{cpus.frontend}"}
    lines = (line.split() for line in text.splitlines())
    return sum(int(line[_COLUMN]) for line in lines if line[0] in names and len(line) > _COLUMN)


def share(ticks: int, seconds: float, cpus: Cpus) -> float:
    """Of the CPUs' time, what so many ticks are; 0 where one tick says nothing yet."""
    tick = 1 / os.sysconf("SC_CLK_TCK")
    count = len({cpus.backend, cpus.frontend})
    return ticks * tick / (seconds * count) if seconds > _TELLING * tick else 0.0


def calm(turn: Callable[[], Measured], cpus: Cpus, tries: int) -> Calm:
    """Measure until little was stolen, or the calmest of so many tries (at least one)."""
    readings = []
    for again in range(tries):
        before, began = stolen_ticks(_STAT.read_text(), cpus), time.monotonic()
        measured = turn()
        ticks = stolen_ticks(_STAT.read_text(), cpus) - before
        readings.append(Calm(measured, share(ticks, time.monotonic() - began, cpus), again))
        if readings[-1].stolen <= ALLOWED:
            break
    calmest = min(readings, key=lambda reading: reading.stolen)
    return calmest._replace(again=len(readings) - 1)
