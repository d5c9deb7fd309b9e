# SPDX-License-Identifier: MIT
"""What RSS and hash report cost: host → guest and the round trip again, with and without."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.lib.peers import OWN_NEEDS, TAP_NAME, host_side
from bench.lib.row import Figure, Goal, Row, Variant
from bench.lib.through import measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lib.room import Room
    from bench.lib.row import Measure, Setup

WITHOUT: Final = "pyvnet"
WITH: Final = "pyvnet, RSS + hash report"


def pyvnet(*, rss: bool) -> Setup:
    """Both jobs, one after the other, with our own front-end: DPDK's has no RSS."""

    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        serving = room.serve("--tap", TAP_NAME, "--queues", "1", "--poll-us", "100000")
        host_side(room)
        rx, rtt = (
            measure(room, job, serving.socket, None, own=True, rss=rss) for job in ("rx", "rtt")
        )
        yield lambda: {"mpps": rx()["mpps"], "p50": rtt()["p50"]}

    return setup


ROW = Row(
    number=7,
    question="What do RSS and hash report cost: host → guest, and the round trip?",
    meaning="Whether a guest can have its frames hashed and spread without losing speed.",
    figures=(Figure("mpps", "Mpps"), Figure("p50", "µs", "less")),
    variants=(
        Variant(WITHOUT, pyvnet(rss=False), OWN_NEEDS, ours=True),
        Variant(WITH, pyvnet(rss=True), OWN_NEEDS, ours=True),
    ),
    goals=(
        Goal("mpps", of=WITH, to=WITHOUT, at_least=0.95, stretch=0.99),
        Goal("p50", of=WITH, to=WITHOUT, at_most=1.05, stretch=1.01),
    ),
)
