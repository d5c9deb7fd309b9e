# SPDX-License-Identifier: MIT
"""Hash types, hash reports, and the payloads of MQ_RSS_CONFIG and MQ_HASH_CONFIG.

Codec only: what a device accepts is decided in ``device/steering.py``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

MAX_KEY_SIZE: Final = 40
MAX_TABLE_LENGTH: Final = 128

# Microsoft's RSS verification suite key, the default of tools in this field.
VERIFICATION_KEY: Final = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)


class HashType(IntFlag):
    """``VIRTIO_NET_HASH_TYPE_*``."""

    NONE = 0
    IPV4 = 1 << 0
    TCPV4 = 1 << 1
    UDPV4 = 1 << 2
    IPV6 = 1 << 3
    TCPV6 = 1 << 4
    UDPV6 = 1 << 5
    IP_EX = 1 << 6
    TCP_EX = 1 << 7
    UDP_EX = 1 << 8


ALL_HASH_TYPES: Final = HashType(0x1FF)


class HashReport(IntEnum):
    """``VIRTIO_NET_HASH_REPORT_*``; the type's bit is ``1 << (report - 1)``."""

    NONE = 0
    IPV4 = 1
    TCPV4 = 2
    UDPV4 = 3
    IPV6 = 4
    TCPV6 = 5
    UDPV6 = 6
    IPV6_EX = 7
    TCPV6_EX = 8
    UDPV6_EX = 9


# Names as users see them (JSON of `pyvnet hash`, `pyvnet demo`), index = report value.
REPORT_NAMES: Final = (
    None, "IPv4", "TCPv4", "UDPv4", "IPv6", "TCPv6", "UDPv6", "IP_EX", "TCP_EX", "UDP_EX",
)  # fmt: skip

# Bytes of key a hash type consumes: input length + 4.
KEY_BYTES: Final[dict[HashType, int]] = {
    HashType.IPV4: 12,
    HashType.TCPV4: 16,
    HashType.UDPV4: 16,
    HashType.IPV6: 36,
    HashType.IP_EX: 36,
    HashType.TCPV6: 40,
    HashType.UDPV6: 40,
    HashType.TCP_EX: 40,
    HashType.UDP_EX: 40,
}


def key_bytes_needed(hash_types: HashType) -> int:
    """Key bytes the widest of ``hash_types`` consumes; 0 for none."""
    return max((size for bit, size in KEY_BYTES.items() if hash_types & bit), default=0)


def hash_type_names(hash_types: int) -> list[str]:
    """Lower-case names, lowest bit first."""
    return [str(bit.name).lower() for bit in HashType if bit and hash_types & bit]


def hash_types_from_names(names: str) -> HashType:
    """Parse a comma-separated list of lower-case names; raises ValueError on an unknown one."""
    types = HashType.NONE
    for word in filter(None, (part.strip() for part in names.split(","))):
        if word.upper() not in HashType.__members__:
            known = ",".join(hash_type_names(ALL_HASH_TYPES))
            message = f"unknown hash type {word!r}; known: {known}"
            raise ValueError(message)
        types |= HashType[word.upper()]
    return types


class ShortPayloadError(ValueError):
    """The payload ends before the structure does."""


def _need(data: bytes, size: int) -> None:
    if len(data) < size:
        message = f"{len(data)} of at least {size} bytes"
        raise ShortPayloadError(message)


@dataclass(frozen=True, slots=True)
class RssConfig:
    """``struct virtio_net_rss_config``.

    ``indirection_table`` and ``unclassified_queue`` hold receive queue pair
    numbers (0-based).  ``indirection_table_mask`` is normally derived; give it
    to send a lie.
    """

    hash_types: int
    indirection_table: tuple[int, ...]
    key: bytes
    unclassified_queue: int = 0
    max_tx_vq: int = 1
    indirection_table_mask: int | None = None
    key_length: int | None = None

    def pack(self) -> bytes:
        """Bytes on the wire, as Linux sends them."""
        mask = self.indirection_table_mask
        mask = len(self.indirection_table) - 1 if mask is None else mask
        length = len(self.key) if self.key_length is None else self.key_length
        table = self.indirection_table
        head = struct.pack("<IHH", self.hash_types, mask, self.unclassified_queue)
        return (
            head
            + struct.pack(f"<{len(table)}H", *table)
            + struct.pack("<HB", self.max_tx_vq, length)
            + self.key
        )

    @classmethod
    def parse(cls, data: bytes) -> tuple[RssConfig, int]:
        """Decode a payload; returns the value and how many bytes follow its end (U-06).

        The table has mask + 1 entries, computed without wrapping (U-09).
        Raises ShortPayloadError when bytes are missing (U-04).
        """
        _need(data, 8)
        hash_types, mask, unclassified = struct.unpack_from("<IHH", data)
        offset = 8 + 2 * (mask + 1)
        _need(data, offset + 3)
        table = struct.unpack_from(f"<{mask + 1}H", data, 8)
        max_tx_vq, key_length = struct.unpack_from("<HB", data, offset)
        offset += 3
        key = data[offset : offset + key_length]
        if len(key) < key_length:
            message = f"hash key of {key_length} bytes is cut to {len(key)}"
            raise ShortPayloadError(message)
        config = cls(hash_types, table, key, unclassified, max_tx_vq)
        return config, len(data) - offset - key_length


@dataclass(frozen=True, slots=True)
class HashConfig:
    """``struct virtio_net_hash_config``; ``reserved`` is ignored by the device (U-18)."""

    hash_types: int
    key: bytes
    reserved: tuple[int, int, int, int] = (0, 0, 0, 0)
    key_length: int | None = None

    def pack(self) -> bytes:
        """Bytes on the wire."""
        length = len(self.key) if self.key_length is None else self.key_length
        return struct.pack("<I4HB", self.hash_types, *self.reserved, length) + self.key

    @classmethod
    def parse(cls, data: bytes) -> tuple[HashConfig, int]:
        """Decode a payload; returns the value and the number of surplus bytes."""
        _need(data, 13)
        hash_types, *reserved, key_length = struct.unpack_from("<I4HB", data)
        key = data[13 : 13 + key_length]
        if len(key) < key_length:
            message = f"hash key of {key_length} bytes is cut to {len(key)}"
            raise ShortPayloadError(message)
        a, b, c, d = reserved
        return cls(hash_types, key, (a, b, c, d)), len(data) - 13 - key_length
