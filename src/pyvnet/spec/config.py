# SPDX-License-Identifier: MIT
"""``struct virtio_net_config``: the 28 bytes of device configuration space."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

_LAYOUT: Final = struct.Struct("<6sHHHIBBHII")
CONFIG_SIZE: Final = 28
assert _LAYOUT.size == CONFIG_SIZE

MAX_QUEUE_PAIRS: Final = 0x8000
MIN_MTU: Final = 68  # what IPv4 needs at least
MIN_MTU_OFFERED: Final = 1280  # what a device should offer at least: IPv6 needs it
MAX_MTU: Final = 65535
MAX_SPEED: Final = 0x7FFFFFFF  # Mbit/s
SPEED_UNKNOWN: Final = 0xFFFFFFFF
DUPLEX_HALF: Final = 0
DUPLEX_FULL: Final = 1
DUPLEX_UNKNOWN: Final = 0xFF


class LinkStatus(IntFlag):
    """The ``status`` field, present with STATUS."""

    DOWN = 0
    LINK_UP = 1
    ANNOUNCE = 2


@dataclass(frozen=True, slots=True)
class NetConfig:
    """Device configuration space, little endian; fields of features not offered are 0."""

    mac: bytes = bytes(6)
    status: int = 0
    max_virtqueue_pairs: int = 0
    mtu: int = 0
    speed: int = 0
    duplex: int = 0
    rss_max_key_size: int = 0
    rss_max_indirection_table_length: int = 0
    supported_hash_types: int = 0
    supported_tunnel_types: int = 0

    def pack(self) -> bytes:
        """The 28 bytes the driver reads."""
        return _LAYOUT.pack(
            self.mac,
            self.status,
            self.max_virtqueue_pairs,
            self.mtu,
            self.speed,
            self.duplex,
            self.rss_max_key_size,
            self.rss_max_indirection_table_length,
            self.supported_hash_types,
            self.supported_tunnel_types,
        )

    @classmethod
    def unpack(cls, data: bytes) -> NetConfig:
        """Parse configuration space; a shorter read (older device) is padded with zeros."""
        return cls(*_LAYOUT.unpack(data[:CONFIG_SIZE].ljust(CONFIG_SIZE, b"\0")))
