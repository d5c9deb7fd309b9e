# SPDX-License-Identifier: MIT
"""Counters of a queue pair, one frozen value per snapshot."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True, slots=True)
class PairStats:
    """``struct vnet_pair_stats``: names, units and invariants are explained in ``vnet.h``.

    rx is towards the driver.  Bytes do not count the virtio header.
    """

    rx_port_frames: int = 0
    rx_packets: int = 0
    rx_bytes: int = 0
    rx_handoffs: int = 0
    rx_resteered: int = 0
    rx_direct: int = 0
    rx_notifications: int = 0
    rx_kicks: int = 0
    rx_drop_overruns: int = 0
    rx_drop_too_big: int = 0
    rx_drop_bad_buffer: int = 0
    rx_drop_queue_off: int = 0
    rx_drop_handoff: int = 0
    rx_drop_filtered: int = 0
    rx_drop_port: int = 0
    rx_drop_offload: int = 0
    rx_drop_mtu: int = 0
    rx_csum_completed: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    tx_notifications: int = 0
    tx_kicks: int = 0
    tx_drop_malformed: int = 0
    tx_drop_port: int = 0
    tx_drop_queue_off: int = 0
    rings_broken: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def rx_drops(self) -> int:
        """All frames read from the host port that no driver saw."""
        return sum(getattr(self, f.name) for f in fields(self) if f.name.startswith("rx_drop_"))

    @property
    def tx_drops(self) -> int:
        """All chains taken from the transmitq that were not sent."""
        return sum(getattr(self, f.name) for f in fields(self) if f.name.startswith("tx_drop_"))


PAIR_STATS_FIELDS = tuple(f.name for f in fields(PairStats))
