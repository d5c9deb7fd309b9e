# SPDX-License-Identifier: MIT
"""The host's side of a guest's NIC: a tap in a namespace, a device on it, a vhost-user socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final, Self

from pyvnet import Device, Feature
from pyvnet.device.settings import IMPLEMENTED
from pyvnet.transport.vhost_user.connection import Backend
from tests.system.support import DRIVER_MAC, tap_in

if TYPE_CHECKING:
    from pathlib import Path

    from pyvnet.datapath.stats import PairStats
    from pyvnet.netdev.netns import NetNamespace

EVERYTHING: Final = IMPLEMENTED & ~Feature.MTU
QUEUES: Final = 4


class Nic:
    """One NIC, for ``async with``; ``settings`` are those of ``Device``."""

    def __init__(
        self, netns: NetNamespace, path: Path, *, tap: str = "vnet0", **settings: Any
    ) -> None:
        self.path = path
        chosen: dict[str, Any] = {"features": EVERYTHING, "mac": DRIVER_MAC} | settings
        self.device = Device(netdev=tap_in(netns, tap, QUEUES), **chosen)
        self.backend = Backend(self.device, name=path.name)
        self._accepting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.device.__aenter__()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.path))
        listener.listen()
        listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(listener))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._accepting
        self.backend.disconnect("the test is over")
        self.device.close()

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                connected, _ = await asyncio.get_running_loop().sock_accept(listener)
                await self.backend.serve(connected)

    def counters(self, pair: int | None = None) -> PairStats:
        """Of one queue pair, or of all together."""
        return self.device.statistics(pair)
