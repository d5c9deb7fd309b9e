# SPDX-License-Identifier: MIT
"""TCP in packets of the wire's size, from one network to another, through two devices."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.lib.needs import IO_URING, TAP, built, cpus
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
    number=11,
    question="tap → device → driver → driver → device → tap: how fast is TCP without offloads?",
    meaning="What is left of a bulk transfer where a guest has offloads off: 1500 bytes a frame.",
    figures=(Figure("gbit_s", "Gbit/s"), Figure("cores", "CPUs", better="less")),
    variants=(
        Variant(
            "pyvnet, sleeping",
            _bulk("patch", "epoll", "plain", "whole"),
            needs=(*_NEEDS, built("patch")),
            ours=True,
        ),
        Variant(
            "forwarder, io_uring, sleeping",
            _bulk("forwarder", "epoll", "uring", "plain"),
            needs=(*_NEEDS, IO_URING, built("forwarder")),
        ),
        Variant(
            "forwarder, read and write, sleeping",
            _bulk("forwarder", "epoll", "rw", "plain"),
            needs=(*_NEEDS, built("forwarder")),
        ),
        Variant(
            "pyvnet, one polling loop",
            _bulk("patch", "busy", "plain", "whole"),
            needs=(*_NEEDS, built("patch")),
            ours=True,
        ),
        Variant(
            "forwarder, io_uring, polling",
            _bulk("forwarder", "busy", "uring", "plain"),
            needs=(*_NEEDS, IO_URING, built("forwarder")),
        ),
    ),
    goals=(
        Goal("gbit_s", of="pyvnet, sleeping", to="forwarder, io_uring, sleeping", at_least=0.8),
        Goal(
            "gbit_s", of="pyvnet, one polling loop", to="forwarder, io_uring, polling", at_least=0.8
        ),
    ),
)
