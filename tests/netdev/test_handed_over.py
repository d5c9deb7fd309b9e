# SPDX-License-Identifier: MIT
"""Host ports of descriptors that somebody else opened: tap queues and sockets."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack
from fcntl import ioctl
from typing import TYPE_CHECKING

import pytest

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev import PairFds, TapFds, rtnl, tun_uapi
from pyvnet.netdev.netns import NetNamespace
from tests.netdev import kernel
from tests.netdev.kernel import ip, open_fds

if TYPE_CHECKING:
    from collections.abc import Iterator

WANTED = kernel.IFF_TAP | kernel.IFF_NO_PI | kernel.IFF_VNET_HDR
MANY = WANTED | kernel.IFF_MULTI_QUEUE
TUNSETQUEUE = 0x400454D9

needs_taps = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.usefixtures("private_netns"),
]


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def queues(undo: ExitStack, name: str, count: int, flags: int = MANY) -> list[int]:
    fds = []
    for _ in range(count):
        fds.append(kernel.attach(name, flags))
        undo.callback(os.close, fds[-1])
    return fds


def detach(fd: int) -> None:
    ioctl(fd, TUNSETQUEUE, struct.pack("16sH22x", b"", 0x0400))


def state(name: str, fd: int) -> tuple[object, ...]:
    link = rtnl.get_link(name)
    assert link is not None
    return (
        link.up,
        link.mtu,
        link.carrier,
        link.master,
        link.tun,
        rtnl.offload_names(name),
        tun_uapi.get_header_size(fd),
        os.get_blocking(fd),
    )


# --- tap queues -------------------------------------------------------------------------


class TestTapQueues:
    pytestmark = needs_taps

    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize(
        ("up", "offload", "header", "blocking"),
        [(False, 0, 10, True), (True, 0x6F, 20, False), (True, 0x1, 12, True)],
    )
    def test_made_ready_and_put_back(
        self, undo: ExitStack, count: int, up: bool, offload: int, header: int, blocking: bool
    ) -> None:
        fds = queues(undo, "theirs", count, MANY if count > 1 else WANTED)
        for fd in fds:
            os.set_blocking(fd, blocking)
        ioctl(fds[0], kernel.TUNSETVNETHDRSZ, struct.pack("i", header))
        ioctl(fds[0], kernel.TUNSETOFFLOAD, offload)
        if up:
            ip("link", "set", "theirs", "up")
        before, held = state("theirs", fds[0]), open_fds()
        with TapFds(fds) as tap:
            assert (tap.name, tap.queues, len(tap.fds)) == ("theirs", count, count)
            assert not any(os.get_blocking(fd) for fd in tap.fds)
            assert tun_uapi.get_header_size(tap.fds[0]) == 12
            assert "tx-tcp-segmentation" not in rtnl.offload_names("theirs")
            assert rtnl.get_link("theirs").up is up  # type: ignore[union-attr]
            # What a device does at run time.
            tap.set_carrier(on=False)
            tun_uapi.set_offload(tap.fds[0], 0x7)
            for fd in tap.fds[1:]:
                detach(fd)
        assert state("theirs", fds[0]) == before
        assert open_fds() == held
        for fd in fds[1:]:  # attached again: detaching succeeds
            detach(fd)

    def test_frames_go_both_ways(self, undo: ExitStack) -> None:
        fds = queues(undo, "theirs", 2)
        ip("link", "set", "theirs", "up")
        frame = b"\xff" * 6 + b"\x02\0\0\0\0\x01\x88\xb5" + bytes(46)
        with TapFds(fds) as tap:
            tap.send(frame)
            assert rtnl.statistics("theirs").rx_packets == 1
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("theirs", 0x88B5))
                raw.send(frame)
            assert bytes(12) + frame in [f for fd in tap.fds for f in kernel.drain(fd)]
            assert tap.describe() == {
                "kind": "tap",
                "queues": 2,
                "name": "theirs",
                "fds": fds,
            }

    async def test_the_carrier_is_watched(self, undo: ExitStack) -> None:
        from tests.netdev.test_carrier import Heard

        fds = queues(undo, "theirs", 2)
        ip("link", "set", "theirs", "up")
        heard = Heard()
        with TapFds(fds) as tap:
            tap.watch_carrier(heard)
            await heard.until(True)
            tap.set_carrier(on=False)
            await heard.until(True, False)

    async def test_of_a_tap_in_another_namespace(self, undo: ExitStack) -> None:
        from tests.netdev.test_carrier import Heard

        heard = Heard()
        with NetNamespace() as other:
            fds = other.call(lambda: queues(undo, "theirs", 2))
            other.call(lambda: ip("link", "set", "theirs", "up"))
            ioctl(fds[0], kernel.TUNSETOFFLOAD, 0x7)
            before = other.call(lambda: rtnl.offload_names("theirs"))
            with TapFds(fds) as tap:
                tap.watch_carrier(heard)
                await heard.until(True)
                tap.set_carrier(on=False)
                await heard.until(True, False)
            assert other.call(lambda: rtnl.offload_names("theirs")) == before

    def test_of_a_tap_that_was_deleted(self, undo: ExitStack) -> None:
        fds = queues(undo, "theirs", 2)
        with TapFds(fds):
            ip("link", "delete", "theirs")

    def test_what_is_no_tap_queue(self, undo: ExitStack) -> None:
        ours = kernel.attach("ours", WANTED)
        undo.callback(os.close, ours)
        fresh = tun_uapi.open_clone_device()
        undo.callback(os.close, fresh)
        tun = kernel.attach("tun", 0x1 | kernel.IFF_NO_PI | kernel.IFF_VNET_HDR)
        undo.callback(os.close, tun)
        plain = kernel.attach("plain", kernel.IFF_TAP | kernel.IFF_NO_PI)
        undo.callback(os.close, plain)
        null = os.open(os.devnull, os.O_RDWR)
        undo.callback(os.close, null)
        before = open_fds()
        for fds, message in (
            ([777], "fd 777 is of no use: Bad file descriptor"),
            ([null], f"fd {null} is not a tap queue; open /dev/net/tun once per queue"),
            ([fresh], f"fd {fresh} belongs to no tap"),
            ([tun], f"fd {tun} is a queue of tun, opened in another way"),
            ([plain], f"fd {plain} is a queue of plain, opened in another way"),
            ([ours, null], f"fd {null} is not a tap queue"),
        ):
            with pytest.raises(HostError, match=re.escape(message)):
                TapFds(fds).open()
            assert open_fds() == before

    def test_queues_that_do_not_belong_together(self, undo: ExitStack) -> None:
        first, second, third = queues(undo, "theirs", 3)
        (other,) = queues(undo, "other", 1)
        with pytest.raises(HostError, match=f"fd {other} one of other; hand over"):
            TapFds([first, second, third, other]).open()
        with pytest.raises(HostError, match="has 3 queues and 2 were handed over"):
            TapFds([first, second]).open()

    def test_a_queue_that_is_detached_is_used_and_detached_again(self, undo: ExitStack) -> None:
        fds = queues(undo, "theirs", 3)
        detach(fds[1])
        with TapFds(fds):
            for fd in fds:
                detach(fd)
        detach(fds[0])
        with pytest.raises(OSError, match="Invalid"):
            detach(fds[1])

    def test_without_privilege(self) -> None:
        """A launcher made the tap; who uses it may do nothing but that."""
        script = """
import os, subprocess
from pyvnet.netdev import TapFds, netns, rtnl, tun_uapi
from pyvnet.netdev.tun_uapi import Iff
assert netns.enter_private_netns() is None
fds = [tun_uapi.open_clone_device() for _ in range(2)]
for fd in fds:
    tun_uapi.set_iff(fd, "made", Iff.TAP | Iff.NO_PI | Iff.VNET_HDR | Iff.MULTI_QUEUE)
rtnl.set_up("made")
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
with TapFds(fds) as tap:
    print(tap.name, tap.queues)
    tap.send(bytes(60))
    tap.set_carrier(on=False)
print(rtnl.get_link("made").carrier)
"""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            check=False,
            capture_output=True,
            text=True,
        )
        assert (done.stderr, done.stdout) == ("", "made 2\nTrue\n")


@pytest.mark.parametrize("port", [TapFds, PairFds])
def test_lists_nobody_can_mean(port: type[TapFds | PairFds]) -> None:
    with pytest.raises(UsageError, match="no file descriptor is named"):
        port([])
    with pytest.raises(UsageError, match="named twice"):
        port([3, 4, 3])


# --- sockets ------------------------------------------------------------------------------


def test_sockets_carry_frames_and_are_put_back() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        held = open_fds()
        with PairFds([near.fileno()]) as pair:
            assert not os.get_blocking(near.fileno())
            pair.send(b"frame")
            assert far.recv(100) == bytes(12) + b"frame"
            far.send(b"other")
            assert os.read(pair.fds[0], 100) == b"other"
            assert pair.describe()["frame_max"] == 65557
            with pytest.raises(UsageError, match="open already"):
                pair.open()
        assert os.get_blocking(near.fileno())
        assert open_fds() == held
        far.send(b"still there")
        assert near.recv(100) == b"still there"


def test_what_is_no_such_socket(undo: ExitStack) -> None:
    stream, _peer = (undo.enter_context(end) for end in socket.socketpair())
    alone = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    null = os.open(os.devnull, os.O_RDWR)
    undo.callback(os.close, null)
    before = open_fds()
    for fd, message in (
        (777, "fd 777 is of no use: Bad file descriptor"),
        (null, "is not a socket; hand over one end of a connected AF_UNIX SOCK_SEQPACKET"),
        (stream.fileno(), "is a socket that does not keep frames whole"),
        (alone.fileno(), "is not connected"),
    ):
        with pytest.raises(HostError, match=message):
            PairFds([fd]).open()
        assert open_fds() == before
