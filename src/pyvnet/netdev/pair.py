# SPDX-License-Identifier: MIT
"""A host port made of socket pairs: no privilege, no interface, every frame kept whole.

Each queue is a pair of AF_UNIX SOCK_SEQPACKET sockets.  A send is a frame and a
frame is a receive, also through writev and readv, which is all the engine asks
of a port.  What crosses is what crosses a tap: ``struct virtio_net_hdr_v1``
(12 bytes), then the frame, so GSO frames pass with their header.

How large and how many, measured on 6.18: a message may be SO_SNDBUF - 32 bytes
(EMSGSIZE beyond), and unread messages count against the *sender's* SO_SNDBUF by
memory used, about 0.8 KiB for a small frame.  SO_SNDBUF is asked for in full and
cut by the kernel to twice net.core.wmem_max; even the usual wmem_max of 208 KiB
leaves room for the largest frame of the engine, 65557 bytes.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from pyvnet.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER_SIZE: Final = 12  # struct virtio_net_hdr_v1
FRAME_MAX: Final = 65557  # VNET_FRAME_MAX of vnet.h
BUFFER: Final = 4 << 20  # bytes of frames in flight per direction
_MESSAGE_OVERHEAD: Final = 32  # net/unix/af_unix.c, unix_dgram_sendmsg()
_SEND_CURES: Final = {
    errno.EMSGSIZE: f"send at most {FRAME_MAX} bytes, or raise net.core.wmem_max",
    errno.EPIPE: "the far end is closed; open it again",
}


class WireFrame(NamedTuple):
    """What the device put on the wire."""

    header: bytes
    data: bytes


class Wire:
    """The far end of one queue: where a tap would have the kernel's network stack.

    Nothing here waits except ``receive()``.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._waiting = False

    def fileno(self) -> int:
        """Readable when ``recv()`` has something."""
        return self._socket.fileno()

    def send(self, frame: bytes, header: bytes | None = None) -> None:
        """Send a frame towards the driver.

        Args:
            frame: from the destination MAC address on; may be empty.
            header: the bytes in front of it; None is a header of zeros.  Any
                length is sent as it is, for those who test short ones.

        Raises:
            BlockingIOError: the device has not read what is under way.
            HostError: the frame is larger than the socket takes, or the far end is gone.
        """
        send_frame(self._socket, frame, bytes(HEADER_SIZE) if header is None else header)

    def recv(self) -> WireFrame:
        """Take the next frame the driver sent.

        Raises:
            BlockingIOError: there is none.
            EOFError: the device closed its end.
        """
        message = self._socket.recv(HEADER_SIZE + FRAME_MAX + 1)
        if not message:
            raise EOFError("the device closed its end of the wire")
        return WireFrame(message[:HEADER_SIZE], message[HEADER_SIZE:])

    async def receive(self) -> WireFrame:
        """Wait for the next frame the driver sends; one waiter at a time.

        Raises:
            EOFError: the device closed its end.
            UsageError: somebody waits already.
        """
        if self._waiting:
            raise UsageError("another task waits on this wire; give each its own queue")
        loop = asyncio.get_running_loop()
        self._waiting = True
        try:
            while True:
                try:
                    return self.recv()
                except BlockingIOError:
                    await _readable(loop, self._socket)
        finally:
            self._waiting = False


class SocketPort(ABC):
    """A host port of sockets, one per queue, wherever they come from."""

    kind: Final = "pair"

    def __init__(self, queues: int) -> None:
        self._queues = queues
        self._ends: tuple[socket.socket, ...] = ()
        self._undo = ExitStack()

    @abstractmethod
    def _open(self, undo: ExitStack) -> tuple[socket.socket, ...]:
        """Return the device's ends; ``undo`` lets go of them."""

    @property
    def queues(self) -> int:
        """Number of queues."""
        return self._queues

    @property
    def fds(self) -> tuple[int, ...]:
        """The device's ends; empty unless open."""
        return tuple(end.fileno() for end in self._ends)

    def open(self) -> None:
        """Get the sockets ready; raises HostError when that cannot be."""
        if self._ends:
            raise UsageError("this pair is open already; close it first")
        with ExitStack() as undo:
            ends = self._open(undo)
            self._undo = undo.pop_all()
        self._ends = ends

    def close(self) -> None:
        """Let go of the sockets; harmless to repeat."""
        self._ends = ()
        self._undo.close()

    def set_carrier(self, *, on: bool) -> None:  # noqa: B027 - doing nothing is right
        """There is no cable."""

    def watch_carrier(self, callback: Callable[[bool], None]) -> None:  # noqa: B027
        """There is no cable."""

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire of queue 0, behind a header of zeros."""
        send_frame(self._ends[0], frame)

    def describe(self) -> dict[str, Any]:
        """``kind``, ``queues``, and when open ``frame_max``: bytes of the largest frame."""
        described: dict[str, Any] = {"kind": self.kind, "queues": self.queues}
        if self._ends:
            described["frame_max"] = _frame_max(self._ends[0])
        return described

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Pair(SocketPort):
    """``Pair(queues)``: a host port and, per queue, the ``wire()`` behind it.

    Raises:
        UsageError: less than one queue.
    """

    def __init__(self, queues: int) -> None:
        if queues < 1:
            raise UsageError(f"{queues} queues asked for; at least one is needed")
        super().__init__(queues)
        self._wires: tuple[Wire, ...] = ()

    def wire(self, queue: int) -> Wire:
        """The far end of ``queue``; the same object every time."""
        return self._wires[queue]

    def _open(self, undo: ExitStack) -> tuple[socket.socket, ...]:
        pairs = [_make_pair(undo) for _ in range(self.queues)]
        self._wires = tuple(Wire(far) for _, far in pairs)
        undo.callback(setattr, self, "_wires", ())
        return tuple(near for near, _ in pairs)


def _make_pair(undo: ExitStack) -> tuple[socket.socket, socket.socket]:
    try:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise HostError("no socket pair", error.errno, "raise the limit of open files") from error
    for end in (near, far):
        undo.callback(end.close)
        # Only the sender's buffer counts for AF_UNIX; SO_RCVBUF has no effect there.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return near, far


def _frame_max(end: socket.socket) -> int:
    """Bytes of the largest frame that goes into ``end``."""
    room = end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    return min(room - _MESSAGE_OVERHEAD - HEADER_SIZE, FRAME_MAX)


def send_frame(end: socket.socket, frame: bytes, header: bytes = bytes(HEADER_SIZE)) -> None:
    """Send one frame; raises BlockingIOError when there is no room, HostError when it cannot go."""
    try:
        end.sendmsg([header, frame])
    except BlockingIOError:
        raise
    except OSError as error:
        cure = _SEND_CURES.get(error.errno or 0, "")
        raise HostError(
            f"a frame of {len(frame)} bytes does not go on the wire", error.errno, cure
        ) from error


async def _readable(loop: asyncio.AbstractEventLoop, source: socket.socket) -> None:
    ready = asyncio.Event()
    fd = source.fileno()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
