# SPDX-License-Identifier: MIT
"""Where front-ends come from: a listening socket, one that is connected, or one we connect to.

Each endpoint gives its back-end one front-end at a time.  ``over`` resolves
when no further one can come; for most that is never.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
from typing import TYPE_CHECKING, Final, Protocol

from pyvnet.daemon import sockets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.transport.vhost_user.connection import Backend

_log = logging.getLogger("pyvnet")

_FIRST_RETRY: Final = 0.02  # seconds
_LAST_RETRY: Final = 1.0
# A connection that lasted less is no success: the next attempt waits longer still.
_STEADY: Final = 1.0
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Endpoint(Protocol):
    """Brings front-ends to a back-end."""

    @property
    def description(self) -> dict[str, str | int]:
        """For status: how front-ends come."""

    @property
    def over(self) -> asyncio.Future[None]:
        """Resolves when no further front-end can come."""

    def start(self, backend: Backend) -> None:
        """Let them come."""

    async def close(self) -> None:
        """Let no more come; the one that is connected stays."""


class Listening:
    """A listening socket; a second front-end is turned away while one is there."""

    def __init__(
        self, listener: socket.socket, label: str, file: sockets.SocketFile | None
    ) -> None:
        self._listener = listener
        self._label = label
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._backend: Backend | None = None
        self.over: asyncio.Future[None] = self._loop.create_future()

    @property
    def description(self) -> dict[str, str | int]:
        """``kind`` and where."""
        return {"kind": "listen", "at": self._label}

    def start(self, backend: Backend) -> None:
        """Accept from now on; those who came before are waiting in the backlog."""
        self._backend = backend
        self._loop.add_reader(self._listener.fileno(), self._accept)
        _log.info("listening at %s", self._label)

    async def close(self) -> None:
        """Stop listening and remove the socket file if it is ours."""
        if self._pause is not None:
            self._pause.cancel()
        if self._backend is not None:
            self._loop.remove_reader(self._listener.fileno())
        if self._file is not None:
            self._file.close()
        self._listener.close()

    def _accept(self) -> None:
        backend = self._backend
        if backend is None or backend.hung_up:
            return  # the last one's end comes first; in the loop's next turn, or the one after
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _SHORTAGES:
                raise
            self._hold_off(error)
            return
        if backend.connected:
            connection.close()
            _log.warning("refused: %s has a front-end already", self._label)
            return
        backend.serve(connection)

    def _hold_off(self, error: OSError) -> None:
        """Out of something: the front-end waits in the backlog, and we must not spin meanwhile."""
        _log.error("cannot accept at %s, trying again: %s", self._label, error.strerror)
        self._loop.remove_reader(self._listener.fileno())
        self._pause = self._loop.call_later(
            _LAST_RETRY, self._loop.add_reader, self._listener.fileno(), self._accept
        )


class Connected:
    """A socket that has its front-end already: served once."""

    def __init__(self, connection: socket.socket, fd: int) -> None:
        self._connection = connection
        self._fd = fd
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def description(self) -> dict[str, str | int]:
        """``kind`` and the fd."""
        return {"kind": "connected", "fd": self._fd}

    def start(self, backend: Backend) -> None:
        """Serve it."""
        _log.info("fd %d is connected: serving this front-end and no other", self._fd)
        backend.serve(self._connection).add_done_callback(self._ended)

    async def close(self) -> None:
        """Close the socket if it was never served."""
        self._connection.close()

    def _ended(self, _: asyncio.Future[str]) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Connecting:
    """Connects to a front-end that listens, whenever there is none connected; never gives up."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self.over: asyncio.Future[None] = self._loop.create_future()

    @property
    def description(self) -> dict[str, str | int]:
        """``kind`` and where."""
        return {"kind": "connect", "at": self._path}

    def start(self, backend: Backend) -> None:
        """Connect, now and again."""
        self._task = self._loop.create_task(self._run(backend))

    async def close(self) -> None:
        """Connect no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, backend: Backend) -> None:
        waits, said = retry_delays(), False
        while True:
            try:
                connection = await self._connect()
            except OSError as error:
                if not said:
                    reason = error.strerror or "its backlog is full"
                    _log.warning("cannot connect to %s: %s; trying on", self._path, reason)
                    said = True
            else:
                _log.info("connected to %s", self._path)
                said = False
                began = self._loop.time()
                await backend.serve(connection)
                if self._loop.time() - began >= _STEADY:
                    waits = retry_delays()
            await asyncio.sleep(next(waits))

    async def _connect(self) -> socket.socket:
        """A connected socket; raises OSError.  A local connect succeeds or fails at once."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(self._path)
        except BaseException:
            connection.close()
            raise
        return connection


def retry_delays() -> Iterator[float]:
    """Seconds to wait before each attempt: doubling up to about one, without end (PF-F-10)."""
    for attempt in itertools.count():
        yield min(_FIRST_RETRY * 2 ** min(attempt, 16), _LAST_RETRY)


def of_fd(fd: int) -> Endpoint:
    """The endpoint an inherited fd makes; raises HostError for one that makes none."""
    found = sockets.inherited(fd)
    if sockets.is_listening(found):
        return Listening(found, f"fd {fd}", None)
    return Connected(found, fd)
