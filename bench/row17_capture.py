# SPDX-License-Identifier: MIT
"""Frames through a tap, all of them written to a file, or none.

Back-end and writer share one CPU, as where a host has none to spare.  The file turns over at
100 MiB and the last two are kept.  What the capture has no room for is missing in it, and in
nothing else.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.lib.peers import PYVNET_NEEDS, TAP_NAME, host_side
from bench.lib.row import Figure, Row, Variant
from bench.lib.through import measure
from pyvnet.daemon.admin_client import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lib.room import Room, Serving
    from bench.lib.row import Measure, Setup


def _serving(job: str, *, capture: bool) -> Setup:
    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        options = ["--tap", TAP_NAME, "--queues", "1"]
        if capture:
            options += ["--capture", str(room.tmp / "all.pcapng"), "--capture-rotate", "100M:2"]
        serving = room.serve(*options)
        host_side(room)
        frames = measure(room, job, serving.socket, "tc" if job == "tx" else None)
        yield (lambda: {**frames(), "in_file": _share(serving)}) if capture else frames

    return setup


def _share(serving: Serving) -> float:
    """How many of a hundred frames that passed so far are in the file."""
    (device,) = ask(str(serving.admin), {"command": "status"})["devices"]
    capture = device["capture"]
    frames, lost = int(capture["frames"]), int(capture["lost"])
    return 100.0 * frames / max(frames + lost, 1)


ROW = Row(
    number=17,
    question="A capture: how many 64-byte frames a second pass while all are written to a file?",
    meaning="What somebody takes from a device by looking at it with --capture.",
    figures=(Figure("mpps", "Mpps"), Figure("in_file", "%")),
    variants=tuple(
        Variant(
            f"{way}, {'captured' if capture else 'not captured'}",
            _serving(job, capture=capture),
            PYVNET_NEEDS,
            ours=True,
        )
        for way, job in (("host → guest", "rx"), ("guest → host", "tx"))
        for capture in (False, True)
    ),
    rounds=7,
    warm_up=0,
    seconds=0.03,
    windows=15,
    keep=True,
)
