# SPDX-License-Identifier: MIT
"""What stands for a frame, or for many."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, SupportsBytes, TypeAlias

from pyvnet.capture import read_frames
from pyvnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

Packet: TypeAlias = SupportsBytes | bytearray | memoryview
Packets: TypeAlias = Packet | str | os.PathLike[str]


def frames_of(packet: Packets) -> Iterator[bytes]:
    """The frames of an argument: itself, or those of the capture whose path it is.

    Raises:
        UsageError: neither a frame nor a path.
        CaptureError: no capture, or a damaged one, after the frames before the damage.
    """
    __tracebackhide__ = True
    if type(packet) is bytes:  # most are, and the rest takes its time
        yield packet
    elif isinstance(packet, str | os.PathLike):
        for captured in read_frames(os.fspath(packet)):
            yield captured.data
    elif isinstance(packet, bytes | bytearray | memoryview) or hasattr(packet, "__bytes__"):
        yield bytes(packet)
    elif hasattr(packet, "__iter__"):
        raise UsageError(
            f"a {type(packet).__name__} is no frame but many: give them one by one (*frames)"
        )
    else:
        raise UsageError(
            f"{packet!r} is no frame: give bytes, something with __bytes__ (a scapy packet, "
            "a testing.frames.Frame), or the path of a capture"
        )


def one_frame(packet: Packet | None) -> bytes | None:
    """The bytes of one frame; None for None."""
    __tracebackhide__ = True
    if packet is None or type(packet) is bytes:
        return packet
    if isinstance(packet, str | os.PathLike):
        raise UsageError("a whole capture cannot be expected: go through inject()'s frames")
    return next(frames_of(packet))
