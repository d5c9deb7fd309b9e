# SPDX-License-Identifier: MIT
"""Is the cable plugged in?  An interface's carrier, as rtnetlink tells it.

The kernel multicasts a link's whole description whenever something about it
changes, its flags included, so the message itself is the answer and nobody has
to be asked.  But a full socket loses messages.  So after a burst that may have
filled it, once it is empty, the socket asks for the present state, which comes
back the same way.  The kernel's own word for a loss (ENOBUFS) is switched off:
it comes as an error of the descriptor, upon which libuv stops watching.  The
socket belongs to the network namespace it was opened in, wherever the thread
that reads it is.

IFF_LOWER_UP is what counts: the interface is up and its driver sees a cable
(dev_get_flags() of net/core/dev.c).  IFF_RUNNING says the same up to a second
later, when the kernel's link watch had its turn.

Sources: rtnetlink(7), netlink(7), ``include/uapi/linux/if.h``.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

from pyvnet.errors import HostError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK: Final = struct.Struct("=BxHiII")  # struct ifinfomsg
_RTMGRP_LINK: Final = 1
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_RTM_NEWLINK: Final = 16
_RTM_DELLINK: Final = 17
_RTM_GETLINK: Final = 18
_IFF_LOWER_UP: Final = 0x1_0000
_SOL_NETLINK: Final = 270
_NETLINK_NO_ENOBUFS: Final = 5
_FULL: Final = 8  # messages; the kernel's default buffer holds some fifty
_BUFFER: Final = 1 << 16
_BURST: Final = 64  # messages read before other callbacks of the loop have their turn


class CarrierWatch:
    """Tells of an interface's carrier: once as it is found, then at each change.

    Made in the interface's namespace, started in the event loop's thread.

    Args:
        index: of the interface; a new name does not matter, one that is deleted
            or moved to another namespace has no carrier.

    Raises:
        HostError: no netlink socket.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._carrier: bool | None = None
        self._burst = 0  # messages since the socket was empty
        self._callback: Callable[[bool], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
            )
        except OSError as error:
            raise HostError("no netlink socket to watch the carrier", error.errno) from error
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        self._socket.bind((0, _RTMGRP_LINK))

    def start(self, loop: asyncio.AbstractEventLoop, callback: Callable[[bool], None]) -> None:
        """Call ``callback(plugged)`` in the loop from now on."""
        self._loop, self._callback = loop, callback
        loop.add_reader(self._socket.fileno(), self._read)
        self._ask()

    def look(self) -> None:
        """Report at once what has changed by now; the kernel answers while it is asked."""
        if self._callback is not None:
            self._ask()
            self._read()

    def close(self) -> None:
        """Watch no more; harmless to repeat."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
        self._loop = self._callback = None
        self._socket.close()

    def _ask(self) -> None:
        size = _HEADER.size + _LINK.size
        self._socket.send(
            _HEADER.pack(size, _RTM_GETLINK, _NLM_F_REQUEST, 0, 0)
            + _LINK.pack(socket.AF_UNSPEC, 0, self._index, 0, 0)
        )

    def _read(self) -> None:
        for _ in range(_BURST):
            if self._callback is None:
                return  # closed by the callback
            try:
                data, (sender, _groups) = self._socket.recvfrom(_BUFFER)
            except BlockingIOError:
                if self._burst >= _FULL:
                    self._ask()
                self._burst = 0
                return
            self._burst += 1
            if sender == 0:  # the kernel, and not some process that knows our port
                self._judge(data)

    def _judge(self, data: bytes) -> None:
        for kind, body in _messages(data):
            if kind == _NLMSG_ERROR:  # our question's only answer other than the link
                self._report(plugged=False)
            elif kind in {_RTM_NEWLINK, _RTM_DELLINK} and len(body) >= _LINK.size:
                family, _type, index, flags, _change = _LINK.unpack_from(body)
                # A port that leaves its bridge is a link deleted, in the bridges' family.
                if index == self._index and family == socket.AF_UNSPEC:
                    present = kind == _RTM_NEWLINK
                    self._report(plugged=present and bool(flags & _IFF_LOWER_UP))

    def _report(self, *, plugged: bool) -> None:
        if plugged is not self._carrier and self._callback is not None:
            self._carrier = plugged
            self._callback(plugged)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, _flags, _sequence, _port = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + size]
        at += size + 3 & ~3
