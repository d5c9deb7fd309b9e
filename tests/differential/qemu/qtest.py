# SPDX-License-Identifier: MIT
"""QEMU's qtest protocol: lines on a Unix socket, answers in the order of the questions.

Between the answers come interrupts, once one interrupt controller's inputs are
intercepted: "IRQ raise N", "IRQ lower N".
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


class QtestError(AssertionError):
    """QEMU answered something else than OK, or hung up."""


class Qtest(asyncio.Protocol):
    """``qtest = await Qtest.on(socket)``: memory and ports of a machine without a guest.

    Attributes:
        on_raise: called with the number of each interrupt line that was raised.
    """

    def __init__(self) -> None:
        self.on_raise: Callable[[int], None] = lambda _: None
        self._unread = b""
        self._waiting: deque[Callable[[str | None], None]] = deque()
        self._transport: asyncio.Transport | None = None
        self._ended = asyncio.Event()

    @classmethod
    async def on(cls, connected: socket.socket) -> Qtest:
        """Talk to the QEMU that has the other end, or is about to."""
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_unix_connection(cls, sock=connected)
        return protocol

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in map(bytes.decode, lines):
            if line.startswith("IRQ "):
                _, level, number = line.split()
                if level == "raise":
                    self.on_raise(int(number))
            elif self._waiting:
                self._waiting.popleft()(line)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._ended.set()
        waiting, self._waiting = self._waiting, deque()
        for tell in waiting:
            tell(None)

    # Questions.

    @property
    def connected(self) -> bool:
        """Whether QEMU is there."""
        return self._transport is not None

    def post(self, command: str, tell: Callable[[str | None], None] = lambda _: None) -> None:
        """Send a command; ``tell`` gets its answer, None when QEMU hung up instead."""
        if self._transport is None:
            tell(None)
            return
        self._waiting.append(tell)
        self._transport.write(command.encode() + b"\n")

    async def ask(self, command: str) -> int:
        """Send a command and wait for its answer; the value in it, 0 without one.

        Raises:
            ConnectionError: QEMU is gone.
            QtestError: it does not take the command.
        """
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.post(command, lambda line: None if answer.done() else answer.set_result(line))
        line = await answer
        if line is None:
            raise ConnectionError(f"qemu ended at {command!r}")
        verdict, _, value = line.partition(" ")
        if verdict != "OK":
            raise QtestError(f"{command!r}: {line}")
        return int(value, 0) if value else 0

    async def read(self, address: int, length: int) -> bytes:
        """Bytes of the address space, as one access where it is 1, 2, 4 or 8 of them."""
        access = {1: "b", 2: "w", 4: "l", 8: "q"}.get(length)
        if access is None:
            return b"".join([await self.read(address + i, 1) for i in range(length)])
        value = await self.ask(f"read{access} {address:#x}")
        return value.to_bytes(length, "little")

    async def aclose(self) -> None:
        """Hang up; harmless twice."""
        if self._transport is not None:
            self._transport.close()
            await self._ended.wait()
