# SPDX-License-Identifier: MIT
"""What of a driver can be looked at: its queues, its memory, configuration space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvnet.driver.control import Control
from pyvnet.errors import UsageError
from pyvnet.spec.features import NO_FEATURES
from pyvnet.spec.status import DeviceStatus

if TYPE_CHECKING:
    from pyvnet.driver.config import ConfigWatch
    from pyvnet.driver.memory import GuestMemory
    from pyvnet.driver.queue import DriverQueue, QueueStatistics
    from pyvnet.driver.running import Running
    from pyvnet.spec.config import NetConfig

_NO_CONTROL = Control(None, timeout=None)


class View:
    """The attributes of `Driver` that show what there is; nothing here changes anything.

    Attributes:
        features: what was negotiated.
    """

    def __init__(self, watch: ConfigWatch) -> None:
        self.features = NO_FEATURES
        self._watch = watch
        self._running: Running | None = None
        self._lost: Exception | None = None

    @property
    def running(self) -> Running:
        """Everything there is since negotiation; raises UsageError before it."""
        if self._running is None:
            raise UsageError("negotiate first")
        return self._running

    @property
    def memory(self) -> GuestMemory:
        """The guest memory in use; raises UsageError before negotiation."""
        return self.running.memory

    @property
    def pairs(self) -> int:
        """Queue pairs set up."""
        return self._running.pairs if self._running else 0

    @property
    def receiveqs(self) -> tuple[DriverQueue, ...]:
        """One per pair, for whoever wants to look closer."""
        return self._running.receiveqs if self._running else ()

    @property
    def transmitqs(self) -> tuple[DriverQueue, ...]:
        """One per pair."""
        return self._running.transmitqs if self._running else ()

    @property
    def controlq(self) -> DriverQueue | None:
        """None without CTRL_VQ."""
        return self._running.controlq if self._running else None

    @property
    def queues(self) -> tuple[DriverQueue, ...]:
        """Every queue that is set up, by virtqueue index."""
        return self._running.queues if self._running else ()

    @property
    def ctrl(self) -> Control:
        """Control commands; each raises UsageError where there is no controlq."""
        return self._running.ctrl if self._running else _NO_CONTROL

    def statistics(self) -> tuple[QueueStatistics, ...]:
        """Counters of every queue, by virtqueue index."""
        return tuple(queue.statistics() for queue in self.queues)

    @property
    def config(self) -> NetConfig:
        """Configuration space as it was at negotiation or at the last change notification."""
        return self._watch.config

    @property
    def link_up(self) -> bool:
        """Whether the link is up, as of then; without STATUS it always is."""
        return self._watch.link_up

    @property
    def announce(self) -> bool:
        """Whether the device asks for announcements, to be answered by `Control.announce_ack`."""
        return self._watch.announce

    @property
    def needs_reset(self) -> bool:
        """Whether DEVICE_NEEDS_RESET was set at the last change notification."""
        return bool(self._watch.status & DeviceStatus.DEVICE_NEEDS_RESET)
