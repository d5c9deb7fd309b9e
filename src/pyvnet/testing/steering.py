# SPDX-License-Identifier: MIT
"""What decides about queue and hash, from the device or from the command that was sent."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyvnet.errors import UsageError
from pyvnet.spec.features import Feature
from pyvnet.spec.rss import HashType, RssConfig, hash_type_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyvnet.driver.driver import Driver
    from pyvnet.runtime import Device


def rss_config(
    table: Sequence[int], hash_types: int, key: bytes, unclassified_queue: int, pairs: int
) -> RssConfig:
    """The command, whether or not a device may take it; UsageError for what has no place in one."""
    try:
        config = RssConfig(int(hash_types), tuple(table), key, unclassified_queue, max_tx_vq=pairs)
        if not config.indirection_table:
            raise UsageError("an indirection table has one entry at least")
        config.pack()
    except (TypeError, ValueError, struct.error) as error:
        raise UsageError(f"MQ_RSS_CONFIG has no place for this: {error}") from error
    return config


def grounds(config: RssConfig, driver: Driver) -> Iterator[str]:
    """Why a device refuses a command, as far as the standard says so."""
    if not driver.features & Feature.RSS:
        yield "RSS was not negotiated"
        return
    has, pairs = driver.config, driver.pairs
    length = len(config.indirection_table)
    if length & (length - 1):
        yield f"the indirection table has {length} entries, which is no power of two"
    if length > has.rss_max_indirection_table_length:
        most = has.rss_max_indirection_table_length
        yield f"the indirection table has {length} entries; the device takes {most}"
    if absent := sorted({queue for queue in config.indirection_table if queue >= pairs}):
        yield f"the indirection table names queue {absent[0]}; there are {pairs}, from 0 on"
    if config.unclassified_queue >= pairs:
        yield f"unclassified_queue is {config.unclassified_queue}; there are {pairs}, from 0 on"
    if len(config.key) > has.rss_max_key_size:
        yield f"the key has {len(config.key)} bytes; the device takes {has.rss_max_key_size}"
    if strange := config.hash_types & ~has.supported_hash_types:
        names = ", ".join(hash_type_names(strange)) or f"0x{strange:x}"
        yield f"hash types the device does not offer: {names}"


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
