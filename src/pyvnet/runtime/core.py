# SPDX-License-Identifier: MIT
"""What a device is made of, and what can be read from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvnet.datapath.stats import PairStats
from pyvnet.errors import UsageError

if TYPE_CHECKING:
    from pyvnet.datapath.engine import Engine
    from pyvnet.device.device import VirtioNetDevice
    from pyvnet.netdev import NetDevice
    from pyvnet.runtime.parts import Parts, Plan
    from pyvnet.runtime.rings import Rings
    from pyvnet.runtime.steering import Steering


class DeviceCore:
    """The part of ``Device`` that changes nothing."""

    def __init__(self, plan: Plan, device: VirtioNetDevice) -> None:
        self._plan = plan
        self._device = device
        self._open: Parts | None = None

    @property
    def engine(self) -> Engine:
        """The data plane; raises UsageError outside ``async with``."""
        return self._parts.engine

    @property
    def steering(self) -> Steering:
        """Who steers; raises UsageError outside ``async with``."""
        return self._parts.steering

    @property
    def _rings(self) -> Rings:
        return self._parts.rings

    @property
    def _parts(self) -> Parts:
        if self._open is None:
            raise UsageError("the device is not open: use it in `async with`")
        return self._open

    @property
    def device(self) -> VirtioNetDevice:
        """The device model."""
        return self._device

    @property
    def pairs(self) -> int:
        """Queue pairs the device has."""
        return self._plan.pairs

    @property
    def netdev(self) -> NetDevice:
        """The host port."""
        return self._plan.netdev

    def statistics(self, pair: int | None = None) -> PairStats:
        """Counters of one queue pair, or of all together."""
        if pair is not None:
            return self.engine.statistics(pair)
        return sum((self.engine.statistics(i) for i in range(self.pairs)), PairStats())

    @property
    def steering_owner(self) -> str:
        """Who chooses the receive queue, as status output has it."""
        return self.steering.owner(self._device.policy.mode)
