# SPDX-License-Identifier: MIT
"""A real device behind a socket: what a front-end gets, and what its end leaves."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pyvnet
from pyvnet.errors import UsageError
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.spec.vhost_user import (
    F_PROTOCOL_FEATURES,
    HEADER,
    ConfigSpace,
    Header,
    RegionDescription,
    Request,
    VringAddress,
    VringState,
    message,
    pack_memory_table,
    pack_u64,
    unpack_u64,
)
from pyvnet.transport.vhost_user.connection import MAX_PAIRS, Backend
from pyvnet.transport.vhost_user.messages import PROTOCOL_FEATURES
from tests.vhost_user.support import GPA, SIZE, UVA, event_fd, memory_fd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

DEADLINE = 30


class Peer:
    """The front-end's end of the socket, without a driver behind it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)

    async def send(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send; the fds are closed here."""
        data = message(request, payload)
        if fds:
            socket.send_fds(self.sock, [data], fds)
            for fd in fds:
                os.close(fd)
        else:
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def read(self) -> bytes:
        """The payload of the next answer; empty when the back-end hung up."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE):
            head = await loop.sock_recv(self.sock, HEADER.size)
            if not head:
                return b""
            return await loop.sock_recv(self.sock, Header.unpack(head).size)

    async def ask(self, request: int, payload: bytes = b"") -> bytes:
        await self.send(request, payload)
        return await self.read()

    async def negotiate(self, device: pyvnet.Device, features: int | None = None) -> None:
        chosen = int(device.device.offered) if features is None else features
        await self.send(Request.SET_PROTOCOL_FEATURES, pack_u64(int(PROTOCOL_FEATURES)))
        await self.send(Request.SET_FEATURES, pack_u64(chosen | F_PROTOCOL_FEATURES))

    async def start(self, memory: int, *indexes: int, base: int = 0) -> None:
        table = pack_memory_table((RegionDescription(GPA, SIZE, UVA, 0),))
        await self.send(Request.SET_MEM_TABLE, table, [os.dup(memory)])
        for index in indexes:
            at = UVA + index * 0x4000
            await self.send(Request.SET_VRING_NUM, VringState(index, 64).pack())
            await self.send(Request.SET_VRING_BASE, VringState(index, base).pack())
            address = VringAddress(index, 0, at, at + 0x2000, at + 0x1000)
            await self.send(Request.SET_VRING_ADDR, address.pack())
            await self.send(Request.SET_VRING_KICK, pack_u64(index), [event_fd()])
            await self.send(Request.SET_VRING_ENABLE, VringState(index, 1).pack())


class Served:
    """A device, its back-end, and a peer connected to it."""

    def __init__(self, device: pyvnet.Device, backend: Backend) -> None:
        self.device, self.backend = device, backend
        self.sockets: list[socket.socket] = []

    def connect(self) -> tuple[Peer, asyncio.Future[str]]:
        ours, theirs = socket.socketpair()
        self.sockets += [ours, theirs]
        return Peer(theirs), self.backend.serve(ours)

    async def over(self, done: asyncio.Future[str]) -> str:
        async with asyncio.timeout(DEADLINE):
            return await done


@asynccontextmanager
async def served(pairs: int = 2, **options: Any) -> AsyncIterator[Served]:
    netdev = pyvnet.Pair(pairs)
    async with pyvnet.Device(netdev=netdev, relaxed_dependencies=True, **options) as device:
        backend = Backend(device, name="test")
        here = Served(device, backend)
        try:
            yield here
        finally:
            backend.disconnect("the test is over")
            for sock in here.sockets:
                sock.close()


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:pyvnet-test-frontend")


async def test_a_front_end_negotiates_and_reads_configuration_space() -> None:
    async with served(mtu=1400) as here:
        peer, _ = here.connect()
        offered = unpack_u64(await peer.ask(Request.GET_FEATURES))
        assert offered == int(here.device.device.offered) | F_PROTOCOL_FEATURES
        await peer.negotiate(here.device)
        assert unpack_u64(await peer.ask(Request.GET_QUEUE_NUM)) == 2
        answer = await peer.ask(Request.GET_CONFIG, ConfigSpace(0, 12, 0, bytes(12)).pack())
        config = ConfigSpace.unpack(answer).data
        assert config[:6] == here.device.device.settings.mac
        assert struct.unpack_from("<H", config, 10) == (1400,)


async def test_rings_start_and_frames_arrive() -> None:
    async with served(pairs=1) as here:
        peer, _ = here.connect()
        memory = memory_fd()
        # One receive buffer of 1 KiB in descriptor 0 of ring 0, available.
        os.pwrite(memory, struct.pack("<QIHH", GPA + 0x8000, 1024, 2, 0), 0)
        os.pwrite(memory, struct.pack("<HHH", 0, 1, 0), 0x1000)
        await peer.negotiate(here.device, int(Feature.VERSION_1 | Feature.MRG_RXBUF))
        await peer.start(memory, 0, 1)
        call = event_fd()
        await peer.send(Request.SET_VRING_CALL, pack_u64(0), [os.dup(call)])
        await peer.ask(Request.GET_FEATURES)
        os.eventfd_read(call)  # a new call fd is written once
        here.device.netdev.wire(0).send(b"\xff" * 60)  # type: ignore[attr-defined]
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        loop.add_reader(call, arrived.set)
        async with asyncio.timeout(DEADLINE):
            await arrived.wait()
        loop.remove_reader(call)
        used = struct.unpack("<HHII", os.pread(memory, 12, 0x2000))
        assert used[1:] == (1, 0, 72)
        assert NetHdr.unpack(os.pread(memory, 12, 0x8000), 12).num_buffers == 1
        assert os.pread(memory, 60, 0x800C) == b"\xff" * 60
        assert (await peer.ask(Request.GET_VRING_BASE, VringState(0, 0).pack()))[4] == 1
        os.close(call)
        os.close(memory)


async def test_the_end_of_a_front_end_lets_go_of_memory_and_keeps_the_device() -> None:
    async with served() as here:
        peer, done = here.connect()
        memory = memory_fd()
        await peer.negotiate(here.device)
        await peer.start(memory, 0, 1, 4)
        await peer.ask(Request.GET_FEATURES)
        assert mappings()
        peer.sock.close()
        assert await here.over(done) == "it closed the connection"
        assert not mappings()
        assert not here.backend.connected
        peer, _ = here.connect()
        assert await peer.ask(Request.GET_FEATURES)
        os.close(memory)


async def test_a_front_end_that_keeps_no_positions_goes_on_where_its_used_rings_are() -> None:
    """SET_VRING_BASE 0 for rings in the middle of their work, as DPDK's virtio-user says it."""
    async with served(pairs=1) as here:
        memory, call = memory_fd(), event_fd()
        for n in range(3):
            os.pwrite(memory, struct.pack("<QIHH", GPA + 0x8000 + n * 1024, 1024, 2, 0), 16 * n)
        for n in range(3):
            os.pwrite(memory, struct.pack("<H", n), 0x1004 + 2 * n)
            os.pwrite(memory, struct.pack("<H", n + 1), 0x1002)
            peer, done = here.connect()
            await peer.negotiate(here.device, int(Feature.VERSION_1 | Feature.MRG_RXBUF))
            await peer.start(memory, 0, 1)
            await peer.send(Request.SET_VRING_CALL, pack_u64(0), [os.dup(call)])
            await peer.ask(Request.GET_FEATURES)
            frame = bytes([n + 1]) * 60
            here.device.netdev.wire(0).send(frame)  # type: ignore[attr-defined]
            async with asyncio.timeout(DEADLINE):
                while os.pread(memory, 2, 0x2002) != struct.pack("<H", n + 1):
                    await peer.ask(Request.GET_FEATURES)
            assert struct.unpack("<II", os.pread(memory, 8, 0x2004 + 8 * n)) == (n, 72)
            assert os.pread(memory, 60, 0x800C + n * 1024) == frame
            peer.sock.close()
            await here.over(done)
        os.close(call)
        os.close(memory)


async def test_one_front_end_at_a_time() -> None:
    async with served() as here:
        here.connect()
        with pytest.raises(UsageError, match="front-end already"):
            here.connect()
        with pytest.raises(UsageError, match="driver already"):
            here.device.driver()


async def test_more_pairs_than_the_protocol_can_number() -> None:
    async with pyvnet.Device(netdev=pyvnet.Null(1), queues=MAX_PAIRS + 1, workers=1) as device:
        with pytest.raises(UsageError, match="127"):
            Backend(device, name="test")


async def test_a_refused_message_ends_the_conversation_unless_it_is_acknowledged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served() as here:
        peer, done = here.connect()
        await peer.negotiate(here.device)
        bad = message(Request.SET_VRING_NUM, VringState(9, 64).pack(), need_reply=True)
        await asyncio.get_running_loop().sock_sendall(peer.sock, bad)
        assert unpack_u64(await peer.read()) == 1
        assert here.backend.connected
        await peer.send(Request.SET_VRING_NUM, VringState(9, 64).pack())
        assert "vring 9 does not exist" in await here.over(done)
        assert await peer.read() == b""
        lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert lines == [
            "test: SET_VRING_NUM refused: vring 9 does not exist, there are 5",
            "test: front-end disconnected: SET_VRING_NUM: vring 9 does not exist, there are 5",
        ]


@pytest.mark.requirement("CVE-2020-27174")
async def test_a_front_end_that_reads_no_answers_is_not_read_from_either() -> None:
    async with served() as here:
        peer, _ = here.connect()
        request, sent = message(Request.GET_FEATURES), 0
        idle = 0
        while idle < 20:  # turns of the loop in which nothing was taken any more
            try:
                sent += peer.sock.send(request)
                idle = 0
            except BlockingIOError:
                idle += 1
                await asyncio.sleep(0)
        assert len(here.backend._unsent) <= 20
        # It is served again once it reads.
        whole = sent // len(request)
        for _ in range(whole):
            assert len(await peer.read()) == 8


@pytest.mark.requirement("VIO-STAT-02", "U-59")
async def test_a_driver_that_is_reset_after_a_ring_broke_begins_anew() -> None:
    """All rings disabled, features again: what a front-end does that has no other reset."""
    features = int(Feature.VERSION_1 | Feature.MRG_RXBUF)
    async with served(pairs=1) as here:
        peer, _ = here.connect()
        memory = memory_fd()
        await peer.negotiate(here.device, features)
        await peer.start(memory, 0, 1)
        await peer.ask(Request.GET_FEATURES)
        os.pwrite(memory, struct.pack("<HH", 0, 999), 0x4000 + 0x1000)  # transmitq: far too far
        kick = event_fd()
        os.eventfd_write(kick, 1)
        await peer.send(Request.SET_VRING_KICK, pack_u64(1), [kick])
        async with asyncio.timeout(DEADLINE):
            while not unpack_u64(await peer.ask(Request.GET_STATUS)) & 0x40:
                pass
        os.pwrite(memory, bytes(4), 0x4000 + 0x1000)
        for index in (1, 0):
            await peer.send(Request.SET_VRING_ENABLE, VringState(index, 0).pack())
        await peer.negotiate(here.device, features)
        await peer.start(memory, 0, 1)
        assert unpack_u64(await peer.ask(Request.GET_STATUS)) == 0
        assert {ring["running"] for ring in here.backend.status()["vrings"]} == {True}
        os.close(memory)


async def test_link_changes_reach_the_front_end_once_a_ring_runs() -> None:
    features = Feature.VERSION_1 | Feature.STATUS
    async with served(pairs=1, features=features) as here:
        peer, _ = here.connect()
        ours, theirs = socket.socketpair()
        memory = memory_fd()
        await peer.negotiate(here.device, int(features))
        await peer.send(Request.SET_BACKEND_REQ_FD, b"", [theirs.detach()])
        await peer.ask(Request.GET_FEATURES)
        await peer.start(memory, 0)
        await peer.ask(Request.GET_FEATURES)
        here.device.set_link(up=False)
        ours.settimeout(DEADLINE)
        assert Header.unpack(ours.recv(12)) == Header(2, 1, 0)
        answer = await peer.ask(Request.GET_CONFIG, ConfigSpace(6, 2, 0, bytes(2)).pack())
        assert ConfigSpace.unpack(answer).data == b"\0\0"
        # Suspended: kept until the device goes on.
        await peer.ask(Request.GET_VRING_BASE, VringState(0, 0).pack())
        here.device.set_link(up=True)
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(12)
        await peer.send(Request.SET_VRING_KICK, pack_u64(0), [event_fd()])
        await peer.ask(Request.GET_FEATURES)
        assert len(ours.recv(100)) == 12
        ours.close()
        os.close(memory)


async def test_send_rarp_goes_out_on_the_wire() -> None:
    async with served(pairs=1) as here:
        peer, _ = here.connect()
        await peer.negotiate(here.device)
        await peer.send(Request.SEND_RARP, b"\x52\x54\0\1\2\3\0\0")
        async with asyncio.timeout(DEADLINE):
            frame = (await here.device.netdev.wire(0).receive()).data  # type: ignore[attr-defined]
        assert frame[:14] == b"\xff" * 6 + b"\x52\x54\0\1\2\3" + b"\x80\x35"
        assert frame[20:22] == b"\0\3"
        assert frame[22:28] == b"\x52\x54\0\1\2\3"
        assert len(frame) == 60


async def test_status_says_what_was_agreed() -> None:
    async with served(pairs=1) as here:
        assert here.backend.status() == {"connected": False, "connections": 0}
        peer, _ = here.connect()
        await peer.negotiate(here.device, int(Feature.VERSION_1))
        await peer.ask(Request.GET_FEATURES)
        status = here.backend.status()
        assert status["features"] == ["version_1"]
        assert "reply_ack" in status["protocol_features"]
        assert here.device.status()["features"]["negotiated"] == ["version_1"]
