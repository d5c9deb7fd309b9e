# SPDX-License-Identifier: MIT
"""TCP from one network to another: through two devices and who joins them, or one C program."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.lib.needs import IO_URING, TAP, built, cpus
from bench.lib.row import Figure, Goal, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lib.room import Room
    from bench.lib.row import Measure, Setup

SLEEPING: Final = "pyvnet, sleeping"
POLLING: Final = "pyvnet, one polling loop"
FIGURES: Final = (Figure("gbit_s", "Gbit/s"), Figure("cores", "CPUs", better="less"))


def _bulk(program: str, how: tuple[str, ...]) -> Setup:
    """One of the two programs; both bring namespaces, taps and the TCP endpoints along."""

    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        def measure() -> dict[str, float]:
            said = room.run(program, *how, room.seconds, room.cpus.backend, room.cpus.frontend)
            return {"gbit_s": said["gbit_s"], "cores": said["backend_cpu"]}

        yield measure

    return setup


def patch(name: str, *how: str) -> Variant:
    """Two devices of pyvnet and one thread between them; ``how``: as bench/c/patch.c says."""
    return Variant(name, _bulk("patch", how), (TAP, cpus(2), built("patch")), ours=True)


def forwarder(name: str, *how: str) -> Variant:
    """From tap to tap without a device; ``how``: as bench/c/forwarder.c says."""
    needs = (TAP, cpus(2), *((IO_URING,) if "uring" in how else ()), built("forwarder"))
    return Variant(name, _bulk("forwarder", how), needs)


def goals(sleeping: str, polling: str) -> tuple[Goal, ...]:
    """`SLEEPING` and `POLLING` against a forwarder each."""
    return (
        Goal("gbit_s", of=SLEEPING, to=sleeping, at_least=0.8),
        Goal("gbit_s", of=POLLING, to=polling, at_least=0.8),
    )
