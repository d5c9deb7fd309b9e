# SPDX-License-Identifier: MIT
"""What a frame, and a device, cost when there are many queues, devices or flows.

Queues and devices: frames from the guest, automatic steering, one tap each, dropped
by tc behind it; every transmitq is kept full, so time per frame is the back-end's.
Flows: frames to the guest, RSS and HASH_REPORT on, one worker; time per frame is the
CPU time of the process.  They are compared on one queue: one flow never uses more, and
frames that spread come in smaller batches, which is a price of queues (the last variant
shows it), not of flows.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from bench.lib.drop import drop_behind
from bench.lib.needs import TAP, built
from bench.lib.peers import TAP_NAME, quiet
from bench.lib.process import BenchError
from bench.lib.row import Figure, Goal, Row, Variant
from pyvnet.netdev import rtnl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.lib.room import Room, Serving
    from bench.lib.row import Measure

_MIB: Final = 1 << 20


def written(room: Room, taps: Sequence[str]) -> int:
    """Frames the back-end has written into these taps."""
    return room.call(lambda: sum(rtnl.statistics(tap).rx_packets for tap in taps))


def transmit(
    room: Room, taps: Sequence[str], sockets: Sequence[Path], pairs: int, serving: Serving
) -> dict[str, float]:
    """Measure, see that every frame reached its tap, and look at the process meanwhile."""
    before = written(room, taps)
    names = [word for path in sockets for word in ("--socket", path)]
    options = ("--mode", "tx", "--pairs", pairs, "--seconds", room.seconds, "--stay", 1)
    with room.program("growth", *options, *names) as front:
        result = front.line()
        came = written(room, taps) - before
        if came < result["total"]:
            raise BenchError(f"{result['total']} frames sent, but {came} at the taps")
        return {"ns": result["ns"], **footprint(serving, len(sockets), len(sockets) * pairs)}


def footprint(serving: Serving, devices: int, workers: int) -> dict[str, float]:
    """Memory of the process but its guests', and its threads beside the workers."""
    memory = serving.memory()
    own = memory["Pss_Anon"] + memory["Pss_File"]
    return {"memory": own / devices / _MIB, "threads": serving.threads() - workers}


@contextmanager
def queues(room: Room, pairs: int) -> Iterator[Measure]:
    """One device of so many queue pairs."""
    quiet(room)
    serving = room.serve("--tap", TAP_NAME, "--queues", str(pairs))
    drop_behind(room, [TAP_NAME])

    def take() -> dict[str, float]:
        seen = transmit(room, [TAP_NAME], [serving.socket], pairs, serving)
        return {"ns": seen["ns"], "threads": seen["threads"]}

    yield take


@contextmanager
def devices(room: Room, count: int) -> Iterator[Measure]:
    """So many devices of one queue pair in one process."""
    quiet(room)
    taps = [f"bench{index}" for index in range(count)]
    sockets = [room.socket() for _ in taps]
    tables = [
        f'[[device]]\nname = "{tap}"\ntap = "{tap}"\nsocket-path = "{path}"\nqueues = 1\n'
        for tap, path in zip(taps, sockets, strict=True)
    ]
    config = room.tmp / "devices.toml"
    config.write_text("".join(tables))
    serving = room.serve("--config", str(config), sockets=0)
    drop_behind(room, taps)
    yield lambda: transmit(room, taps, sockets, 1, serving)


@contextmanager
def flows(room: Room, count: int, pairs: int) -> Iterator[Measure]:
    """So many flows into one device that hashes and steers each frame."""
    quiet(room)
    # By software: one worker has all queues, and it is not steering that grows here.
    words = ("--queues", str(pairs), "--workers", "1", "--poll-us", "0", "--steering", "software")
    serving = room.serve("--tap", TAP_NAME, *words)
    options = ("--mode", "rx", "--tap", TAP_NAME, "--pairs", pairs, "--flows", count)

    def take() -> dict[str, float]:
        before = serving.cpu_seconds()
        words = (*options, "--seconds", room.seconds, "--socket", serving.socket, "--stay", 1)
        with room.program("growth", *words) as front:
            result = front.line()
            used = serving.cpu_seconds() - before
        return {"ns": used * 1e9 / result["total"]}

    yield take


def _queues(pairs: int) -> Variant:
    return Variant(
        f"{pairs} queue{'s' * (pairs > 1)}", partial(queues, pairs=pairs), _NEEDS, ours=True
    )


def _devices(count: int) -> Variant:
    return Variant(
        f"{count} device{'s' * (count > 1)}", partial(devices, count=count), _NEEDS, ours=True
    )


def _flows(count: int, pairs: int = 1) -> Variant:
    name = f"{count} flow{'s' * (count > 1)}{f' on {pairs} queues' * (pairs > 1)}"
    return Variant(name, partial(flows, count=count, pairs=pairs), _NEEDS, ours=True)


_NEEDS: Final = (TAP, built("growth"))

ROW = Row(
    number=12,
    question="Growth: what do many queues, devices and flows cost?",
    meaning="Whether a figure measured with one queue, one guest and one connection still holds on "
    "a host full of guests, and what memory and threads each of them takes.",
    figures=(
        Figure("ns", "ns a frame", "less"),
        Figure("memory", "MiB a device", "less"),
        Figure("threads", "beside the workers", "less"),
    ),
    variants=(
        *(_queues(1), _queues(64)),
        *(_devices(1), _devices(10), _devices(100)),
        *(_flows(1), _flows(10_000), _flows(10_000, pairs=4)),
    ),
    goals=(
        Goal("ns", of="64 queues", to="1 queue", at_most=1.3),
        Goal("ns", of="100 devices", to="1 device", at_most=1.3),
        Goal("ns", of="10000 flows", to="1 flow", at_most=1.1),
        Goal("memory", of="100 devices", at_most=8),
        Goal("memory", of="100 devices", to="10 devices", at_most=1.0),
        Goal("threads", of="64 queues", at_most=1),
        Goal("threads", of="100 devices", at_most=1),
    ),
    rounds=5,
    warm_up=0,
    seconds=0.6,
)
