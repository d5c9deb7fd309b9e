# SPDX-License-Identifier: MIT
"""The files a capture is written to: one, or one after the other as each is full.

Theory of operation
    Only whole blocks are written.  Where the medium refuses some bytes of
    them (disk full, quota, EIO), the file is cut back to the last whole block,
    so that what was captured until then can be read, and is closed.

    Every file of a rotation begins with its own section header and interface
    descriptions and ends with statistics: each is a capture of its own.  The
    first has the name that was asked for, the others a number before the
    suffix, which only grows; of so many files the oldest is removed.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyvnet.capture.blocks import ENHANCED_PACKET
from pyvnet.capture.source import CaptureError
from pyvnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

SMALLEST_ROTATION: Final = 256 * 1024
"""Bytes; a file holds the longest frame, and the descriptions of every interface."""
_PATIENCE_MS: Final = 1000
_MODE: Final = 0o600  # frames are other people's letters


@dataclass(frozen=True, slots=True)
class Rotation:
    """Begin a new file at ``size`` bytes; keep the last ``files`` of them, 0 for all."""

    size: int
    files: int = 0

    def __post_init__(self) -> None:
        """Raises UsageError for sizes and counts that make no sense."""
        if self.size < SMALLEST_ROTATION:
            message = f"capture files of {self.size} bytes; the least is {SMALLEST_ROTATION}"
            raise UsageError(message)
        if self.files < 0:
            message = f"{self.files} capture files to keep; 0 keeps all"
            raise UsageError(message)


def _open(path: Path) -> int:
    # Without a reader a pipe refuses at once, where it would wait for ever.
    # A link may have been put there by somebody who wants another file overwritten.
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        fd = os.open(path, flags, _MODE)
    except OSError as error:
        cure = "check the directory, and your permission to write there"
        raise CaptureError(f"{path}: cannot write a capture ({error.strerror}); {cure}") from error
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.ftruncate(fd, 0)
    return fd


def _await_reader(fd: int, error: BlockingIOError) -> None:
    """A pipe is full; a reader who takes nothing for so long is not worth waiting for."""
    waiting = select.poll()
    waiting.register(fd, select.POLLOUT)
    if not waiting.poll(_PATIENCE_MS):
        reason = "its reader takes nothing any more"
        raise OSError(errno.ETIMEDOUT, reason) from error


def _whole_blocks(data: bytes | memoryview, written: int) -> tuple[int, int]:
    """How many of the bytes written are whole blocks, and how many of those have a frame."""
    end = frames = 0
    while end + 8 <= written:
        length = int.from_bytes(data[end + 4 : end + 8], "little")
        if end + length > written:
            break
        frames += int.from_bytes(data[end : end + 4], "little") == ENHANCED_PACKET
        end += length
    return end, frames


class Output:
    """Where a capture goes.  Not for several threads at a time."""

    def __init__(
        self, path: str | os.PathLike[str], begin: Callable[[], bytes], rotation: Rotation | None
    ) -> None:
        """Open the first file; ``begin`` gives the blocks every file begins with.

        Raises CaptureError when it cannot be opened, OSError when not even the
        beginning can be written.
        """
        self.path = Path(path)
        self.rotation = rotation
        self.files = 1
        """How many were begun."""
        self.frames = 0
        """How many frames are in them."""
        self._begin = begin
        self._kept = [self.path]
        self._size = 0
        self._fd = _open(self.path)
        self._put(begin())
        self._head = self._size

    @property
    def current(self) -> Path:
        """The file being written, or written last."""
        return self._kept[-1]

    @property
    def closed(self) -> bool:
        """Nothing more can be written."""
        return self._fd < 0

    @property
    def room(self) -> int:
        """Bytes until the next file begins; without rotation more than anybody has."""
        return self.rotation.size - self._size if self.rotation else 1 << 62

    def fits(self, size: int) -> bool:
        """Whether so many bytes go into this file: always into one that has only begun."""
        return size <= self.room or self._size == self._head

    def write(self, blocks: bytes | memoryview, frames: int = 0) -> None:
        """Write whole blocks, of so many frames.

        Raises OSError when they are refused, and closes the file.
        """
        self._put(blocks)
        self.frames += frames

    def rotate(self, end: bytes) -> None:
        """End this file with the blocks ``end`` and begin the next.

        Raises CaptureError when that cannot be opened, OSError when either refuses a block.
        """
        self._put(end)
        self.close()
        number = f".{self.files}"
        path = self.path.with_name(f"{self.path.stem}{number}{self.path.suffix}")
        self._fd = _open(path)
        self._size = 0
        self.files += 1
        self._kept.append(path)
        self._put(self._begin())
        self._head = self._size
        if self.rotation and self.rotation.files and len(self._kept) > self.rotation.files:
            with suppress(OSError):  # somebody took it away already
                self._kept.pop(0).unlink()

    def close(self) -> None:
        """Close the file as it is; harmless when closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _put(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError as error:
                    _await_reader(self._fd, error)
        except OSError:
            whole, frames = _whole_blocks(data, len(data) - len(rest))
            self.frames += frames
            with suppress(OSError):  # a pipe or device has nothing to cut off
                os.ftruncate(self._fd, self._size + whole)
            self.close()
            raise
        self._size += len(data)
