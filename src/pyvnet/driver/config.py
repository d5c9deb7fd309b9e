# SPDX-License-Identifier: MIT
"""Configuration space as the driver sees it, and the notification that it changed.

"Device Configuration Space": fields may change while they are read, so the
generation is compared before and after.  A notification that arrives while the
last one is being looked into is not lost: one more look follows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pyvnet.driver.queue import drain_eventfd
from pyvnet.spec.config import CONFIG_SIZE, LinkStatus, NetConfig
from pyvnet.spec.features import NO_FEATURES, Feature
from pyvnet.spec.status import DeviceStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.driver.transport import Transport


class ConfigWatch:
    """Keeps `config` and `status` as the device last showed them.

    Args:
        transport: the way to the device.
        on_change: called with the new configuration after each notification; what it raises
            comes out of `wait_change`.
        on_lost: called with the reason when a look at the device finds that it is gone.

    Attributes:
        config: configuration space as last read.
        status: device status as of the last notification.
        features: what was negotiated; decides which fields mean something.
    """

    def __init__(
        self,
        transport: Transport,
        on_change: Callable[[NetConfig], None] | None = None,
        on_lost: Callable[[Exception], None] | None = None,
    ) -> None:
        self.config = NetConfig()
        self.status = DeviceStatus.RESET
        self.features = NO_FEATURES
        self._transport = transport
        self._on_change = on_change
        self._on_lost = on_lost
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fd = -1
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._changed = asyncio.Event()
        self._failure: Exception | None = None
        self._stopped: Exception | None = None

    @property
    def link_up(self) -> bool:
        """Whether the link is up; without STATUS it always is."""
        return not self.features & Feature.STATUS or bool(self.config.status & LinkStatus.LINK_UP)

    @property
    def announce(self) -> bool:
        """Whether the device asks the guest to announce itself."""
        asked = bool(self.config.status & LinkStatus.ANNOUNCE)
        return asked and bool(self.features & Feature.GUEST_ANNOUNCE)

    async def read(self) -> NetConfig:
        """Read configuration space in one consistent piece."""
        before = await self._transport.config_generation()
        while True:
            data = await self._transport.read_config(0, CONFIG_SIZE)
            after = await self._transport.config_generation()
            if before == after:
                self.config = NetConfig.unpack(data)
                return self.config
            before = after

    async def wait_change(self) -> NetConfig:
        """Wait for a change that this method has not returned before; returns the new contents."""
        await self._changed.wait()
        if self._stopped is not None:
            raise self._stopped
        self._changed.clear()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return self.config

    def start(self) -> None:
        """Take notifications on the running loop; harmless twice."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._fd = self._transport.config_change_fd
            self._loop.add_reader(self._fd, self._interrupt)

    async def stop(self, reason: Exception) -> None:
        """Take no more notifications; whoever waits for one gets ``reason``.  Harmless twice."""
        self._stopped = reason
        self._changed.set()
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._loop = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _interrupt(self) -> None:
        if not drain_eventfd(self._fd):
            return
        self._again = True
        if self._task is None and self._loop is not None:
            self._task = self._loop.create_task(self._look())

    async def _look(self) -> None:
        try:
            while self._again:
                self._again = False
                self.status = DeviceStatus(await self._transport.get_status())
                config = await self.read()
                if self._on_change is not None:
                    self._on_change(config)
        except Exception as failure:  # noqa: BLE001 (kept for whoever waits)
            self._failure = failure
            if self._on_lost is not None and isinstance(failure, ConnectionError):
                self._on_lost(failure)
        finally:
            self._task = None
        self._changed.set()
