# SPDX-License-Identifier: MIT
"""Opens a capture file and picks the format by its first four bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from pyvnet.capture.pcap import MAGICS, read_pcap
from pyvnet.capture.pcapng import MAGIC, read_pcapng
from pyvnet.capture.source import CapturedFrame, CaptureError, Source

if TYPE_CHECKING:
    from collections.abc import Generator

# Files that people take for captures, and what to do about each.
_LOOKALIKES: Final = {
    b"\x1f\x8b": ("gzip data", "unpack it first with gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd data", "unpack it first with unzstd"),
    b"BZh": ("bzip2 data", "unpack it first with bunzip2"),
    b"\xfd7zX": ("xz data", "unpack it first with unxz"),
    b"\x34\xcd\xb2\xa1": ("a modified pcap", "convert it with editcap -F pcap"),
    b"\xa1\xb2\xcd\x34": ("a modified pcap", "convert it with editcap -F pcap"),
}


def read_frames(path: str | Path) -> Generator[CapturedFrame, None, None]:
    """Frames of the pcap or pcapng file at ``path``, one after the other.

    The file is read as it is consumed and may be a pipe; it is closed when the
    iterator ends or is closed.  Raises CaptureError when it cannot be opened,
    is no capture, or ends or breaks somewhere; every whole frame before that
    point has been delivered by then.
    """
    with _open(Path(path)) as stream:
        source = Source(stream, str(path))
        magic = source.read(4)
        if magic in MAGICS:
            yield from read_pcap(source, magic)
        elif magic == MAGIC:
            yield from read_pcapng(source, magic)
        else:
            raise _no_capture(source, magic)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        cure = "check the name and your permission to read it"
        raise CaptureError(f"{path}: cannot open ({error.strerror}); {cure}") from error


def _no_capture(source: Source, magic: bytes) -> CaptureError:
    if not magic:
        return source.error("the file ends (it is empty)", "capture again", offset=0)
    for prefix, (what, cure) in _LOOKALIKES.items():
        if magic.startswith(prefix):
            return source.error(f"{what}, not pcap or pcapng,", cure, offset=0)
    what = f"{magic.hex(' ')} is not the beginning of a pcap or pcapng file,"
    return source.error(what, "give a file written by tcpdump, dumpcap or Wireshark", offset=0)
