# SPDX-License-Identifier: MIT
"""The frame that tells switches where a guest's address is now (SEND_RARP)."""

from __future__ import annotations

import struct

_BROADCAST = b"\xff" * 6
_ETHERTYPE_RARP = 0x8035
_REVERSE_REQUEST = 3
_MIN_FRAME = 60


def frame(mac: bytes) -> bytes:
    """A RARP request of ``mac`` for its own address, as RFC 903 has it; 60 bytes."""
    head = struct.pack("!6s6sH", _BROADCAST, mac, _ETHERTYPE_RARP)
    body = struct.pack(
        "!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, _REVERSE_REQUEST, mac, bytes(4), mac, bytes(4)
    )
    return (head + body).ljust(_MIN_FRAME, b"\0")
