# SPDX-License-Identifier: MIT
"""What both readers share: the frame they deliver, the source they read, the error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO, Final

from pyvnet.errors import PyvnetError

LINKTYPE_ETHERNET: Final = 1
MAX_CAPTURED_LENGTH: Final = 262144
"""Longest frame taken; libpcap's limit.  Anything longer is a damaged length field."""

_LINKTYPE_NAMES: Final = {
    0: "BSD loopback",
    101: "raw IP",
    105: "802.11",
    113: "Linux cooked",
    127: "802.11 with radiotap",
    228: "raw IPv4",
    229: "raw IPv6",
    276: "Linux cooked v2",
}


class CaptureError(PyvnetError):
    """A capture cannot be read, or not further: what is wrong, at which byte, and the cure."""


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """One frame of a capture file.

    ``index`` counts from 0 over the whole file.  ``data`` begins with the
    destination MAC and may be shorter than the ``original_length`` bytes the
    frame had on the wire.  ``interface`` is the interface number within its
    pcapng section, 0 in a pcap file.

    The rest is what pcapng files may say beside: nanoseconds since 1970, name of the interface,
    queue, Toeplitz hash, direction and offloads (`pyvnet.capture.blocks.PacketFlag`), frames lost
    since the interface's last one, comments.  It has no part in comparisons.
    """

    index: int
    data: bytes
    original_length: int
    linktype: int = LINKTYPE_ETHERNET
    interface: int = 0
    timestamp_ns: int | None = field(default=None, compare=False)
    interface_name: str = field(default="", compare=False)
    queue: int | None = field(default=None, compare=False)
    hash_value: int | None = field(default=None, compare=False)
    flags: int = field(default=0, compare=False)
    drops: int = field(default=0, compare=False)
    packet_id: int | None = field(default=None, compare=False)
    comments: tuple[str, ...] = field(default=(), compare=False)


class Source:
    """Bytes of a capture in order, with the position for messages; needs no seek, so pipes work."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        """Read from ``stream``; ``name`` is how messages call it."""
        self._stream = stream
        self.name = name
        self.offset = 0

    def error(self, what: str, cure: str, *, offset: int | None = None) -> CaptureError:
        """The error to raise about the byte at ``offset`` (default: the next one to read)."""
        where = self.offset if offset is None else offset
        return CaptureError(f"{self.name}: {what} at byte {where}; {cure}")

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; raises CaptureError on an I/O error."""
        try:
            data = self._stream.read(size)
        except OSError as error:
            message = error.strerror or str(error)
            raise self.error(f"cannot read ({message})", "check the file and its medium") from error
        self.offset += len(data)
        return data

    def read_exact(self, size: int, what: str) -> bytes:
        """``size`` bytes of ``what``; raises CaptureError when the file ends before."""
        start = self.offset
        data = self.read(size)
        if len(data) < size:
            raise self.truncated(f"{what} needs {size} bytes, the file has {len(data)}", start)
        return data

    def truncated(self, what: str, offset: int) -> CaptureError:
        """Error for a file that ends too early."""
        cure = "the file is cut short: frames before it are good, copy it again for the rest"
        return self.error(what, cure, offset=offset)

    def check_linktype(self, linktype: int, offset: int) -> None:
        """Refuse what is not Ethernet; ``offset`` is where that was learnt."""
        if linktype != LINKTYPE_ETHERNET:
            name = _LINKTYPE_NAMES.get(linktype, "not Ethernet")
            raise self.error(
                f"link type {linktype} ({name})",
                "only Ethernet (1) can be read: capture on an Ethernet or tap interface, not 'any'",
                offset=offset,
            )

    def check_length(self, length: int, offset: int) -> None:
        """Refuse a frame record at ``offset`` whose captured ``length`` no Ethernet frame has."""
        if length == 0:
            raise self.error(
                "frame of 0 bytes",
                "no Ethernet frame is empty: capture again, or drop the record with editcap",
                offset=offset,
            )
        if length > MAX_CAPTURED_LENGTH:
            raise self.error(
                f"frame of {length} bytes (limit {MAX_CAPTURED_LENGTH})",
                "the file is damaged from here on: copy it again, or repair it with pcapfix",
                offset=offset,
            )
