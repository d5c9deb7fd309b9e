# SPDX-License-Identifier: MIT
"""The transport without a wire: a driver in the same process calls the device directly.

Shape: ``driver/transport.py``'s Protocol, kept without importing it (the driver
is an independent reading of the standard and imports nothing of the device).
Memory and notifications are as real as over vhost-user: regions are mapped
from their fds, kicks and calls are eventfds.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from pyvnet.errors import UsageError
from pyvnet.spec.status import DeviceStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.spec.transport import MemoryRegion, QueueSetup
    from pyvnet.transport.base import DeviceHost

_log = logging.getLogger("pyvnet")


class InProcessTransport:
    """One driver's way to a device in this process; raises UsageError if it has a driver."""

    def __init__(self, host: DeviceHost) -> None:
        host.attach(self)
        self._host = host
        self._config_change_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def config_change_fd(self) -> int:
        """Readable after a configuration change notification."""
        return self._config_change_fd

    def config_changed(self) -> None:
        """Pass a configuration change on."""
        os.eventfd_write(self._config_change_fd, 1)

    def memory_lost(self) -> None:
        """The driver shrank its own memory: the rings that lay there break by themselves."""
        _log.warning("guest memory went away while it was mapped")

    def _open(self) -> DeviceHost:
        if self._config_change_fd < 0:
            raise UsageError("this driver has let go of its device")
        return self._host

    async def device_features(self) -> int:
        """Feature bits the device offers."""
        return int(self._open().device.offered)

    async def set_driver_features(self, features: int) -> None:
        """Write the driver's feature bits."""
        host = self._open()
        host.perform(host.device.write_driver_features(features))

    async def get_status(self) -> int:
        """Read the device status field."""
        return int(self._open().device.status)

    async def set_status(self, status: int) -> None:
        """Write the device status field; 0 resets."""
        host = self._open()
        host.perform(host.device.write_status(status))

    async def read_config(self, offset: int, length: int) -> bytes:
        """Read device configuration space."""
        return self._open().device.read_config(offset, length)

    async def config_generation(self) -> int:
        """Changes whenever configuration space may have."""
        return self._open().device.config_generation

    async def set_memory(self, regions: Sequence[MemoryRegion]) -> None:
        """Make these regions the memory the device may touch."""
        self._open().set_memory(regions)

    async def set_queue(self, setup: QueueSetup) -> None:
        """Hand over one virtqueue, or start again one that was stopped."""
        host = self._open()
        if host.device.status & DeviceStatus.DRIVER_OK:
            host.start_queue(setup)
        else:
            host.perform(host.device.configure_queue(setup))

    async def stop_queue(self, index: int) -> tuple[int, int]:
        """Stop one virtqueue."""
        return self._open().stop_queue(index)

    async def aclose(self) -> None:
        """Let go of the device, which is reset; harmless twice."""
        if self._config_change_fd >= 0:
            self._host.detach(reset=True)
            os.close(self._config_change_fd)
            self._config_change_fd = -1
