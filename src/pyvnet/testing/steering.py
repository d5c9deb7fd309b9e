# SPDX-License-Identifier: MIT
"""What decides about queue and hash, from the device or from the command that was sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyvnet.spec.rss import HashType, RssConfig

if TYPE_CHECKING:
    from pyvnet.runtime import Device


@dataclass(frozen=True, slots=True)
class Steering:
    """Steering in force; without ``rss`` the table means nothing and only reports are made."""

    rss: bool
    hash_types: HashType
    key: bytes
    table: tuple[int, ...]
    unclassified_queue: int
    ex_types_always: bool = False

    @classmethod
    def of_policy(cls, policy: Any) -> Steering:
        """What a device does under this policy: ``device.device.policy`` of an open one."""
        return cls(
            policy.mode == "rss",
            policy.hash_types,
            policy.key,
            policy.indirection_table,
            policy.unclassified_queue,
            policy.ex_types_always,
        )

    @classmethod
    def of_config(cls, config: RssConfig) -> Steering:
        """What a device shall do after this command."""
        table, types = config.indirection_table, HashType(config.hash_types)
        return cls(True, types, config.key, table, config.unclassified_queue)  # noqa: FBT003


class SteeringWatch:
    """What a device does now, worked out anew only when something was commanded."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._state: object = None
        self._known: tuple[object, object] = (None, None)
        self._steering: Steering | None = None

    def now(self) -> Steering:
        """In force for the next frame."""
        state = self._device.device.state
        if self._steering is not None and state is self._state:
            return self._steering
        control, features = self._known
        if self._steering is None or control is not state.control or features != state.features:
            self._known = (state.control, state.features)
            self._steering = Steering.of_policy(self._device.device.policy)
        self._state = state
        return self._steering
