# SPDX-License-Identifier: MIT
"""The two checksums of IP packets."""

from __future__ import annotations

from functools import cache


def internet_checksum(data: bytes) -> int:
    """Of IP, TCP, UDP, ICMP; a sum of 16-bit words with end-around carry is a remainder."""
    total = int.from_bytes(data + bytes(len(data) % 2), "big")
    remainder = total % 0xFFFF
    return 0 if total and not remainder else 0xFFFF - remainder


@cache
def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


def crc32c(data: bytes) -> int:
    """SCTP's checksum (RFC 9260 appendix A)."""
    table = _table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
