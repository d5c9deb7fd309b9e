# SPDX-License-Identifier: MIT
"""What RSS and hash report cost: host → guest and the round trip again, with and without."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.lib.peers import OWN_NEEDS, TAP_NAME, host_side
from bench.lib.row import Figure, Goal, Row, Variant
from bench.lib.through import figures, front_end

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
        front = front_end(room, "rx", serving.socket, own=True, rss=rss)

        def take() -> dict[str, float]:
            said = {job: figures(job, None, front.ask(job)) for job in ("rx", "rtt")}
            return {"mpps": said["rx"]["mpps"], "p50": said["rtt"]["p50"]}

        yield take

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
    rounds=7,
    warm_up=0,
    seconds=0.03,
    windows=15,
    keep=True,
)
