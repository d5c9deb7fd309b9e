# SPDX-License-Identifier: MIT
"""The classic pcap format (draft-ietf-opsawg-pcap): both byte orders, µs and ns time stamps.

A file header of 24 bytes, then records: a header of 16 bytes (seconds,
fraction, captured length, original length) and the captured bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pyvnet.capture.source import CapturedFrame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.capture.source import Source

# First four bytes of the file → struct prefix of its byte order.
MAGICS: Final = {
    bytes.fromhex("d4c3b2a1"): "<",
    bytes.fromhex("a1b2c3d4"): ">",
    bytes.fromhex("4d3cb2a1"): "<",
    bytes.fromhex("a1b23c4d"): ">",
}
_VERSION: Final = (2, 4)
_LINKTYPE_MASK: Final = 0xFFFF  # the upper half tells of a frame check sequence


def read_pcap(source: Source, magic: bytes) -> Iterator[CapturedFrame]:
    """Frames of a pcap file whose first four bytes, ``magic``, have been read.

    Raises CaptureError, after the last frame that is whole.
    """
    order = MAGICS[magic]
    header = source.read_exact(20, "the rest of the pcap file header")
    major, minor, linktype = struct.unpack(f"{order}HH12xI", header)
    if (major, minor) != _VERSION:
        raise source.error(
            f"pcap version {major}.{minor}, only 2.4 is known",
            "convert the file with editcap -F pcap",
            offset=4,
        )
    source.check_linktype(linktype & _LINKTYPE_MASK, 20)
    index = 0
    while True:
        start = source.offset
        record = source.read(16)
        if not record:
            return
        if len(record) < 16:
            raise source.truncated(f"record header of {len(record)} instead of 16 bytes", start)
        captured_length, original_length = struct.unpack(f"{order}8xII", record)
        source.check_length(captured_length, start)
        data = source.read_exact(captured_length, "a frame")
        yield CapturedFrame(index, data, original_length)
        index += 1
