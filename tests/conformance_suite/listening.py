# SPDX-License-Identifier: MIT
"""Back-ends at a path that answer every connection in their own way, most of them badly."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tests.driver.scripted_backend import Message, ScriptedBackend, reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Listening:
    """Accepts at ``path`` and hands each back-end to ``spoil`` before it reads a word.

    Attributes:
        connections: so many were made.
    """

    def __init__(self, path: Path, spoil: Callable[[ScriptedBackend], None]) -> None:
        self.connections = 0
        self._spoil = spoil
        self._backends: list[ScriptedBackend] = []
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        self.connections += 1
        backend = ScriptedBackend(accepted=self._socket.accept()[0])
        self._backends.append(backend)
        self._spoil(backend)

    def die(self) -> None:
        """Every connection ends, and nobody listens any more."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for backend in self._backends:
            if backend._sock.fileno() >= 0:
                backend.hang_up()

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self.die()
        for backend in self._backends:
            backend.close()


def answers(request: int, payload: bytes, flags: int = 5) -> Callable[[ScriptedBackend], None]:
    """One answer is replaced."""

    def spoil(backend: ScriptedBackend) -> None:
        backend.answers[request] = lambda _: reply(request, payload, flags)

    return spoil


@contextmanager
def listening(path: Path, spoil: Callable[[ScriptedBackend], None]) -> Iterator[Listening]:
    backend = Listening(path, spoil)
    try:
        yield backend
    finally:
        backend.close()


def says(request: int, data: bytes) -> Callable[[ScriptedBackend], None]:
    """To one request these bytes are sent, whatever they are."""

    def spoil(backend: ScriptedBackend) -> None:
        backend.answers[request] = lambda _: data

    return spoil


def deaf_to(request: int) -> Callable[[ScriptedBackend], None]:
    """One request is read and never answered, nor anything behind it."""

    def spoil(backend: ScriptedBackend) -> None:
        serve = backend._serve
        deaf: list[int] = []

        def count(message: Message) -> None:
            if message.request == request:
                deaf.append(request)
            if not deaf:
                serve(message)

        backend._serve = count  # type: ignore[method-assign]

    return spoil


def slow(seconds: float) -> Callable[[ScriptedBackend], None]:
    """Each message takes so long."""

    def spoil(backend: ScriptedBackend) -> None:
        serve = backend._serve
        loop, free = asyncio.get_running_loop(), 0.0

        def later(message: Message) -> None:
            nonlocal free
            free = max(free, loop.time()) + seconds
            loop.call_at(free, answer, message)

        def answer(message: Message) -> None:
            with suppress(OSError):  # the front-end has lost patience
                serve(message)

        backend._serve = later  # type: ignore[method-assign]

    return spoil


def dies_after(messages: int) -> Callable[[ScriptedBackend], None]:
    """So many messages are served, then the connection is closed."""

    def spoil(backend: ScriptedBackend) -> None:
        serve = backend._serve

        def count(message: Message) -> None:
            if len(backend.messages) > messages:
                backend.hang_up()
            else:
                serve(message)

        backend._serve = count  # type: ignore[method-assign]

    return spoil


def falls_silent_after(messages: int) -> Callable[[ScriptedBackend], None]:
    """So many messages are served; what follows is read and not answered."""

    def spoil(backend: ScriptedBackend) -> None:
        serve = backend._serve

        def count(message: Message) -> None:
            if len(backend.messages) <= messages:
                serve(message)

        backend._serve = count  # type: ignore[method-assign]

    return spoil


class RingWriter:
    """Writes into the used rings it is given, as soon as each is started.

    Args:
        backend: the connection it listens to.
        element: the used element: id and length.
        idx: used.idx afterwards.
        number: of the virtqueue; others are left alone.
    """

    def __init__(
        self, backend: ScriptedBackend, element: tuple[int, int], idx: int, number: int
    ) -> None:
        self._element = element
        self._idx = idx
        self._number = number
        self._regions: list[tuple[int, int, int, int]] = []
        self._used = 0
        self._call = -1
        for request, heed in ((5, self._table), (9, self._address), (13, self._called)):
            backend.answers[request] = self._obeying(backend, heed)
        backend.answers[18] = self._obeying(backend, self._enabled)

    @staticmethod
    def _obeying(
        backend: ScriptedBackend, heed: Callable[[Message], None]
    ) -> Callable[[Message], bytes | None]:
        def answer(message: Message) -> bytes | None:
            heed(message)
            return backend._answer(message)

        return answer

    def _table(self, message: Message) -> None:
        count = struct.unpack_from("=I", message.payload)[0]
        self._regions = []
        for i in range(count):
            _, size, uva, offset = struct.unpack_from("=QQQQ", message.payload, 8 + 32 * i)
            self._regions.append((uva, size, offset, message.fds[i]))

    def _address(self, message: Message) -> None:
        index, _, _, used, _, _ = struct.unpack("=IIQQQQ", message.payload)
        if index == self._number:
            self._used = used

    def _called(self, message: Message) -> None:
        if struct.unpack("=Q", message.payload)[0] == self._number:
            self._call = message.fds[0]

    def _enabled(self, message: Message) -> None:
        index, on = struct.unpack("=II", message.payload)
        if index != self._number or not on:
            return
        for uva, size, offset, fd in self._regions:
            if uva <= self._used < uva + size:
                with mmap.mmap(fd, 0) as memory:
                    at = self._used - uva + offset
                    struct.pack_into("=II", memory, at + 4, *self._element)
                    struct.pack_into("=H", memory, at + 2, self._idx)
                os.eventfd_write(self._call, 1)
