# SPDX-License-Identifier: MIT
"""Socket pairs whose device ends somebody else opened and handed over (see ``pair``)."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev.pair import BUFFER, SocketPort

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

_CURE: Final = "hand over one end of a connected AF_UNIX SOCK_SEQPACKET socket per queue"


class PairFds(SocketPort):
    """A host port of sockets that are open already, one per queue.

    The fds stay the caller's; ``open()`` looks at them through duplicates.

    Raises:
        UsageError: no fd, or one that is named twice.
    """

    def __init__(self, fds: Sequence[int]) -> None:
        check_numbers(fds)
        super().__init__(len(fds))
        self._given = tuple(fds)

    def _open(self, undo: ExitStack) -> tuple[socket.socket, ...]:
        """Check the sockets and make them nonblocking, until ``undo`` runs."""
        return tuple(_take(fd, undo) for fd in self._given)


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
