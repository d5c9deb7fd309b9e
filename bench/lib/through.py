# SPDX-License-Identifier: MIT
"""Variants of rows that go through a tap: who is the back-end, and which job the front-end does."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from bench.lib.drop import drop_behind
from bench.lib.peers import (
    DPDK_NEEDS,
    OVS_NEEDS,
    PYVNET_NEEDS,
    RAW_NEEDS,
    TAP_NAME,
    WINDOW,
    dpdk_backend,
    host_side,
    open_vswitch,
    raw_tap,
)
from bench.lib.process import BenchError
from bench.lib.row import Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.lib.process import Process
    from bench.lib.room import Room
    from bench.lib.row import Measure, Setup

    Drop = Literal["tc", "xdp"] | None

PYVNET: Final = "pyvnet"
DPDK: Final = "DPDK net_vhost + net_tap"
OVS: Final = "OVS-DPDK, internal port"
RAW: Final = "raw io_uring, no guest"

_LOST = 0.02  # of the frames sent; more, and the count is not one of frames delivered


def jobs(room: Room, job: str, window: int = WINDOW) -> list[object]:
    """Arguments of every program with the jobs of bench/c/jobs.h."""
    words: list[object] = ["--job", job, "--interface", TAP_NAME, "--seconds", room.seconds]
    return [*words, "--window", window, "--turns"]


def figures(
    job: str, drop: Drop, said: Mapping[str, float], *, lossy: bool = False
) -> dict[str, float]:
    """What a program said, held against what the kernel counted.

    Raises:
        BenchError: they disagree, nothing came, or frames were lost by one who should lose none.
    """
    if job == "rtt":
        return {"p50": said["p50_us"], "p99": said["p99_us"]}
    if not said["mpps"]:
        raise BenchError("no frame came; does something else keep the two CPUs busy?")
    if job == "tx":
        # What XDP drops, the tap counts as dropped; what goes further, as received.
        kernel = said["tap_dropped_mpps" if drop == "xdp" else "tap_mpps"]
        if kernel < (1 - _LOST) * said["mpps"]:
            raise BenchError(f"{said['mpps']} Mpps taken from the guest, {kernel} seen by the tap")
        return {"mpps": min(kernel, said["mpps"])}
    if not lossy and said["frames"] < (1 - _LOST) * (said["sent"] - WINDOW):
        raise BenchError(f"{said['sent']:.0f} frames sent, {said['frames']:.0f} came")
    return {"mpps": said["mpps"]}


def pyvnet(job: str, *options: str, drop: Drop = None) -> Setup:
    """``pyvnet serve`` with a tap, and DPDK's front-end.

    Args:
        job: of bench/c/jobs.h.
        options: more for serve.
        drop: where frames from the guest are dropped.
    """

    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        serving = room.serve("--tap", TAP_NAME, "--queues", "1", *options)
        host_side(room)
        yield measure(room, job, serving.socket, drop)

    return setup


def behind(
    backend: Callable[[Room], AbstractContextManager[Path]],
    job: str,
    *,
    drop: Drop = None,
    server: bool = False,
) -> Setup:
    """A peer's back-end with DPDK's front-end; ``server``: the back-end connects to that."""

    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        with backend(room) as path:
            yield measure(room, job, path, drop, server=server)

    return setup


def dpdk(job: str, drop: Drop = None) -> Setup:
    """DPDK's testpmd between its vhost port and its tap."""
    return behind(lambda room: dpdk_backend(room, "io", tap=True), job, drop=drop)


def ovs(job: str, drop: Drop = None) -> Setup:
    """Open vSwitch on DPDK.

    Its bridge's port is served by a thread that wakes up too seldom for a source that
    waits for it: to this back-end the source sends without waiting, and frames are lost.
    """
    return behind(open_vswitch, job, drop=drop, server=True)


def raw(job: str, drop: Drop = None) -> Setup:
    """Nothing but io_uring on the tap."""

    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        raw_tap(room)
        if drop:
            drop_behind(room, [TAP_NAME], drop)
        words = [*jobs(room, job), "--backend-cpu", room.cpus.backend]
        program = room.program("raw_tap", *words, asked=True)
        yield lambda: figures(job, drop, program.ask(job))

    return setup


def everybody(job: str, drop: Drop = None) -> tuple[Variant, ...]:
    """All four, as they are made for frames of one way."""
    return (
        Variant(PYVNET, pyvnet(job, drop=drop), PYVNET_NEEDS, ours=True),
        Variant(DPDK, dpdk(job, drop), DPDK_NEEDS),
        Variant(OVS, ovs(job, drop), OVS_NEEDS),
        Variant(RAW, raw(job, drop), RAW_NEEDS),
    )


def front_end(
    room: Room,
    job: str,
    path: Path,
    *,
    own: bool = False,
    rss: bool = False,
    server: bool = False,
) -> Process:
    """Start a front-end that does a job each time it is asked to, that one or another."""
    words: list[object] = ["--socket", path, *jobs(room, job, 0 if server else WINDOW)]
    words += ["--rss"] if rss else []
    words += ["--server"] if server else []
    return room.program("frontend" if own else "dpdk_frontend", *words, asked=True)


def measure(room: Room, job: str, path: Path, drop: Drop, *, server: bool = False) -> Measure:
    """Start DPDK's front-end and have it measure, each time it is called."""
    if drop:
        drop_behind(room, [TAP_NAME], drop)
    front = front_end(room, job, path, server=server)
    if server and job != "rtt":
        # Open vSwitch forwards nothing until its threads have agreed on where to.
        room.until(lambda: front.ask(job)["mpps"] > 0, "a frame through the back-end")
    return lambda: figures(job, drop, front.ask(job), lossy=server)
