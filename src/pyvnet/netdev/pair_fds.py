# SPDX-License-Identifier: MIT
"""Socket pairs whose device ends somebody else opened and handed over (see ``pair``)."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev.pair import BUFFER, frame_max, send_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CURE: Final = "hand over one end of a connected AF_UNIX SOCK_SEQPACKET socket per queue"


class PairFds:
    """A host port of sockets that are open already, one per queue.

    The fds stay the caller's; ``open()`` looks at them through duplicates.

    Raises:
        UsageError: no fd, or one that is named twice.
    """

    kind: Final = "pair"

    def __init__(self, fds: Sequence[int]) -> None:
        check_numbers(fds)
        self._given = tuple(fds)
        self._ends: tuple[socket.socket, ...] = ()
        self._undo = ExitStack()

    @property
    def queues(self) -> int:
        """Number of queues."""
        return len(self._given)

    @property
    def fds(self) -> tuple[int, ...]:
        """The device's ends; empty unless open."""
        return tuple(end.fileno() for end in self._ends)

    def open(self) -> None:
        """Check the sockets and make them nonblocking; raises HostError for one that is none."""
        if self._ends:
            raise UsageError("this pair is open already; close it first")
        with ExitStack() as undo:
            ends = tuple(_take(fd, undo) for fd in self._given)
            self._undo = undo.pop_all()
        self._ends = ends

    def close(self) -> None:
        """Let go of the sockets, blocking again if they were; harmless to repeat."""
        self._ends = ()
        self._undo.close()

    def set_carrier(self, *, on: bool) -> None:
        """There is no cable."""

    def watch_carrier(self, callback: Callable[[bool], None]) -> None:
        """There is no cable."""

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire of queue 0, behind a header of zeros."""
        send_frame(self._ends[0], frame)

    def describe(self) -> dict[str, Any]:
        """``kind``, ``queues``, and when open ``frame_max``: bytes of the largest frame."""
        described: dict[str, Any] = {"kind": self.kind, "queues": self.queues}
        if self._ends:
            described["frame_max"] = frame_max(self._ends[0])
        return described

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_numbers(fds: Sequence[int]) -> None:
    """Refuse a list of fds nobody can mean."""
    if not fds:
        raise UsageError("no file descriptor is named; one per queue is needed")
    if len(set(fds)) != len(fds):
        raise UsageError("a file descriptor is named twice; each queue needs its own")


def duplicate(fd: int) -> int:
    """``os.dup()``; raises HostError for a number nothing is open under."""
    try:
        return os.dup(fd)
    except OSError as error:
        raise HostError(f"fd {fd} is of no use", error.errno, "hand over an open one") from error


def unblock(fd: int, undo: ExitStack) -> None:
    """Make a file description nonblocking, for all who share it, until ``undo`` runs."""
    if os.get_blocking(fd):
        undo.callback(os.set_blocking, fd, True)  # noqa: FBT003
        os.set_blocking(fd, False)


def _take(fd: int, undo: ExitStack) -> socket.socket:
    copy = duplicate(fd)
    try:
        end = socket.socket(fileno=copy)
    except OSError as error:
        os.close(copy)
        raise HostError(f"fd {fd} is not a socket", cure=_CURE) from error
    undo.callback(end.close)
    if end.family != socket.AF_UNIX or end.type != socket.SOCK_SEQPACKET:
        raise HostError(f"fd {fd} is a socket that does not keep frames whole", cure=_CURE)
    try:
        end.getpeername()
    except OSError as error:
        raise HostError(f"fd {fd} is not connected", error.errno, _CURE) from error
    unblock(end.fileno(), undo)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return end
