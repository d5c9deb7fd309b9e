# SPDX-License-Identifier: MIT
"""The pcapng format (draft-ietf-opsawg-pcapng), reading.

Theory of operation
    A file is a sequence of blocks: type, total length, body, total length
    again.  A Section Header Block sets the byte order for the blocks behind
    it and forgets the interfaces of the section before; Interface
    Description Blocks number interfaces from 0 within a section; packet
    blocks name an interface, except the Simple Packet Block, which means
    number 0.  Blocks of other types are skipped.

    An interface of a foreign link type is no error until a frame of it comes:
    files with one such interface beside Ethernet ones are common.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pyvnet.capture.blocks import (
    ENHANCED_PACKET,
    INTERFACE_DESCRIPTION,
    SECTION_HEADER,
    TOEPLITZ,
    Option,
)
from pyvnet.capture.source import CapturedFrame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.capture.source import Source

PACKET: Final = 2  # obsolete, still written by old tools
SIMPLE_PACKET: Final = 3

MAGIC: Final = SECTION_HEADER.to_bytes(4, "big")  # reads the same in both byte orders
_BYTE_ORDERS: Final = {bytes.fromhex("4d3c2b1a"): "<", bytes.fromhex("1a2b3c4d"): ">"}
_MAJOR_VERSION: Final = 1
MAX_BLOCK_LENGTH: Final = 16 * 1024 * 1024
"""Longest block taken; libpcap's limit."""

_REPAIR: Final = "the file is damaged from here on: copy it again, or repair it with pcapfix"


@dataclass(frozen=True, slots=True)
class _Interface:
    linktype: int
    snap_length: int  # 0: no limit
    name: str = ""
    resolution: int = 6  # if_tsresol: units of 10⁻⁶ seconds unless it says otherwise


class _Section:
    """State of the section being read."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.order = "<"
        self.interfaces: list[_Interface] = []

    def unpack(self, layout: str, body: bytes, start: int, what: str) -> tuple[int, ...]:
        """Fields at the begin of the body of the block at ``start``."""
        layout = self.order + layout
        if len(body) < struct.calcsize(layout):
            raise self.source.error(f"{what} too short for its fields", _REPAIR, offset=start)
        return struct.unpack_from(layout, body)

    def interface(self, number: int, start: int) -> _Interface:
        if number >= len(self.interfaces):
            what = f"frame of interface {number}, but the section describes {len(self.interfaces)},"
            raise self.source.error(what, _REPAIR, offset=start)
        return self.interfaces[number]


def read_pcapng(source: Source, magic: bytes) -> Iterator[CapturedFrame]:
    """Frames of a pcapng file whose first four bytes, ``magic``, have been read.

    Raises CaptureError, after the last frame that is whole.
    """
    section = _Section(source)
    index = 0
    start, type_bytes = 0, magic
    while type_bytes:
        if type_bytes == MAGIC:
            _section_header(section, start)
        else:
            (block_type,) = struct.unpack(f"{section.order}I", type_bytes)
            body = _body(section, source.read_exact(4, "a block length"), start)
            if block_type == INTERFACE_DESCRIPTION:
                _interface_description(section, body, start)
            elif block_type == ENHANCED_PACKET or block_type in _FRAME_READERS:
                if block_type == ENHANCED_PACKET:
                    yield _enhanced_packet(section, body, start, index)
                else:
                    number, data, original = _FRAME_READERS[block_type](section, body, start)
                    name = section.interface(number, start).name
                    yield CapturedFrame(
                        index, data, original, interface=number, interface_name=name
                    )
                index += 1
        start = source.offset
        type_bytes = source.read(4)
        if 0 < len(type_bytes) < 4:
            what = f"block type of {len(type_bytes)} instead of 4 bytes"
            raise source.truncated(what, start)


def _section_header(section: _Section, start: int) -> None:
    """Read a Section Header Block behind its type: byte order first, since the length is in it."""
    source = section.source
    length = source.read_exact(4, "a block length")
    byte_order = source.read_exact(4, "a byte-order magic")
    if byte_order not in _BYTE_ORDERS:
        what = f"byte-order magic {byte_order.hex()} is none"
        raise source.error(what, _not_pcapng(start), offset=start + 8)
    section.order = _BYTE_ORDERS[byte_order]
    section.interfaces = []
    body = byte_order + _body(section, length, start, already=len(byte_order))
    _, major, minor = section.unpack("IHH8x", body, start, "Section Header Block")
    if major != _MAJOR_VERSION:
        raise source.error(
            f"pcapng version {major}.{minor}, only 1.x is known",
            "convert the file with editcap -F pcapng",
            offset=start + 12,
        )


def _not_pcapng(start: int) -> str:
    return "give a pcap or pcapng file" if start == 0 else _REPAIR


def _body(section: _Section, length_bytes: bytes, start: int, already: int = 0) -> bytes:
    """Rest of the block at ``start``, of which type, length and ``already`` body bytes are read."""
    source = section.source
    (length,) = struct.unpack(f"{section.order}I", length_bytes)
    if length < 12 + already or length % 4 or length > MAX_BLOCK_LENGTH:
        allowed = f"a multiple of 4 from {12 + already} to {MAX_BLOCK_LENGTH}"
        what = f"block length {length} is not {allowed}"
        raise source.error(what, _REPAIR, offset=start + 4)
    body = source.read_exact(length - 12 - already, "the rest of a block")
    trailer = source.read_exact(4, "the length that ends a block")
    if trailer != length_bytes:
        (other,) = struct.unpack(f"{section.order}I", trailer)
        what = f"block begins with length {length} and ends with {other}"
        raise source.error(what, _REPAIR, offset=start)
    return body


def _captured(
    section: _Section, body: bytes, offset: int, number: int, length: int, start: int
) -> bytes:
    """``length`` frame bytes at ``offset`` of a packet block's body."""
    source = section.source
    source.check_linktype(section.interface(number, start).linktype, start)
    source.check_length(length, start)
    if offset + length > len(body):
        what = f"frame of {length} bytes in a block that holds {len(body) - offset}"
        raise source.error(what, _REPAIR, offset=start)
    return body[offset : offset + length]


def _interface_description(section: _Section, body: bytes, start: int) -> None:
    linktype, snap_length = section.unpack("H2xI", body, start, "Interface Description Block")
    options = _options(section, body, 8)
    name = _text(options.get(Option.IF_NAME, [b""])[0])
    resolution = options.get(Option.IF_TSRESOL, [b"\x06"])[0][:1] or b"\x06"
    section.interfaces.append(_Interface(linktype, snap_length, name, resolution[0]))


def _options(section: _Section, body: bytes, offset: int) -> dict[int, list[bytes]]:
    """Options from ``offset`` on, by code.  Damaged ones end the list: frames are worth more."""
    found: dict[int, list[bytes]] = {}
    while offset + 4 <= len(body):
        code, length = struct.unpack_from(f"{section.order}HH", body, offset)
        if code == 0 or offset + 4 + length > len(body):
            break
        found.setdefault(code, []).append(body[offset + 4 : offset + 4 + length])
        offset += 4 + length + -length % 4
    return found


def _text(value: bytes) -> str:
    return value.decode(errors="replace").rstrip("\0")


def _nanoseconds(high: int, low: int, resolution: int) -> int:
    units = high << 32 | low
    if resolution & 0x80:
        return units * 10**9 >> (resolution & 0x7F)
    return int(units * 10**9 // 10**resolution)


def _enhanced_packet(section: _Section, body: bytes, start: int, index: int) -> CapturedFrame:
    fields = section.unpack("IIIII", body, start, "Enhanced Packet Block")
    number, high, low, length, original_length = fields
    data = _captured(section, body, 20, number, length, start)
    options = _options(section, body, 20 + length + -length % 4)
    interface = section.interface(number, start)

    def value(code: int, layout: str, otherwise: int | None) -> int | None:
        layout = section.order + layout
        for told in options.get(code, ()):
            if len(told) == struct.calcsize(layout):
                return int(struct.unpack(layout, told)[0])
        return otherwise

    hashes = (told for told in options.get(Option.EPB_HASH, ()) if told[:1] == bytes([TOEPLITZ]))
    toeplitz = next((told[1:5] for told in hashes if len(told) == 5), None)
    return CapturedFrame(
        index,
        data,
        original_length,
        interface=number,
        timestamp_ns=_nanoseconds(high, low, interface.resolution),
        interface_name=interface.name,
        queue=value(Option.EPB_QUEUE, "I", None),
        hash_value=struct.unpack(f"{section.order}I", toeplitz)[0] if toeplitz else None,
        flags=value(Option.EPB_FLAGS, "I", 0) or 0,
        drops=value(Option.EPB_DROPCOUNT, "Q", 0) or 0,
        packet_id=value(Option.EPB_PACKETID, "Q", None),
        comments=tuple(_text(told) for told in options.get(Option.COMMENT, ())),
    )


def _packet(section: _Section, body: bytes, start: int) -> tuple[int, bytes, int]:
    fields = section.unpack("H10xII", body, start, "Packet Block")
    number, length, original_length = fields
    return number, _captured(section, body, 20, number, length, start), original_length


def _simple_packet(section: _Section, body: bytes, start: int) -> tuple[int, bytes, int]:
    """A Simple Packet Block has no captured length: it follows from the interface's limit."""
    (original_length,) = section.unpack("I", body, start, "Simple Packet Block")
    snap_length = section.interface(0, start).snap_length
    length = min(original_length, snap_length) if snap_length else original_length
    return 0, _captured(section, body, 4, 0, length, start), original_length


_FRAME_READERS: Final = {
    PACKET: _packet,
    SIMPLE_PACKET: _simple_packet,
}
