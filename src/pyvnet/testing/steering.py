# SPDX-License-Identifier: MIT
"""What decides about queue and hash, from the device or from the command that was sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyvnet.spec.rss import HashType, RssConfig


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
