# SPDX-License-Identifier: MIT
"""What the suite is run against.

A target hands out devices, one per case.  ``vhost-user:PATH`` has one device
for everybody, which is connected to anew for each case; the built-in target
makes one for each.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from pyvnet.driver import Driver
from pyvnet.driver.connect import SCHEME, Connecting, opener
from pyvnet.driver.frontend import VhostUserFrontend
from pyvnet.errors import UsageError

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from pyvnet.conformance.wire import Wire
    from pyvnet.spec.vhost_user import ProtocolFeature

BUILTIN: Final = "builtin"


class Operator(Protocol):
    """Whoever stands beside the device."""

    def set_link(self, *, up: bool) -> None:
        """Plug the cable in or out."""
        ...

    def announce(self) -> bool:
        """Ask the driver to announce its addresses; whether it is one that can."""
        ...


class Place(Protocol):
    """One device for one case.

    Attributes:
        wire: the other side of it, if there is one to be had.
        operator: who can pull its cable, if anybody.
        connect: makes a raw connection to a vhost-user back-end, again and again; None where
            the device is reached in another way.
    """

    wire: Wire | None
    operator: Operator | None
    connect: Callable[[], socket.socket] | None

    async def driver(self, timeout: float, **options: Any) -> Driver:  # noqa: ASYNC109 (passed on)
        """A driver on the device, not negotiated; its ``aclose`` lets go of the device.

        Args:
            timeout: seconds the device may take for each answer.
            options: for `Driver`; over vhost-user also those of `VhostUserFrontend`.

        Raises:
            HostError: nobody is there.
            DeviceViolation, ConnectionError, TimeoutError: it does not answer as it should.
        """
        ...


class Target(Protocol):
    """Where devices come from.

    Attributes:
        name: in reports.
        concurrency: cases it can take side by side.
        shared: all places are the same device: where it dies, it has died for all.
    """

    name: str
    concurrency: int
    shared: bool

    async def open(self) -> None:
        """Get ready; once per run.  Raises HostError or UsageError when it cannot be."""
        ...

    async def aclose(self) -> None:
        """Let go; harmless twice."""
        ...

    def place(self) -> AbstractAsyncContextManager[Place]:
        """A device for one case."""
        ...


async def dial(
    connect: Callable[[], socket.socket],
    *,
    timeout: float,  # noqa: ASYNC109 (of each answer)
    protocol_features: ProtocolFeature | None = None,
    pairs: int | None = None,
    plain: bool = False,
    **options: Any,
) -> Driver:
    """A driver that can also reconnect; errors are those of `Driver.connect`."""
    frontend = VhostUserFrontend(
        connect, protocol_features=protocol_features, timeout=timeout, pairs=pairs, plain=plain
    )
    return await Connecting(frontend, lambda way: Driver(way, **options))


@dataclass(slots=True)
class _Shared:
    """The device everybody uses."""

    wire: Wire | None
    connect: Callable[[], socket.socket] | None
    _dial: Callable[[], socket.socket]
    _pairs: int
    operator: Operator | None = None

    async def driver(self, timeout: float, **options: Any) -> Driver:  # noqa: ASYNC109 (passed on)
        return await dial(self._dial, timeout=timeout, **({"pairs": self._pairs} | options))


class VhostUser:
    """A back-end that listens at a path.

    Args:
        target: ``vhost-user:PATH`` or a path.
        wire: the other side of it, opened and closed with the target.
        pairs: queue pairs the machine has at most, where the back-end keeps no configuration
            space that says so.
    """

    concurrency = 1
    shared = True

    def __init__(
        self, target: str | os.PathLike[str], wire: Wire | None = None, *, pairs: int = 4
    ) -> None:
        path = os.fspath(target).removeprefix(SCHEME)
        self.name = SCHEME + path
        self._wire = wire
        self._pairs = pairs
        self._connect = opener(path)

    async def open(self) -> None:
        """Open the wire."""
        if self._wire is not None:
            await self._wire.open()

    async def aclose(self) -> None:
        """Close the wire."""
        if self._wire is not None:
            await self._wire.aclose()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """The one device there is."""
        yield _Shared(self._wire, self._connect, self._connect, self._pairs)


def check_name(target: str) -> None:
    """Raise UsageError for what no target is called."""
    if target != BUILTIN and not target.startswith(SCHEME):
        raise UsageError(f"{target!r} is no target: {SCHEME}PATH or {BUILTIN}")
