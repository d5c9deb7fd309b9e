# SPDX-License-Identifier: MIT
"""RSS over four workers, steered by software and by the kernel: the same frames, end to end.

64 flows of the host take turns, 16 frames each.  With software steering the kernel puts a
flow on a tap queue of its own choice, and whoever reads there hands the frames over; with
the steering program they come out of the queue of the worker that owns the receiveq.
One CPU has all the workers, the other the source and the driver.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from bench.lib.needs import cpus
from bench.lib.peers import OWN_NEEDS, TAP_NAME, WINDOW, host_side
from bench.lib.process import BenchError
from bench.lib.room import Room
from bench.lib.row import Figure, Goal, Row, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lib.room import Serving
    from bench.lib.row import Measure, Setup

SOFTWARE: Final = "software steering"
PROGRAM: Final = "steering program"
PAIRS: Final = 4
FLOWS: Final = 64
BURST: Final = 16
COUNTED: Final = 1_000_000


class Seen(NamedTuple):
    """Counters of all queue pairs, since the start."""

    frames: int
    handoffs: int
    dropped: int


def seen(serving: Serving) -> Seen:
    """What the device has counted."""
    (device,) = serving.status()["devices"]
    pairs = device["queues"]
    frames, handoffs = (sum(pair[name] for pair in pairs) for name in ("rx_packets", "rx_handoffs"))
    drops = (pair[name] for pair in pairs for name in pair if name.startswith("rx_drop_"))
    return Seen(frames, handoffs, sum(drops))


def steered(owner: str, workers: int = PAIRS, counted: int = COUNTED) -> Setup:
    """A device whose frames ``owner`` steers, and our front-end.

    Hand-overs are counted from the start, of at least ``counted`` frames.
    """

    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        words = ("--queues", str(PAIRS), "--workers", str(workers), "--steering", owner)
        serving = room.serve("--tap", TAP_NAME, *words)
        host_side(room)
        traffic = ("--flows", FLOWS, "--segments", BURST, "--window", WINDOW, "--pairs", PAIRS)
        place = ("--socket", serving.socket, "--interface", TAP_NAME, "--seconds", room.seconds)
        job = ("--job", "rx", "--rss", "--turns", *place, *traffic)
        front = room.program("frontend", *job, asked=True)
        front.ask("rx")
        (device,) = serving.status()["devices"]
        if device["steering"]["owner"] != owner:
            raise BenchError(f"steered by {device['steering']}, not by {owner}")
        while seen(serving).frames < counted:
            front.ask("rx")

        def take() -> dict[str, float]:
            before, used = seen(serving), serving.cpu_seconds()
            said = front.ask("rx")
            used, after = serving.cpu_seconds() - used, seen(serving)
            if not said["frames"]:
                raise BenchError("no frame came; does something else keep the two CPUs busy?")
            if lost := after.dropped - before.dropped + said["tap_dropped"]:
                raise BenchError(f"{lost} frames were lost on the way")
            return {
                "mpps": said["mpps"],
                "ns": used * 1e9 / (after.frames - before.frames),
                "handoffs": after.handoffs * 1e6 / after.frames,
            }

        yield take

    return setup


@contextmanager
def handover(room: Room) -> Iterator[Measure]:
    """Both, one after the other; what a frame costs more there that was handed over here."""
    with ExitStack() as stack:
        ways = []
        for owner in ("software", "ebpf"):
            way = stack.enter_context(Room(room.cpus, room.seconds))
            ways.append((way, stack.enter_context(steered(owner)(way))))
            way.pause()

        def take() -> dict[str, float]:
            found = []
            for way, measure in ways:
                way.resume()
                found.append(measure())
                way.pause()
            more, crossed = (found[0][name] - found[1][name] for name in ("ns", "handoffs"))
            return {"handover": more * 1e6 / crossed}

        yield take


_NEEDS: Final = (*OWN_NEEDS, cpus(2))


def _variant(name: str, owner: str, workers: int = PAIRS) -> Variant:
    return Variant(name, steered(owner, workers), _NEEDS, ours=True)


ROW = Row(
    number=14,
    question="RSS over four workers: what does it gain that the kernel steers?",
    meaning="Frames a second of a guest with several queues on a shared core, what each costs "
    "there, and how many of a million crossed from one worker to another.",
    figures=(
        Figure("mpps", "Mpps"),
        Figure("ns", "ns of CPU a frame", better="less"),
        Figure("handoffs", "of a million frames", better="less"),
        Figure("handover", "ns of CPU each", better="less"),
    ),
    variants=(
        _variant(SOFTWARE, "software"),
        _variant(PROGRAM, "ebpf"),
        _variant(f"{SOFTWARE}, one worker", "software", workers=1),
        _variant(f"{PROGRAM}, one worker", "ebpf", workers=1),
        Variant("a hand-over, by difference", handover, _NEEDS, ours=True),
    ),
    goals=(
        Goal("mpps", of=PROGRAM, to=SOFTWARE, at_least=1.1),
        Goal("handoffs", of=PROGRAM, at_most=0),
        Goal("handoffs", of=SOFTWARE, at_least=1),
    ),
    rounds=7,
    warm_up=0,
    seconds=0.1,
    windows=5,
    keep=True,
)
