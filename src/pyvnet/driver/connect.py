# SPDX-License-Identifier: MIT
"""From an address to a driver: ``vhost-user:/run/x.sock``, and what else may stand for it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Final

from pyvnet.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

    from pyvnet.driver.driver import Driver
    from pyvnet.driver.frontend import VhostUserFrontend

SCHEME: Final = "vhost-user:"
Target = str | os.PathLike[str] | socket.socket | int


def opener(target: Target) -> Callable[[], socket.socket]:
    """How to get a connected socket for ``target``.

    A path can be connected to again and again, a socket or an fd, which is taken
    over, once.
    """
    if isinstance(target, int | socket.socket):
        given = [socket.socket(fileno=target) if isinstance(target, int) else target]

        def take() -> socket.socket:
            if not given:
                raise UsageError("the socket given has been used up; reconnecting needs a path")
            return given.pop()

        return take
    path = os.fspath(target).removeprefix(SCHEME)
    if not path:
        raise UsageError(f"{target!r} names no socket: {SCHEME}PATH or PATH")
    return lambda: _connect(path)


def _connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)  # a listener whose backlog is full says so instead of waiting
        sock.connect(path)
    except OSError as error:
        sock.close()
        cure = "start the back-end first (pyvnet serve), or look whether the path is right"
        raise HostError(f"no vhost-user back-end at {path}", error.errno, cure) from error
    return sock


class Connecting:
    """A driver about to be connected: ``await`` it, or use it in ``async with``."""

    def __init__(
        self, frontend: VhostUserFrontend, make: Callable[[VhostUserFrontend], Driver]
    ) -> None:
        self._frontend = frontend
        self._make = make
        self._driver: Driver | None = None

    def __await__(self) -> Generator[Any, None, Driver]:
        return self._open().__await__()

    async def _open(self) -> Driver:
        try:
            await self._frontend.open()
        except BaseException:
            await self._frontend.aclose()
            raise
        return self._make(self._frontend)

    async def __aenter__(self) -> Driver:
        self._driver = await self._open()
        return self._driver

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._driver is not None:
            await self._driver.aclose()
