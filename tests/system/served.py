# SPDX-License-Identifier: MIT
"""A device behind a vhost-user socket, in this process, where its counters can be read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Self

from pyvnet import Device
from pyvnet.transport.vhost_user.connection import Backend
from tests.system.program import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from pyvnet import NetDevice
    from pyvnet.datapath.stats import PairStats


class Served:
    """``async with Served(netdev, path, queues)``: a device that front-ends find at ``path``.

    ``cpus`` is where its workers run; none: anywhere.
    """

    def __init__(
        self, netdev: NetDevice, path: Path, queues: int, cpus: Collection[int] = ()
    ) -> None:
        self.device = Device(netdev=netdev, queues=queues, relaxed_dependencies=True)
        self.backend = Backend(self.device, name=path.stem)
        self._path = path
        self._cpus = cpus
        self._listener: socket.socket | None = None

    async def __aenter__(self) -> Self:
        """Open the device; listen, unless somebody else does."""
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cpus or allowed)
        try:
            await self.device.__aenter__()  # the workers stay where they start
        finally:
            os.sched_setaffinity(0, allowed)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the front-end go, then the device."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        self.backend.disconnect("the test is over")
        self.device.close()

    def listen(self) -> None:
        """Take front-ends, one after the other."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(str(self._path))
        self._listener.listen()
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        assert self._listener
        self.backend.serve(self._listener.accept()[0])

    async def connect(self) -> asyncio.Future[str]:
        """Go to a front-end as soon as it listens; what resolves when it is over."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                front = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                with contextlib.ExitStack() as undo:
                    undo.callback(front.close)
                    front.setblocking(False)
                    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                        await asyncio.get_running_loop().sock_connect(front, str(self._path))
                        undo.pop_all()
                        return self.backend.serve(front)
                await asyncio.sleep(0)  # it may be starting

    @property
    def counted(self) -> PairStats:
        """The device's counters, all queues together."""
        return self.device.statistics()

    async def until(self, done: Callable[[PairStats], bool]) -> PairStats:
        """Look after every round of the workers until the counters are so."""
        async with asyncio.timeout(TIMEOUT):
            while not done(counted := self.counted):
                for pair in range(self.device.engine.workers):
                    self.device.engine.queue_state(2 * pair)
                await asyncio.sleep(0)
        return counted
