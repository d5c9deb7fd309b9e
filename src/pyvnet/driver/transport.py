# SPDX-License-Identifier: MIT
"""What the driver needs of whatever carries it to a device.

The calls mirror "Basic Facilities of a Virtio Device": feature bits, status
field, configuration space, virtqueues.  Notifications are not calls: they are
eventfds, created and owned by the driver, which passes them in `QueueSetup`;
a transport that keeps one duplicates it.

A call returns when the device has done what it asks for.  Errors of the way
there (a lost connection, a refused message) come up as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.spec.transport import MemoryRegion, QueueSetup


class Transport(Protocol):
    """One device as seen by one driver.

    The driver's order is: status 0, ACKNOWLEDGE, DRIVER, features, FEATURES_OK,
    configuration, memory, queues, DRIVER_OK; later queue verbs and
    configuration reads at will; status 0 again to reset.
    """

    @property
    def config_change_fd(self) -> int:
        """An eventfd of the transport, readable after a configuration change notification.

        The driver drains it.  It stays valid until `aclose` and is the transport's to close.
        """
        ...

    async def device_features(self) -> int:
        """Feature bits the device offers; more than 64 where the transport can carry them."""
        ...

    async def set_driver_features(self, features: int) -> None:
        """Write the driver's feature bits; whether they suit shows in FEATURES_OK."""
        ...

    async def get_status(self) -> int:
        """Read the device status field."""
        ...

    async def set_status(self, status: int) -> None:
        """Write the device status field; 0 resets the device and all its queues."""
        ...

    async def read_config(self, offset: int, length: int) -> bytes:
        """Read device configuration space; a read past its end comes back short or zero."""
        ...

    async def config_generation(self) -> int:
        """A number that changes whenever configuration space may have."""
        ...

    async def set_memory(self, regions: Sequence[MemoryRegion]) -> None:
        """Make these regions, and no others, the memory the device may touch.

        The fds stay the caller's and may be closed once this returned.
        """
        ...

    async def set_queue(self, setup: QueueSetup) -> None:
        """Hand over one virtqueue; the device serves it from DRIVER_OK on.

        After DRIVER_OK: starts a queue that `stop_queue` has stopped.
        """
        ...

    async def stop_queue(self, index: int) -> tuple[int, int]:
        """Stop one virtqueue; returns (avail_base, used_base) to resume it with.

        When it returns, the queue's memory and eventfds are no longer touched.
        """
        ...

    async def aclose(self) -> None:
        """Let go of the device; harmless when done twice."""
        ...
