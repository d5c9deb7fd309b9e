# SPDX-License-Identifier: MIT
"""Known frames: one for each way a kernel that hashes might be asked to hash."""

from __future__ import annotations

import struct
from typing import Final

# Locally administered addresses, and addresses set aside for benchmarks and documentation.
_ETHERNET: Final = bytes.fromhex("020000000001 020000000002")
_IPV4: Final = bytes.fromhex("c6120001 c6120002")
_IPV6: Final = bytes.fromhex("20010db8" + 11 * "00" + "01" + "20010db8" + 11 * "00" + "02")
_TCP, _UDP, _EXPERIMENT = 6, 17, 253
_PORTS: Final = struct.pack(">HH", 1, 4242)
_SEGMENT: Final = _PORTS + bytes(8) + b"\x50" + bytes(7)
_DATAGRAM: Final = _PORTS + struct.pack(">HH", 8, 0)


def _ipv4(protocol: int, payload: bytes) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    return _ETHERNET + b"\x08\x00" + head + _IPV4 + payload


def _ipv6(protocol: int, payload: bytes) -> bytes:
    head = struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64)
    return _ETHERNET + b"\x86\xdd" + head + _IPV6 + payload


FRAMES: Final = {
    "TCP over IPv4": _ipv4(_TCP, _SEGMENT),
    "UDP over IPv4": _ipv4(_UDP, _DATAGRAM),
    "IPv4": _ipv4(_EXPERIMENT, bytes(20)),
    "TCP over IPv6": _ipv6(_TCP, _SEGMENT),
    "UDP over IPv6": _ipv6(_UDP, _DATAGRAM),
    "IPv6": _ipv6(_EXPERIMENT, bytes(20)),
    "not IP": _ETHERNET + b"\x88\xb5" + bytes(46),  # an EtherType set aside for experiments
}
