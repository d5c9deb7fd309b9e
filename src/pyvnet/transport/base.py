# SPDX-License-Identifier: MIT
"""What a transport needs of the runtime that carries out the device's transitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.device.device import VirtioNetDevice
    from pyvnet.device.transition import Transition
    from pyvnet.spec.transport import MemoryRegion, QueueSetup


class DeviceUser(Protocol):
    """Who has a device in use, and what it wants to hear of it."""

    def config_changed(self) -> None:
        """The driver is to be told that configuration space changed."""

    def memory_lost(self) -> None:
        """Guest memory went away under its mapping; what lay there reads as zero from now on."""


class DeviceHost(Protocol):
    """A device with a data plane under it.

    Calls come from the event loop's thread, return when done, and take some
    hundred microseconds at most.  Ring verbs raise FrontendError for what the
    ring's description is to blame for, HostError for what the machine lacks,
    UsageError for a ring that is not in the state they need.
    """

    @property
    def device(self) -> VirtioNetDevice:
        """The model; a transport reads it and asks it for transitions."""

    @property
    def pairs(self) -> int:
        """Queue pairs the device has."""

    def perform(self, transition: Transition) -> None:
        """Apply a transition's effects in order, then commit it; raises HostError."""

    def set_memory(self, regions: Sequence[MemoryRegion]) -> None:
        """Swap the guest memory table; on FrontendError or HostError the old one stays.

        No regions: guest memory is let go of, and a ring that still runs breaks.
        """

    def start_queue(self, setup: QueueSetup, *, enabled: bool = True) -> None:
        """Start a ring that does not run, after FEATURES_OK."""

    def stop_queue(self, index: int) -> tuple[int, int]:
        """Stop a ring; returns (avail_base, used_base) to resume it with."""

    def enable_queue(self, index: int, *, enabled: bool) -> None:
        """Let a running ring carry frames, or throw away what it is given (U-42)."""

    def move_queue(self, index: int, desc_table: int, avail_ring: int, used_ring: int) -> None:
        """Give a running ring other addresses; on FrontendError it keeps the old ones."""

    def replace_kick(self, index: int, kick_fd: int) -> None:
        """Give a running ring another kick fd, which stays the caller's; -1: none."""

    def replace_calls(self, index: int, call_fd: int, err_fd: int) -> None:
        """Give a running ring other call and err fds, which stay the caller's; -1: none."""

    def send_to_port(self, frame: bytes) -> None:
        """Send one frame to the host's side of the wire, as if a driver had."""

    def attach(self, user: DeviceUser) -> None:
        """Take the device into use; raises UsageError when somebody has it already."""

    def detach(self, *, reset: bool) -> None:
        """Free the device for the next user, reset or as it stands."""
