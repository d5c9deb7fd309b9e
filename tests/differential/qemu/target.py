# SPDX-License-Identifier: MIT
"""QEMU's device as a target of the conformance suite: not over vhost-user, but over qtest."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from pyvnet.conformance.packet_socket import PacketSocket
from pyvnet.conformance.wires import TapWire
from pyvnet.driver import Driver
from tests.differential.qemu.machine import NAME, Machine
from tests.differential.qemu.sides import QUEUE_SIZE

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable

    from pyvnet.conformance.target import Operator, Place
    from pyvnet.conformance.wire import Wire

DRIVER_QUEUE: Final = 256  # what a driver asks for that was not told otherwise


class SmallDriver(Driver):
    """A driver whose queues fit a device with a small control queue, unless told otherwise."""

    async def negotiate(self, *args: Any, **options: Any) -> None:
        """As `Driver.negotiate`."""
        options["queue_size"] = min(options.get("queue_size", DRIVER_QUEUE), QUEUE_SIZE)
        await super().negotiate(*args, **options)


class MachineWire(TapWire):
    """The kernel's side of the machine's tap."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(NAME)
        self._machine = machine

    async def open(self) -> None:
        """Bind to it, in its network namespace."""
        self._socket = self._machine.netns.call(lambda: PacketSocket(NAME))


class MachineOperator:
    """Whoever sits at QEMU's monitor."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def set_link(self, *, up: bool) -> None:
        """Plug the cable in or out."""
        self._machine.tell(f"set_link nic0 {'on' if up else 'off'}")

    def announce(self) -> bool:
        """Ask for announcements, as QEMU does after a migration."""
        self._machine.tell("announce_self")
        return True


class MachinePlace:
    """The one device there is."""

    def __init__(self, machine: Machine, wire: Wire) -> None:
        self.wire: Wire | None = wire
        self.operator: Operator | None = MachineOperator(machine)
        self.connect: Callable[[], socket.socket] | None = None
        self._machine = machine

    async def driver(self, timeout: float, **options: Any) -> Driver:  # noqa: ASYNC109 (contract)
        """A driver over qtest; ``timeout`` is for back-ends that answer messages."""
        del timeout
        options.pop("protocol_features", None)
        return self._machine.driver(SmallDriver, **options)


class _Seat:
    """A machine with its wire, of which a case has the use; a dead one is replaced."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._stack = AsyncExitStack()
        self.machine: Machine | None = None

    async def place(self) -> MachinePlace:
        if self.machine is None or not self.machine.alive:
            await self.leave()
            self.machine = await self._stack.enter_async_context(Machine(**self._options))
            self.wire = MachineWire(self.machine)
            await self.wire.open()
            self._stack.push_async_callback(self.wire.aclose)
        return MachinePlace(self.machine, self.wire)

    async def leave(self) -> None:
        self.machine = None
        await self._stack.aclose()


class QemuTarget:
    """A few machines, which the cases take in turn.

    Args:
        concurrency: how many.
        options: for `Machine`.
    """

    name = "qemu over qtest"
    shared = False

    def __init__(self, concurrency: int = 4, **options: Any) -> None:
        self.concurrency = concurrency
        self._options = options
        self._seats: list[_Seat] = []
        self._free: asyncio.Queue[_Seat] = asyncio.Queue()

    async def open(self) -> None:
        """Nothing: a machine starts with the first case that gets it."""
        self._seats = [_Seat(self._options) for _ in range(self.concurrency)]
        for seat in self._seats:
            self._free.put_nowait(seat)

    async def aclose(self) -> None:
        """End them."""
        while self._seats:
            await self._seats.pop().leave()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A device with its cable plugged in."""
        seat = await self._free.get()
        try:
            yield await seat.place()
        finally:
            if seat.machine is not None and seat.machine.alive:
                seat.machine.tell("set_link nic0 on")
            self._free.put_nowait(seat)
