# SPDX-License-Identifier: MIT
"""Our own device as a target: one for each case, on a socket-pair port, over vhost-user.

No privilege, no files, and no case sees what another did; so cases run side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from pyvnet.conformance.case import NotApplicable
from pyvnet.conformance.target import BUILTIN, Place, dial
from pyvnet.conformance.wire import WireFrame
from pyvnet.datapath.native import DEFAULT, Native
from pyvnet.netdev import Pair
from pyvnet.runtime import Device
from pyvnet.transport.vhost_user.connection import Backend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pyvnet.conformance.target import Operator
    from pyvnet.conformance.wire import Wire
    from pyvnet.driver import Driver
    from pyvnet.netdev.pair import Wire as PortWire

PAIRS: Final = 4
MTU: Final = 1500


class PairWire:
    """The far ends of a socket-pair port."""

    carries_header = True
    names_queue = True

    def __init__(self, port: Pair) -> None:
        self._port = port

    @property
    def queues(self) -> int:
        """One per queue pair."""
        return self._port.queues

    def describe(self) -> str:
        """What reports call it."""
        return "the device's own socket-pair port"

    async def open(self) -> None:
        """Nothing: it is open with its device."""

    async def aclose(self) -> None:
        """Nothing."""

    async def begin(self, driver: Driver) -> None:
        """Nothing: its device was made for this case."""

    async def send(self, frame: bytes, header: bytes | None = None, queue: int = 0) -> None:
        """Send a frame into one queue of the port."""
        if not 0 <= queue < self.queues:
            raise NotApplicable(f"the wire has {self.queues} queues, none is number {queue}")
        self._port.wire(queue).send(frame, header)

    async def receive(self, within: float) -> WireFrame:
        """The next frame out of any queue."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        wires = [self._port.wire(queue) for queue in range(self.queues)]
        for wire in wires:
            loop.add_reader(wire.fileno(), ready.set)
        try:
            async with asyncio.timeout(within):
                while (frame := _next(wires)) is None:
                    ready.clear()
                    await ready.wait()
                return frame
        finally:
            for wire in wires:
                loop.remove_reader(wire.fileno())


def _next(wires: list[PortWire]) -> WireFrame | None:
    for queue, wire in enumerate(wires):
        with contextlib.suppress(BlockingIOError):
            return WireFrame(*wire.recv(), queue)
    return None


class BuiltinPlace:
    """A device that serves one case."""

    def __init__(self, device: Device, port: Pair, *, direct: bool) -> None:
        self._device = device
        self._direct = direct
        self.wire: Wire | None = PairWire(port)
        self.operator: Operator | None = device
        self.connect: Callable[[], socket.socket] | None = self._connect
        self._backend = Backend(device, name=BUILTIN)

    def _connect(self) -> socket.socket:
        near, far = socket.socketpair()
        self._backend.disconnect("another connection is made")
        self._backend.serve(far)
        return near

    async def driver(self, timeout: float, **options: Any) -> Driver:  # noqa: ASYNC109 (passed on)
        """A driver over vhost-user, or in this process."""
        if self._direct:
            self._backend.disconnect("another driver comes")
            return self._device.driver(**options)
        return await dial(self._connect, timeout=timeout, **options)

    def close(self) -> None:
        """Hang up on whoever is left."""
        self._backend.disconnect("the case is over")


class Builtin:
    """A target that makes its devices.

    Args:
        native: another build of the engine.
        mutate: called with each device before it opens, to break it.
        direct: reach the device by calls in this process, which costs half as much; only cases
            about vhost-user itself go over it then.
        settings: for `pyvnet.Device`, over what is chosen here.
    """

    name = BUILTIN
    concurrency = 8
    shared = False

    def __init__(
        self,
        *,
        native: Native = DEFAULT,
        mutate: Callable[[Device], None] | None = None,
        direct: bool = False,
        **settings: Any,
    ) -> None:
        self._native = native
        self._mutate = mutate
        self._direct = direct
        self._settings = {"mtu": MTU, "workers": 1} | settings

    async def open(self) -> None:
        """Nothing to get ready."""

    async def aclose(self) -> None:
        """Nothing is left."""

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A fresh device."""
        port = Pair(PAIRS)
        device = Device(netdev=port, native=self._native, **self._settings)
        if self._mutate is not None:
            self._mutate(device)
        async with device:
            place = BuiltinPlace(device, port, direct=self._direct)
            try:
                yield place
            finally:
                place.close()
