# SPDX-License-Identifier: MIT
"""Copies of frames out of a running engine, as blocks of a pcapng file."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pyvnet.datapath.native import check
from pyvnet.errors import UsageError

if TYPE_CHECKING:
    from pyvnet.datapath.engine import Engine

LONGEST_BLOCK: Final = 128 * 1024
"""More bytes than any block has: the longest frame, its options, and a comment of ours."""


class Batch(NamedTuple):
    """What was taken: whole blocks, valid until the next call, and what comes next.

    ``waiting`` is the size of the next frame's block, 0 where no frame waits; ``policy``
    the serial of the policy it was judged by.
    """

    blocks: memoryview
    frames: int
    waiting: int
    policy: int


class EngineCapture:
    """Handle on a ``struct vnet_capture``; one thread takes, any may wake it.

    Interface 2i is receiveq i, 2i + 1 transmitq i.  Raises UsageError if the engine is
    captured already, HostError when memory or an fd cannot be had.
    """

    def __init__(
        self, engine: Engine, *, snap_length: int = 0, ring_size: int = 0, buffer: int = 1 << 20
    ) -> None:
        self._native = engine.native
        ffi, lib = self._native
        out = ffi.new("struct vnet_capture **")
        result = lib.vnet_capture_start(engine.cdata, snap_length, ring_size, out)
        if result == -errno.EBUSY:
            raise UsageError("the device is captured already: stop that capture first")
        if result == -errno.EINVAL:
            raise UsageError(f"a ring of {ring_size} bytes; a power of two from 512 KiB is one")
        check(result, "cannot start a capture")
        self._cdata: Any = out[0]
        self._buffer = ffi.new("uint8_t[]", max(buffer, LONGEST_BLOCK))
        self._view = memoryview(ffi.buffer(self._buffer))
        self._batch = ffi.new("struct vnet_capture_batch *")

    def wait(self, milliseconds: int) -> None:
        """Return when there is much to take, when woken, or after a while."""
        self._native.lib.vnet_capture_wait(self._cdata, milliseconds)

    def wake(self) -> None:
        """Let `wait` return."""
        self._native.lib.vnet_capture_wake(self._cdata)

    def take(self, policy: int, comment: str = "", room: int | None = None) -> Batch:
        """Take frames that were judged by one policy, the earliest first.

        ``comment`` is for the first of them; ``room`` bytes at most.
        """
        lib = self._native.lib
        most = len(self._buffer) if room is None else max(0, min(room, len(self._buffer)))
        lib.vnet_capture_take(
            self._cdata, self._buffer, most, policy, comment.encode() + b"\0", self._batch
        )
        taken = self._batch
        return Batch(self._view[: taken.bytes], taken.frames, taken.size, taken.policy)

    def counts(self, interface: int) -> tuple[int, int]:
        """Frames of an interface that were handed over, and those lost for want of room."""
        ffi, lib = self._native
        frames, drops = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        lib.vnet_capture_count(self._cdata, interface, frames, drops)
        return frames[0], drops[0]

    def stop(self) -> None:
        """No more copies; what is there can be taken.  Before the engine closes; harmless twice."""
        self._native.lib.vnet_capture_stop(self._cdata)

    def close(self) -> None:
        """Release everything, once nobody takes; harmless twice."""
        if self._cdata is not None:
            self.stop()
            self._native.lib.vnet_capture_free(self._cdata)
            self._cdata = None
