# SPDX-License-Identifier: MIT
"""The rings alone: a host port that makes and swallows frames in memory.

Against DPDK with DPDK's front-end; with RSS and hash report against without, with our own
front-end. Both make each frame anew; pyvnet looks at every header too.

DPDK's front-end reads no used elements of frames sent once buffers come back in order
(VIRTIO_F_IN_ORDER): that is half of its work. Both back-ends offer it; what they do for a
driver that does not take it is shown too.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from bench.lib.needs import built, hugepages, program
from bench.lib.peers import DPDK_FRONTEND, dpdk_backend
from bench.lib.room import Room
from bench.lib.row import Figure, Goal, Row, Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.lib.row import Measure, Setup

PYVNET: Final = "pyvnet"
DPDK: Final = "DPDK net_vhost"
NO_ORDER: Final = "--no-in-order"
NOT_IN_ORDER: Final = ", not in order"
OWN: Final = "pyvnet, own front-end"
RSS: Final = "pyvnet, own front-end, RSS + hash report"

# Figure → job of bench/c/jobs.h.
JOBS: Final = {"to_device": "tx", "to_driver": "rx"}


@contextmanager
def pyvnet(room: Room, job: str) -> Iterator[Path]:
    """``pyvnet serve`` on a null port."""
    yield room.serve("--port", "null" if job == "tx" else "null:endless", "--queues", "1").socket


def dpdk(room: Room, job: str) -> AbstractContextManager[Path]:
    """DPDK with its vhost port alone."""
    return dpdk_backend(room, "rxonly" if job == "tx" else "txonly")


def both_ways(
    backend: Callable[[Room, str], AbstractContextManager[Path]], name: str, *words: str
) -> Setup:
    """A back-end and a front-end for each direction; one pair rests while the other is measured."""

    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        with ExitStack() as stack:
            ways = {}
            for figure, job in JOBS.items():
                # Processes that never sleep: in a room of their own, to be paused with it.
                way = stack.enter_context(Room(room.cpus, room.seconds))
                path = stack.enter_context(backend(way, job))
                options = ("--turns", "--job", job, "--seconds", room.seconds)
                front = way.program(name, "--socket", path, *options, *words, asked=True)
                front.ask(job)  # it is there
                way.pause()
                ways[figure] = way, front

            def take() -> dict[str, float]:
                found = {}
                for figure, (way, front) in ways.items():
                    way.resume()
                    found[figure] = front.ask(JOBS[figure])["mpps"]
                    way.pause()
                return found

            yield take

    return setup


_DPDK: Final = (program("dpdk-testpmd", "dpdk-dev"), built("dpdk_frontend"), hugepages(768))

ROW = Row(
    number=6,
    question="The rings alone: how many 64-byte frames a second pass between driver and device?",
    meaning="How far the device itself is from being the limit, whatever the host port becomes.",
    figures=(Figure("to_device", "Mpps"), Figure("to_driver", "Mpps")),
    variants=(
        Variant(PYVNET, both_ways(pyvnet, "dpdk_frontend"), DPDK_FRONTEND, ours=True),
        Variant(DPDK, both_ways(dpdk, "dpdk_frontend"), _DPDK),
        Variant(
            PYVNET + NOT_IN_ORDER,
            both_ways(pyvnet, "dpdk_frontend", NO_ORDER),
            DPDK_FRONTEND,
            ours=True,
        ),
        Variant(DPDK + NOT_IN_ORDER, both_ways(dpdk, "dpdk_frontend", NO_ORDER), _DPDK),
        Variant(OWN, both_ways(pyvnet, "frontend"), (built("frontend"),), ours=True),
        Variant(RSS, both_ways(pyvnet, "frontend", "--rss"), (built("frontend"),), ours=True),
    ),
    goals=(
        Goal("to_device", of=PYVNET, to=DPDK, at_least=0.97, stretch=1.3, reaching=1.0),
        Goal("to_driver", of=PYVNET, to=DPDK, at_least=0.97, stretch=1.3, reaching=1.0),
        Goal("to_device", of=RSS, to=OWN, at_least=0.85),
        Goal("to_driver", of=RSS, to=OWN, at_least=0.85),
    ),
    rounds=7,
    warm_up=0,
    seconds=0.2,
    windows=5,
    keep=True,
)
