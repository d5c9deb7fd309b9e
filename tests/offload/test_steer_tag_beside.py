# SPDX-License-Identifier: MIT
"""A VLAN tag beside the frame, as tc and VLAN interfaces leave it to the tap: it counts as a tag.

Whoever reads the tap finds it in the frame, which is 4 bytes longer there than it was
when it was steered.
"""

from __future__ import annotations

import os
import random
import socket
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pytest

from pyvnet.netdev import tun_uapi
from pyvnet.netdev.netns import NetNamespace
from pyvnet.netdev.tap import HEADER_SIZE, Tap
from pyvnet.offload import bpf
from pyvnet.offload.bpf_call import bpf_call
from pyvnet.spec.rss import ALL_HASH_TYPES
from pyvnet.testing import frames
from tests.differential.samples import FRAMES
from tests.offload.steered import Program, Rss

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.needs_tap]

NAME: Final = "beside0"
QUEUES: Final = 8
UNCLASSIFIED: Final = QUEUES - 1
QUIET: Final = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")

# include/uapi/linux/bpf.h
PROG_ATTACH: Final = 8
TCX_EGRESS: Final = 47
SCHED_CLS: Final = 3
SKB_VLAN_PUSH: Final = 18

CTAG, STAG = 0x8100, 0x88A8


def instruction(opcode: int, to: int = 0, of: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, to | of << 4, offset, value)


def pushing(tags: Sequence[int]) -> bytes:
    """A tc program that pushes tags of these TPIDs, the last one outermost."""
    code = [instruction(0xBF, 6, 1)]  # r6 = skb
    for number, tpid in enumerate(tags):
        code += [
            instruction(0xBF, 1, 6),
            instruction(0xB7, 2, value=socket.htons(tpid)),
            instruction(0xB7, 3, value=5 + number),
            instruction(0x85, value=SKB_VLAN_PUSH),
        ]
    return b"".join([*code, instruction(0xB7, 0), instruction(0x95)])


class Tagged:
    """A tap whose frames get tags on their way out, and the queue each came out of."""

    def __init__(self, tags: Sequence[int]) -> None:
        self._tags = tags
        self._stack = ExitStack()
        self.tap = Tap(NAME, queues=QUEUES)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            netns = stack.enter_context(NetNamespace())
            netns.call(lambda: QUIET.write_text("1"))
            netns.call(self.tap.open)
            stack.callback(self.tap.close)
            self._socket = stack.enter_context(netns.call(self._sender))
            program = bpf.prog_load(
                pushing(self._tags), name="push", license_="Dual MIT/GPL", kind=SCHED_CLS
            )
            try:
                netns.call(lambda: self._attach(program))
            finally:
                os.close(program)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _sender(self) -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        made.bind((NAME, 0))
        return made

    def _attach(self, program: int) -> None:
        index = socket.if_nametoindex(NAME)
        bpf_call(PROG_ATTACH, struct.pack("=IIII", index, program, TCX_EGRESS, 0))

    def send(self, frame: bytes) -> tuple[int, bytes]:
        """Tap queue and frame, as its reader finds them."""
        self._socket.send(frame)
        for queue, fd in enumerate(self.tap.fds):
            try:
                return queue, os.read(fd, 4096)[HEADER_SIZE:]
            except BlockingIOError:
                continue
        raise AssertionError("the frame came out of no queue")


@pytest.fixture(params=[(CTAG,), (STAG,), (CTAG, STAG), (STAG, CTAG)], ids=str)
def tagged(request: pytest.FixtureRequest) -> Iterator[Tagged]:
    with Tagged(request.param) as made:
        yield made


def test_the_outermost_tag_is_beside_the_frame_when_it_is_steered(tagged: Tagged) -> None:
    """What the other test relies on: a program sees it in ``vlan_present`` alone."""
    code = instruction(0x61, 0, 1, 20) + instruction(0x95)  # return skb->vlan_present
    program = bpf.prog_load(code, name="present", license_="Dual MIT/GPL")
    try:
        tun_uapi.set_steering_program(tagged.tap.fds[0], program)
    finally:
        os.close(program)
    queue, found = tagged.send(FRAMES["v4 tcp"].data)
    assert queue == 1
    assert len(found) > len(FRAMES["v4 tcp"])


def at_the_window() -> Iterator[bytes]:
    """Chains whose last header, or the ports behind it, ends around the end of the window."""
    for size in range(934, 974, 4):
        whole = frames.Ipv6(extensions=[frames.extension(frames.AH, bytes(size))])
        yield frames.build(whole, frames.udp()).data


@pytest.mark.requirement("U-21", "U-24", "U-25")
def test_it_is_counted_and_shifts_the_window(tagged: Tagged) -> None:
    rng = random.Random(25)
    tags = [[], [frames.Vlan(7)], [frames.Vlan(7, tpid=STAG), frames.Vlan(8)]]
    few = [
        frames.build(ip, frames.tcp(), vlans=vlans).data
        for ip in (frames.Ipv4(), frames.Ipv6(), frames.Ipv6(extensions=[frames.hop_by_hop()]))
        for vlans in tags
    ]
    cut = [frame.data[:size] for frame in FRAMES.values() for size in range(14, len(frame), 7)]
    with Program() as program:
        tun_uapi.set_steering_program(tagged.tap.fds[0], program.fds.program)
        for types in (ALL_HASH_TYPES, 0x3F):
            table = tuple(rng.randrange(UNCLASSIFIED) for _ in range(128))
            program.publish(Rss(types, rng.randbytes(40), table, UNCLASSIFIED))
            for frame in (*few, *at_the_window(), *cut):
                queue, found = tagged.send(frame)
                assert queue == program.core(found), f"sent {frame.hex()}, found {found.hex()}"
