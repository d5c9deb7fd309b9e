# SPDX-License-Identifier: MIT
"""Blocks of a pcapng file, encoded (draft-ietf-opsawg-pcapng).

A block is type, total length, body, total length again, in whole words of
four bytes.  Options follow the fixed fields of a body: code, length, value,
padding; code 0 ends them.  Everything here is little endian, the byte order
the section header announces.
"""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import TYPE_CHECKING, Final

from pyvnet.spec.net_hdr import GsoType, HdrFlag

if TYPE_CHECKING:
    from collections.abc import Iterable

SECTION_HEADER: Final = 0x0A0D0D0A
INTERFACE_DESCRIPTION: Final = 1
INTERFACE_STATISTICS: Final = 5
ENHANCED_PACKET: Final = 6

BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
TOEPLITZ: Final = 5
"""Hash algorithm of `Option.EPB_HASH`: four bytes, in the byte order of the section."""
LINKTYPE_ETHERNET: Final = 1
NANOSECONDS: Final = 9
"""`Option.IF_TSRESOL`: time stamps count units of 10⁻⁹ seconds."""


class Option:
    """Option codes; a code means something in its block only, so numbers occur more than once."""

    COMMENT: Final = 1
    SHB_USERAPPL: Final = 4
    IF_NAME: Final = 2
    IF_DESCRIPTION: Final = 3
    IF_TSRESOL: Final = 9
    EPB_FLAGS: Final = 2
    EPB_HASH: Final = 3
    EPB_DROPCOUNT: Final = 4
    EPB_PACKETID: Final = 5
    EPB_QUEUE: Final = 6
    ISB_STARTTIME: Final = 2
    ISB_ENDTIME: Final = 3
    ISB_IFRECV: Final = 4
    ISB_IFDROP: Final = 5
    ISB_OSDROP: Final = 7
    ISB_USRDELIV: Final = 8


class PacketFlag(IntFlag):
    """The word of `Option.EPB_FLAGS`; direction as the driver sees it."""

    NONE = 0
    INBOUND = 1
    OUTBOUND = 2
    CHECKSUM_NOT_READY = 1 << 9
    CHECKSUM_VALID = 1 << 10
    TCP_SEGMENTATION = 1 << 11


_TCP: Final = (GsoType.TCPV4, GsoType.TCPV6)
_GSO_MASK: Final = 0x7F  # without ECN


def header_flags(flags: int, gso_type: int) -> PacketFlag:
    """What a virtio-net header says of checksum and segmentation, in the words of pcapng."""
    told = PacketFlag.NONE
    if flags & HdrFlag.NEEDS_CSUM:
        told |= PacketFlag.CHECKSUM_NOT_READY
    if flags & HdrFlag.DATA_VALID:
        told |= PacketFlag.CHECKSUM_VALID
    if gso_type & _GSO_MASK in _TCP:
        told |= PacketFlag.TCP_SEGMENTATION
    return told


def option(code: int, value: bytes) -> bytes:
    """One option; ``value`` has 65535 bytes at most."""
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def text_option(code: int, text: str) -> bytes:
    """An option of text; nothing for none."""
    return option(code, text.encode()[:65535]) if text else b""


def block(block_type: int, body: bytes, options: Iterable[bytes] = ()) -> bytes:
    """One block; ``body`` is padded, ``options`` are ended if there are any."""
    encoded = b"".join(options)
    if encoded:
        encoded += bytes(4)
    body = body + bytes(-len(body) % 4) + encoded
    length = len(body) + 12
    return struct.pack("<II", block_type, length) + body + struct.pack("<I", length)


def section_header(application: str, comment: str = "") -> bytes:
    """The block a file begins with; the section goes to the end of the file."""
    return block(
        SECTION_HEADER,
        struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1),
        (text_option(Option.COMMENT, comment), text_option(Option.SHB_USERAPPL, application)),
    )


def interface_description(name: str, description: str = "", snap_length: int = 0) -> bytes:
    """An Ethernet interface with time stamps in nanoseconds; ``snap_length`` 0: whole frames."""
    return block(
        INTERFACE_DESCRIPTION,
        struct.pack("<HHI", LINKTYPE_ETHERNET, 0, snap_length),
        (
            text_option(Option.IF_NAME, name),
            text_option(Option.IF_DESCRIPTION, description),
            option(Option.IF_TSRESOL, bytes([NANOSECONDS])),
        ),
    )


def _timestamp(nanoseconds: int) -> tuple[int, int]:
    return nanoseconds >> 32 & 0xFFFFFFFF, nanoseconds & 0xFFFFFFFF


def enhanced_packet(
    interface: int,
    timestamp_ns: int,
    data: bytes,
    options: Iterable[bytes] = (),
    *,
    original_length: int | None = None,
) -> bytes:
    """A frame of interface number ``interface``, nanoseconds since 1970."""
    length = len(data)
    original = length if original_length is None else original_length
    fixed = struct.pack("<IIIII", interface, *_timestamp(timestamp_ns), length, original)
    return block(ENHANCED_PACKET, fixed + data, options)


def packet_options(
    *,
    flags: int = 0,
    hash_value: int | None = None,
    drops: int = 0,
    packet_id: int | None = None,
    queue: int | None = None,
    comments: Iterable[str] = (),
) -> list[bytes]:
    """Options of a frame.  ``drops``: frames lost since the last one of its interface."""
    options = [text_option(Option.COMMENT, comment) for comment in comments]
    if flags:
        options.append(option(Option.EPB_FLAGS, struct.pack("<I", flags)))
    if hash_value is not None:
        options.append(option(Option.EPB_HASH, struct.pack("<BI", TOEPLITZ, hash_value)))
    if drops:
        options.append(option(Option.EPB_DROPCOUNT, struct.pack("<Q", drops)))
    if packet_id is not None:
        options.append(option(Option.EPB_PACKETID, struct.pack("<Q", packet_id)))
    if queue is not None:
        options.append(option(Option.EPB_QUEUE, struct.pack("<I", queue)))
    return options


def interface_statistics(
    interface: int, timestamp_ns: int, started_ns: int, counts: Iterable[tuple[int, int]]
) -> bytes:
    """Counts of an interface since ``started_ns``, as they are at ``timestamp_ns``."""
    options = [
        option(Option.ISB_STARTTIME, struct.pack("<II", *_timestamp(started_ns))),
        option(Option.ISB_ENDTIME, struct.pack("<II", *_timestamp(timestamp_ns))),
        *(option(code, struct.pack("<Q", count)) for code, count in counts),
    ]
    fixed = struct.pack("<III", interface, *_timestamp(timestamp_ns))
    return block(INTERFACE_STATISTICS, fixed, options)
