# SPDX-License-Identifier: MIT
"""Parse, hash and steer of frames from a pool of 256 MB, in random order."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.lib.needs import built
from bench.lib.row import Figure, Goal, Row, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lib.room import Room
    from bench.lib.row import Measure, Setup

_NEEDS: Final = (built("frame_stages"),)
_BEST: Final = "pyvnet"
_PLAIN: Final = "pyvnet, tables, no prefetch"


def _loop(kernel: str, access: str) -> Setup:
    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        yield lambda: room.run("frame_stages", kernel, access, str(room.seconds))

    return setup


ROW = Row(
    number=9,
    question="How long do parse, hash and steering of a frame take that is not in any cache?",
    meaning="Most of it is waiting for memory; frames asked for ahead wait together.",
    figures=(Figure("ns_udp4", "ns", better="less"), Figure("ns_mix", "ns", better="less")),
    variants=(
        Variant(_BEST, _loop("best", "prefetch"), needs=_NEEDS, ours=True),
        Variant("pyvnet, tables", _loop("tables", "prefetch"), needs=_NEEDS, ours=True),
        Variant(_PLAIN, _loop("tables", "plain"), needs=_NEEDS, ours=True),
    ),
    goals=(
        Goal("ns_udp4", of=_PLAIN, to=_BEST, at_least=1.6),
        Goal("ns_mix", of=_PLAIN, to=_BEST, at_least=1.6),
    ),
    seconds=0.5,
    keep=True,
)
