# SPDX-License-Identifier: MIT
"""When nothing more can come, by the device's own account.

A frame read from the host port ends in exactly one of ``rx_packets`` and the
``rx_drop_*`` counters (``vnet.h``), and is counted as read before it is counted
there.  So if everything put in was read, both sums agree, and as many frames
were taken from the driver as the device says it placed, none is under way.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pyvnet.runtime import Device
    from pyvnet.testing.wire import Wire

# Frames that somebody else took from the driver are not in our sum; then quiet has to do.
_GRACE: Final = 0.05


class Settling:
    """The account of one device.

    Attributes:
        taken: frames taken from the driver.
        possible: whether it can be said at all that nothing more comes.
    """

    def __init__(self, device: Device | None, wire: Wire) -> None:
        self._device = device
        self._wire = wire
        self.taken = 0
        self.possible = device is not None and wire.private
        self._dropped = 0
        self._injected = wire.injected
        self._quiet_since: float | None = None
        self._before = {} if device is None else asdict(device.statistics())

    def begin(self) -> None:
        """Somebody begins to wait."""
        self._quiet_since = None

    def moved(self) -> dict[str, int]:
        """Counters that moved since the begin; empty without a device."""
        if self._device is None:
            return {}
        now = asdict(self._device.statistics())
        return {name: n - self._before[name] for name, n in now.items() if n != self._before[name]}

    def under_way(self) -> int:
        """Frames put in and not seen again, as of the last look at the counters."""
        return self._wire.injected - self._injected - self.taken - self._dropped

    def done(self, receiveqs: int) -> bool:
        """Look at the counters: whether nothing more can come; ``receiveqs`` are set up."""
        moved = self.moved()
        placed = moved.get("rx_packets", 0)
        self._dropped = sum(n for name, n in moved.items() if name.startswith("rx_drop_"))
        if not self.possible or not receiveqs or self._wire.unread():
            return False
        read = moved.get("rx_port_frames", 0)
        if read < self._wire.injected - self._injected or read != placed + self._dropped:
            self._quiet_since = None
            return False
        if self.taken >= placed:
            return True
        if self._quiet_since is None:
            self._quiet_since = time.monotonic()
        return time.monotonic() - self._quiet_since > _GRACE
