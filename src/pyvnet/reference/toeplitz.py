# SPDX-License-Identifier: MIT
"""The Toeplitz hash, bit by bit as Microsoft's RSS specification describes it (NET-HASH-09)."""

from __future__ import annotations


def toeplitz(key: bytes, data: bytes) -> int:
    """Hash ``data``; returns 0 to 2**32 - 1.

    For each bit of ``data`` that is set, most significant first, the 32 key
    bits beginning at the same position are added without carry.  Key and data
    are raw bytes in the order they lie in (U-30); a key too short for the data
    is extended with zero bits (U-13), so any length of either is allowed.
    """
    width = 8 * len(data) + 32
    extended_key = key.ljust(len(data) + 4, b"\0")[: len(data) + 4]
    key_bits = int.from_bytes(extended_key, "big")
    result = 0
    for position in range(8 * len(data)):
        bit = data[position // 8] >> (7 - position % 8) & 1
        if bit:
            result ^= key_bits >> (width - 32 - position) & 0xFFFFFFFF
    return result
