# SPDX-License-Identifier: MIT
"""The rings alone: a host port that makes and swallows frames in memory.

Against DPDK with DPDK's front-end; with RSS and hash report against without, with our own
front-end. Both make each frame anew; pyvnet looks at every header too.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.lib.needs import built, hugepages, program
from bench.lib.peers import DPDK_FRONTEND, dpdk_backend
from bench.lib.row import Figure, Goal, Row, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lib.room import Room
    from bench.lib.row import Measure, Setup

DPDK: Final = "DPDK net_vhost"
OWN: Final = "pyvnet, own front-end"
RSS: Final = "pyvnet, own front-end, RSS + hash report"


def pyvnet(name: str, *words: str) -> Setup:
    """``pyvnet serve`` on a null port; one at a time, for an endless one never sleeps."""

    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        def take() -> dict[str, float]:
            found = {}
            for figure, job, port in (
                ("to_device", "tx", "null"),
                ("to_driver", "rx", "null:endless"),
            ):
                serving = room.serve("--port", port, "--queues", "1")
                half = ("--job", job, "--socket", serving.socket, "--seconds", room.seconds / 2)
                found[figure] = room.run(name, *half, *words)["mpps"]
                serving.process.close()
            return found

        yield take

    return setup


@contextmanager
def dpdk(room: Room) -> Iterator[Measure]:
    """DPDK with its vhost port alone; one at a time, for it never sleeps."""

    def take() -> dict[str, float]:
        found = {}
        for figure, job, mode in (("to_device", "tx", "rxonly"), ("to_driver", "rx", "txonly")):
            with dpdk_backend(room, mode) as path:
                words = ("--job", job, "--socket", path, "--seconds", room.seconds / 2)
                found[figure] = room.run("dpdk_frontend", *words)["mpps"]
        return found

    yield take


ROW = Row(
    number=6,
    question="The rings alone: how many 64-byte frames a second pass between driver and device?",
    meaning="How far the device itself is from being the limit, whatever the host port becomes.",
    figures=(Figure("to_device", "Mpps"), Figure("to_driver", "Mpps")),
    variants=(
        Variant("pyvnet", pyvnet("dpdk_frontend"), DPDK_FRONTEND, ours=True),
        Variant(
            DPDK,
            dpdk,
            (program("dpdk-testpmd", "dpdk-dev"), built("dpdk_frontend"), hugepages(256)),
        ),
        Variant(OWN, pyvnet("frontend"), (built("frontend"),), ours=True),
        Variant(RSS, pyvnet("frontend", "--rss"), (built("frontend"),), ours=True),
    ),
    goals=(
        Goal("to_device", of="pyvnet", to=DPDK, at_least=0.97, stretch=1.3, reaching=1.0),
        Goal("to_driver", of="pyvnet", to=DPDK, at_least=0.97, stretch=1.3, reaching=1.0),
        Goal("to_device", of=RSS, to=OWN, at_least=0.85),
        Goal("to_driver", of=RSS, to=OWN, at_least=0.85),
    ),
    rounds=5,
)
