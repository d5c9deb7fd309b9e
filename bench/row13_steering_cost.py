# SPDX-License-Identifier: MIT
"""The steering program alone: its run time in the kernel, as the kernel takes it (bpf_stats).

Frames go into a tap by a packet socket, past the queueing discipline.  Nobody reads them:
the program chooses a queue before the tap sees that it is full.  The kernel's clock is
read twice a run and is part of every figure, also of the one the others are compared with:
the same program, told that nothing is to be steered.  Without that clock, and with all of
it in the cache, are repeated runs over one frame (BPF_PROG_TEST_RUN).
"""

from __future__ import annotations

import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.lib.needs import TAP, built
from bench.lib.peers import TAP_NAME, quiet
from bench.lib.process import BenchError
from bench.lib.row import Figure, Goal, Row, Variant
from pyvnet.datapath.policy import Policy
from pyvnet.datapath.steering_map import SteeringMap
from pyvnet.netdev import tun_uapi
from pyvnet.netdev.tap import Tap
from pyvnet.offload import bpf, program
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY
from pyvnet.testing import frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.lib.room import Room
    from bench.lib.row import Measure, Setup

OFF: Final = "switched off"
TCP4: Final = "TCP over IPv4"
UDP6: Final = "UDP over IPv6"
QUEUES: Final = 4
FLOWS: Final = 64
REPEATED: Final = 20_000
CHAIN: Final = (
    frames.hop_by_hop(frames.padn(4)),
    frames.destination_options(frames.padn(2), frames.home_address("2001:db8::aaaa")),
    frames.routing_type2("2001:db8::bbbb"),
    *(frames.extension(kind, bytes(14)) for kind in (frames.MOBILITY, frames.HIP, frames.SHIM6)),
    frames.extension(frames.AH, bytes(22)),
)


def frame(ip: frames.Ipv4 | frames.Ipv6, l4: Callable[[int], frames.L4]) -> list[bytes]:
    """A frame of each flow."""
    return [frames.build(ip, l4(20000 + flow)).data for flow in range(FLOWS)]


def policy(*, on: bool) -> Policy:
    """All hash types and a full table, or automatic steering."""
    return Policy.create(
        mode="rss" if on else "automatic",
        hash_types=ALL_HASH_TYPES if on else 0,
        key=VERIFICATION_KEY,
        indirection_table=[place % QUEUES for place in range(128)],
        pairs=QUEUES,
        port_queues=QUEUES,
    )


@contextmanager
def timed() -> Iterator[None]:
    """The kernel takes the time of every run; only here, for it takes some itself."""
    fd = bpf.enable_stats()
    try:
        yield
    finally:
        os.close(fd)


def steers(traffic: list[bytes], *, on: bool = True) -> Setup:
    """The program on a tap of its own, and who sends there."""

    @contextmanager
    def setup(room: Room) -> Iterator[Measure]:
        quiet(room)
        file = room.tmp / "frames"
        file.write_bytes(b"".join(struct.pack("=I", len(one)) + one for one in traffic))
        tap = Tap(TAP_NAME, queues=QUEUES)
        room.call(tap.open)
        room.on_close(tap.close)
        fds = program.load()
        room.on_close(fds.close)
        with SteeringMap(fds.map, fresh=True) as steering, policy(on=on) as told:
            steering.publish(told)
        tun_uapi.set_steering_program(tap.fds[0], fds.program)
        words = ("--interface", TAP_NAME, "--frames", file, "--seconds", room.seconds, "--turns")
        replay = room.program("replay", *words, cpu=room.cpus.backend, asked=True)

        def take() -> dict[str, float]:
            with timed():
                before = bpf.program_info(fds.program)
                sent = replay.ask("go")["frames"]
                after = bpf.program_info(fds.program)
            runs = after.run_count - before.run_count
            if runs != sent:
                raise BenchError(f"{sent} frames sent, the program ran {runs} times")
            repeated = bpf.run_program(fds.program, traffic[0], REPEATED).duration_ns
            return {"ns": (after.run_time_ns - before.run_time_ns) / runs, "repeated": repeated}

        yield take

    return setup


_NEEDS: Final = (TAP, built("replay"))
_TCP4: Final = frame(frames.Ipv4(), frames.tcp)
_TRAFFIC: Final = {
    TCP4: _TCP4,
    "UDP over IPv4": frame(frames.Ipv4(), frames.udp),
    "TCP over IPv6": frame(frames.Ipv6(), frames.tcp),
    UDP6: frame(frames.Ipv6(), frames.udp),
    f"TCP over IPv6, {len(CHAIN)} extension headers": frame(
        frames.Ipv6(extensions=CHAIN), frames.tcp
    ),
}

ROW = Row(
    number=13,
    question="How long does the steering program take to choose the tap queue of a frame?",
    meaning="What RSS in the kernel adds to each frame a guest is sent; a hand-over between "
    "workers, which it spares, is in row 14.",
    figures=(
        Figure("ns", "ns a frame", better="less"),
        Figure("repeated", "ns a frame", better="less"),
    ),
    variants=(
        Variant(OFF, steers(_TCP4, on=False), _NEEDS, ours=True),
        *(Variant(name, steers(sent), _NEEDS, ours=True) for name, sent in _TRAFFIC.items()),
    ),
    goals=(
        Goal("ns", of=TCP4, to=OFF, at_most=3),
        Goal("ns", of=UDP6, to=OFF, at_most=4.5),
    ),
    rounds=7,
    warm_up=0,
    seconds=0.03,
    windows=9,
    keep=True,
)
