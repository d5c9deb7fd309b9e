# SPDX-License-Identifier: MIT
"""A tap of many queues with a steering program, and which queue each frame came out of.

The kernel's own frames are kept off, and one sender runs at a time, so what lies in a
queue is what was sent there, in that order.
"""

from __future__ import annotations

import os
import select
import socket
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from pyvnet.netdev import tun_uapi
from pyvnet.netdev.netns import NetNamespace
from pyvnet.netdev.tap import HEADER_SIZE, Tap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ETHERNET: Final = 14  # bytes; a packet socket sends nothing shorter
ROOM: Final = 256  # frames sent before they are read; a tap queue takes 500 (TUN_READQ_SIZE)
_NAME: Final = "steered0"
_MTU: Final = 16384
_QUIET: Final = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
_SOL_PACKET: Final = 263
_QDISC_BYPASS: Final = 20  # PACKET_QDISC_BYPASS, linux/if_packet.h


class Aimed(NamedTuple):
    """A frame, and the tap queue it should come out of."""

    frame: bytes
    queue: int


class SteeredTap:
    """A tap of ``queues`` queues in a network namespace of its own."""

    def __init__(self, queues: int) -> None:
        self.queues = queues
        self._tap = Tap(_NAME, queues=queues, mtu=_MTU)
        self._stack = ExitStack()
        self._senders: tuple[socket.socket, ...] = ()
        self._buffer = bytearray(HEADER_SIZE + 2 * _MTU)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            netns = stack.enter_context(NetNamespace())
            netns.call(lambda: _QUIET.write_text("1"))
            netns.call(self._tap.open)
            stack.callback(self._tap.close)
            self._senders = tuple(
                stack.enter_context(netns.call(lambda bypass=bypass: _sender(bypass)))  # type: ignore[misc]
                for bypass in (False, True)
            )
            self._readable = stack.enter_context(select.epoll())
            for fd in self._tap.fds:
                self._readable.register(fd, select.EPOLLIN)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def attach(self, program: int) -> None:
        """Let the program of this fd steer from now on."""
        tun_uapi.set_steering_program(self._tap.fds[0], program)

    def astray(self, frames: Sequence[Aimed], *, bypass: bool) -> list[str]:
        """Send at most ``ROOM`` frames; what to say of each that came out elsewhere, or not at all.

        ``bypass``: past the queueing discipline, as PACKET_QDISC_BYPASS sends.
        """
        sender = self._senders[bypass]
        due: dict[int, list[bytes]] = defaultdict(list)
        for frame, queue in frames:
            sender.send(frame)
            due[queue].append(frame)
        came = {queue: self._take(queue, len(wanted)) for queue, wanted in due.items()}
        if came == due and not self._readable.poll(0):
            return []
        for queue in range(self.queues):
            came.setdefault(queue, []).extend(self._take(queue, ROOM))
        return list(_complaints(due, came))

    def _take(self, queue: int, most: int) -> list[bytes]:
        """What lies in a queue, at most so many frames of it."""
        found, fd, buffer = [], self._tap.fds[queue], self._buffer
        for _ in range(most):
            try:
                size = os.readv(fd, [buffer])
            except BlockingIOError:
                break
            found.append(bytes(memoryview(buffer)[HEADER_SIZE:size]))
        return found


def _sender(bypass: bool) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    made.bind((_NAME, 0))  # protocol 0: it hears nothing
    made.setsockopt(_SOL_PACKET, _QDISC_BYPASS, bypass)
    return made


def _complaints(due: Mapping[int, list[bytes]], came: Mapping[int, list[bytes]]) -> Iterator[str]:
    where = {frame: queue for queue, frames in came.items() for frame in frames}
    for queue in sorted(due.keys() | came.keys()):
        wanted, seen = due.get(queue, []), came.get(queue, [])
        for frame in (Counter(wanted) - Counter(seen)).elements():
            yield f"due at queue {queue}, came out of {where.get(frame)}: {frame.hex()}"
        if wanted != seen and sorted(wanted) == sorted(seen):
            yield f"queue {queue}: {len(seen)} frames out of order"
        if strangers := Counter(seen).keys() - {f for frames in due.values() for f in frames}:
            yield f"queue {queue}: nobody sent {[frame.hex() for frame in strangers]}"
