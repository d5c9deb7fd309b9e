# SPDX-License-Identifier: MIT
"""What a transport needs of the runtime that carries out the device's transitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyvnet.device.device import VirtioNetDevice
    from pyvnet.device.transition import Transition
    from pyvnet.spec.transport import MemoryRegion, QueueSetup


class DeviceHost(Protocol):
    """A device with a data plane under it.

    Calls come from the event loop's thread, return when done, and take some
    hundred microseconds at most.
    """

    @property
    def device(self) -> VirtioNetDevice:
        """The model; a transport reads it and asks it for transitions."""

    def perform(self, transition: Transition) -> None:
        """Apply a transition's effects in order, then commit it; raises HostError."""

    def set_memory(self, regions: Sequence[MemoryRegion]) -> None:
        """Swap the guest memory table; on FrontendError or HostError the old one stays."""

    def start_queue(self, setup: QueueSetup) -> None:
        """Start a stopped ring; raises DriverError, HostError or UsageError."""

    def stop_queue(self, index: int) -> tuple[int, int]:
        """Stop a ring; returns (avail_base, used_base) to resume it with."""

    def attach(self, notify_config: Callable[[], None]) -> None:
        """Take the device for one driver; raises UsageError when it has one already."""

    def detach(self) -> None:
        """The driver has gone: reset the device and free it for the next one."""
