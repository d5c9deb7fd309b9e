# SPDX-License-Identifier: MIT
"""Capture files put together field by field, in either byte order, right or wrong as asked."""

from __future__ import annotations

import struct

ONE = bytes(range(60))
TWO = bytes(range(100, 175))  # 75 bytes: pcapng pads it


def pcap_header(
    order: str = "<", magic: int = 0xA1B2C3D4, version: tuple[int, int] = (2, 4), linktype: int = 1
) -> bytes:
    return struct.pack(f"{order}IHHiIII", magic, *version, 0, 0, 262144, linktype)


def pcap_record(
    data: bytes, order: str = "<", captured: int | None = None, original: int = 0
) -> bytes:
    captured = len(data) if captured is None else captured
    return struct.pack(f"{order}IIII", 1, 2, captured, original or captured) + data


def block(
    block_type: int,
    body: bytes,
    order: str = "<",
    length: int | None = None,
    trailer: int | None = None,
) -> bytes:
    body += bytes(-len(body) % 4)
    right = 12 + len(body)
    length = right if length is None else length
    trailer = right if trailer is None else trailer
    head = struct.pack(f"{order}II", block_type, length)
    return head + body + struct.pack(f"{order}I", trailer)


def section(order: str = "<", major: int = 1, magic: int = 0x1A2B3C4D) -> bytes:
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", magic, major, 0, -1), order)


def interface(order: str = "<", linktype: int = 1, snap_length: int = 0) -> bytes:
    # With an option (if_name "x") that has to be skipped.
    option = struct.pack(f"{order}HH", 2, 1) + b"x\0\0\0" + bytes(4)
    return block(1, struct.pack(f"{order}HHI", linktype, 0, snap_length) + option, order)


def enhanced(
    data: bytes, order: str = "<", number: int = 0, captured: int | None = None, original: int = 0
) -> bytes:
    captured = len(data) if captured is None else captured
    head = struct.pack(f"{order}IIIII", number, 0, 0, captured, original or captured)
    return block(6, head + data, order)


def obsolete(data: bytes, order: str = "<", number: int = 0) -> bytes:
    head = struct.pack(f"{order}HHIIII", number, 3, 0, 0, len(data), len(data))
    return block(2, head + data, order)


def simple(data: bytes, order: str = "<", original: int | None = None) -> bytes:
    original = len(data) if original is None else original
    return block(3, struct.pack(f"{order}I", original) + data, order)
