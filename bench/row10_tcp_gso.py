# SPDX-License-Identifier: MIT
"""TCP in large segments, from one network to another, through two devices and who joins them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.lib.needs import TAP, built, cpus
from bench.lib.row import Figure, Goal, Row, Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from bench.lib.room import Room
    from bench.lib.row import Measure


def _bulk(program: str, *how: str) -> Callable[[Room], AbstractContextManager[Measure]]:
    """One of the two programs; both bring namespaces, taps and the TCP endpoints along."""

    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        def measure() -> dict[str, float]:
            said = room.run(program, *how, room.seconds, room.cpus.backend, room.cpus.frontend)
            return {"gbit_s": said["gbit_s"], "cores": said["backend_cpu"]}

        yield measure

    return setup


_NEEDS = (TAP, cpus(2))

ROW = Row(
    number=10,
    question="tap → device → driver → driver → device → tap: how fast is TCP with large segments?",
    meaning="What a bulk transfer gets through two guests' network cards, on one core of the host.",
    figures=(Figure("gbit_s", "Gbit/s"), Figure("cores", "CPUs", better="less")),
    variants=(
        Variant(
            "pyvnet, sleeping",
            _bulk("patch", "epoll", "gso", "whole"),
            needs=(*_NEEDS, built("patch")),
            ours=True,
        ),
        Variant(
            "forwarder, sleeping",
            _bulk("forwarder", "epoll", "rw", "gso"),
            needs=(*_NEEDS, built("forwarder")),
        ),
        Variant(
            "pyvnet, sleeping, merged buffers",
            _bulk("patch", "epoll", "gso", "merged"),
            needs=(*_NEEDS, built("patch")),
            ours=True,
        ),
        Variant(
            "pyvnet, one polling loop",
            _bulk("patch", "busy", "gso", "whole"),
            needs=(*_NEEDS, built("patch")),
            ours=True,
        ),
        Variant(
            "forwarder, polling",
            _bulk("forwarder", "busy", "rw", "gso"),
            needs=(*_NEEDS, built("forwarder")),
        ),
    ),
    goals=(
        Goal("gbit_s", of="pyvnet, sleeping", to="forwarder, sleeping", at_least=0.8),
        Goal("gbit_s", of="pyvnet, one polling loop", to="forwarder, polling", at_least=0.8),
    ),
)
