# SPDX-License-Identifier: MIT
"""A device behind a socket, front-ends that lie to it, and a neighbour that must not notice.

The neighbour is another device in the process, on the same event loop, with a
driver that behaves: `exchange` puts frames under way, runs the attack, and then
wants every frame back.  So it loses none if a worker hangs, and gets none if the
loop does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import pyvnet
from pyvnet.datapath.native import DEFAULT
from pyvnet.errors import UsageError
from pyvnet.spec.features import Feature
from pyvnet.spec.vhost_user import (
    F_PROTOCOL_FEATURES,
    HEADER,
    VRING_NO_FD,
    ConfigSpace,
    RegionDescription,
    Request,
    VringAddress,
    VringState,
    message,
    pack_memory_table,
    pack_region,
    pack_u64,
)
from pyvnet.transport.vhost_user.connection import Backend
from pyvnet.transport.vhost_user.messages import PROTOCOL_FEATURES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    import pytest

    from pyvnet.datapath.native import Native

DEADLINE: Final = 30.0  # a hang guard
PAIRS: Final = 1
CONTROLQ: Final = 2 * PAIRS
GPA: Final = 0x10_0000
UVA: Final = 0x7F00_0000_0000
SIZE: Final = 0x10_0000
REGION: Final = RegionDescription(GPA, SIZE, UVA, 0)
FEATURES: Final = int(Feature.VERSION_1 | Feature.CTRL_VQ | Feature.MRG_RXBUF)


# --- file descriptors of every kind ---------------------------------------------------


def _socket(kept: int) -> int:
    ends = socket.socketpair()
    ends[1 - kept].close()
    return ends[kept].detach()


def _pipe(kept: int) -> int:
    ends = os.pipe()
    os.close(ends[1 - kept])
    return ends[kept]


def _listening() -> int:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("")
    sock.listen()
    return sock.detach()


def _epoll() -> int:
    with select.epoll() as waiting:
        return os.dup(waiting.fileno())


def memory(size: int = SIZE) -> int:
    """Guest memory, with one empty receive buffer on ring 0."""
    fd = os.memfd_create("pyvnet-hostile", os.MFD_CLOEXEC)
    os.truncate(fd, size)
    if size >= SIZE:
        os.pwrite(fd, struct.pack("<QIHH", GPA + 0x8000, 1024, 2, 0), 0)
        os.pwrite(fd, struct.pack("<HHH", 0, 1, 0), 0x1000)
    return fd


FDS: Final[dict[str, Callable[[], int]]] = {
    "eventfd": lambda: os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK),
    "blocking eventfd": lambda: os.eventfd(0, os.EFD_CLOEXEC),
    "full eventfd": lambda: os.eventfd(0xFFFFFFFE, os.EFD_CLOEXEC),
    "memory": memory,
    "short memory": lambda: memory(SIZE - 1),
    "empty memory": lambda: memory(0),
    "socket without peer": lambda: _socket(0),
    "datagram socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
    "listening socket": _listening,
    "pipe without writer": lambda: _pipe(0),
    "pipe without reader": lambda: _pipe(1),
    "file": lambda: os.open(__file__, os.O_RDONLY),
    "directory": lambda: os.open("/", os.O_RDONLY),
    "path": lambda: os.open("/", os.O_PATH),
    "device": lambda: os.open(os.devnull, os.O_RDWR),
    "epoll": _epoll,
}


# --- what a front-end says ------------------------------------------------------------


class Said(NamedTuple):
    """One message: its bytes, and the kinds of the fds with its first byte."""

    data: bytes
    fds: tuple[str, ...] = ()

    @property
    def request(self) -> int:
        """What the message is."""
        number: int = HEADER.unpack_from(self.data)[0]
        return number


ANSWERED: Final = frozenset(
    {Request.GET_FEATURES, Request.GET_PROTOCOL_FEATURES, Request.GET_CONFIG}
)


def say(request: int, payload: bytes = b"", *fds: str, need_reply: bool = False) -> Said:
    """A whole message."""
    return Said(message(request, payload, need_reply=need_reply), fds)


def ring(index: int) -> list[Said]:
    """Describe one, start and enable it."""
    at = UVA + index * 0x4000
    return [
        say(Request.SET_VRING_NUM, VringState(index, 64).pack()),
        say(Request.SET_VRING_BASE, VringState(index, 0).pack()),
        say(Request.SET_VRING_ADDR, VringAddress(index, 0, at, at + 0x2000, at + 0x1000).pack()),
        say(Request.SET_VRING_CALL, pack_u64(index), "eventfd"),
        say(Request.SET_VRING_ERR, pack_u64(index), "eventfd"),
        say(Request.SET_VRING_KICK, pack_u64(index), "eventfd"),
        say(Request.SET_VRING_ENABLE, VringState(index, 1).pack()),
    ]


def opening() -> list[Said]:
    """Up to memory."""
    return [
        say(Request.GET_FEATURES),
        say(Request.GET_PROTOCOL_FEATURES),
        say(Request.SET_PROTOCOL_FEATURES, pack_u64(int(PROTOCOL_FEATURES))),
        say(Request.SET_OWNER),
        say(Request.SET_FEATURES, pack_u64(FEATURES | F_PROTOCOL_FEATURES)),
        say(Request.SET_BACKEND_REQ_FD, b"", "socket without peer"),
        say(Request.GET_CONFIG, ConfigSpace(0, 24, 0, bytes(24)).pack()),
        say(Request.SET_MEM_TABLE, pack_memory_table((REGION,)), "memory"),
    ]


def conversation() -> list[Said]:
    """A whole one: three rings run, change while they run, and stop."""
    more = pack_region(RegionDescription(GPA + SIZE, SIZE, UVA + SIZE, 0))
    return [
        *opening(),
        *ring(0),
        *ring(1),
        *ring(CONTROLQ),
        say(Request.ADD_MEM_REG, more, "memory", need_reply=True),
        say(Request.SET_VRING_CALL, pack_u64(1), "eventfd"),
        say(Request.SET_VRING_KICK, pack_u64(0), "eventfd"),
        say(Request.SET_VRING_KICK, pack_u64(CONTROLQ), "eventfd"),
        say(Request.SET_VRING_CALL, pack_u64(0 | VRING_NO_FD)),
        say(Request.SET_VRING_ENABLE, VringState(1, 0).pack()),
        say(Request.REM_MEM_REG, more),
        say(Request.GET_VRING_BASE, VringState(0, 0).pack()),
        say(Request.GET_VRING_BASE, VringState(1, 0).pack()),
        say(Request.RESET_DEVICE),
    ]


class Liar:
    """A front-end's end of the socket."""

    def __init__(self, sock: socket.socket, done: asyncio.Future[str]) -> None:
        self.sock, self.done = sock, done
        self.sock.setblocking(False)

    def utter(self, data: bytes, fds: Iterable[int] = ()) -> bool:
        """Write what the socket takes; fds are closed here.  False: nobody listens any more."""
        given = list(fds)
        try:
            if given:
                socket.send_fds(self.sock, [data], given)
            elif data:
                self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        finally:
            for fd in given:
                os.close(fd)
        return True

    def say(self, said: Said) -> bool:
        """One message, with fds made for it."""
        return self.utter(said.data, [FDS[kind]() for kind in said.fds])

    async def answers(self, turns: int = 200) -> None:
        """Let the back-end read; throw away what it says."""
        for _ in range(turns):
            await asyncio.sleep(0)
            with suppress(BlockingIOError):
                if not self.sock.recv(65536):
                    return

    async def ask(self, request: int, payload: bytes = b"", *fds: str) -> bytes:
        """One message and the payload of its answer."""
        self.say(say(request, payload, *fds))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE):
            head = await loop.sock_recv(self.sock, HEADER.size)
            return await loop.sock_recv(self.sock, HEADER.unpack(head)[2])

    async def over(self, *, abruptly: bool = False) -> str:
        """Hang up, unless the other end has; the back-end's reason.

        What was said is heard to its end, unless it is done ``abruptly``.
        """
        if abruptly:
            self.sock.close()
        else:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
        reason = await self.hung_up()
        self.sock.close()
        return reason

    async def hung_up(self) -> str:
        """Wait for the back-end to end it; its reason."""
        async with asyncio.timeout(DEADLINE):
            return await self.done


# --- the world ------------------------------------------------------------------------


class Neighbour:
    """Another device of the process."""

    FRAMES: Final = 4

    def __init__(self, port: pyvnet.Pair, driver: pyvnet.Driver) -> None:
        self._port, self._driver, self._serial = port, driver, 0

    def _frame(self, number: int) -> bytes:
        head = b"\x02\0\0\0\0\1\x02\0\0\0\0\2\x88\xb5"
        return (head + (self._serial + number).to_bytes(8, "big")).ljust(60, b".")

    def begin(self) -> None:
        """Frames under way, both ways."""
        for number in range(self.FRAMES):
            self._port.wire(0).send(self._frame(number))
            self._driver.send_nowait(self._frame(number))

    async def end(self) -> None:
        """Each of them arrived, in order and whole."""
        for number in range(self.FRAMES):
            frame = await self._driver.receive(timeout=DEADLINE)
            assert frame.data == self._frame(number)
            async with asyncio.timeout(DEADLINE):
                assert (await self._port.wire(0).receive()).data == self._frame(number)
        self._serial += self.FRAMES


class World:
    """The victim, its back-end, and the neighbour."""

    def __init__(
        self,
        device: pyvnet.Device,
        port: pyvnet.Pair,
        neighbour: Neighbour,
        log: pytest.LogCaptureFixture,
    ) -> None:
        self.device, self.port, self.neighbour, self.log = device, port, neighbour, log
        self.backend = Backend(device, name="victim")

    def connect(self) -> Liar:
        """A new front-end."""
        ours, theirs = socket.socketpair()
        try:
            return Liar(theirs, self.backend.serve(ours))
        except UsageError:
            ours.close()
            theirs.close()
            raise

    def lines(self) -> list[str]:
        """Log lines worth an operator's while since the last look."""
        found = [
            record.getMessage()
            for record in self.log.records
            if record.levelno >= logging.WARNING and record.name.startswith("pyvnet")
        ]
        self.log.clear()
        return found

    async def hear(
        self, script: Iterable[Said], *, patiently: bool = False, abruptly: bool = False
    ) -> str:
        """A whole conversation, to its end; what ended it.

        ``patiently``: it is the back-end that is to hang up.
        """
        liar = self.connect()
        for said in script:
            if not liar.say(said):
                break
        if patiently:
            await liar.hung_up()
        return await liar.over(abruptly=abruptly)

    async def works(self) -> None:
        """A front-end that behaves is served: rings run, a frame arrives."""
        liar = self.connect()
        backing, call = memory(), os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            for said in (*opening(), *ring(0), *ring(1), *ring(CONTROLQ)):
                if said.request == Request.SET_MEM_TABLE:
                    liar.utter(said.data, [os.dup(backing)])
                elif said.request not in ANSWERED:
                    liar.say(said)
            liar.utter(message(Request.SET_VRING_CALL, pack_u64(0)), [os.dup(call)])
            assert await liar.ask(Request.GET_FEATURES)
            self.port.wire(0).send(b"\xff" * 60)
            await self._used(backing, call)
            assert os.pread(backing, 60, 0x800C) == b"\xff" * 60
        finally:
            os.close(call)
            os.close(backing)
            await liar.over()

    async def _used(self, backing: int, call: int) -> None:
        loop = asyncio.get_running_loop()
        rung = asyncio.Event()
        loop.add_reader(call, rung.set)
        try:
            async with asyncio.timeout(DEADLINE):
                while not os.pread(backing, 4, 0x2002)[0]:
                    await rung.wait()
                    rung.clear()
                    with suppress(BlockingIOError):
                        os.eventfd_read(call)
        finally:
            loop.remove_reader(call)


@asynccontextmanager
async def world(log: pytest.LogCaptureFixture, native: Native = DEFAULT) -> AsyncIterator[World]:
    """Both devices; the victim of the build ``native``."""
    port, other = pyvnet.Pair(PAIRS), pyvnet.Pair(1)
    neighbour = pyvnet.Device(netdev=other)
    async with (
        pyvnet.Device(netdev=port, relaxed_dependencies=True, native=native) as device,
        neighbour,
        neighbour.driver() as driver,
    ):
        await driver.negotiate()
        here = World(device, port, Neighbour(other, driver), log)
        try:
            yield here
        finally:
            here.backend.disconnect("the test is over")
