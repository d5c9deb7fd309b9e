# SPDX-License-Identifier: MIT
"""A vhost-user back-end that says what it is told to: a raw socket, for the front-end's tests.

It reads the protocol on its own (struct formats and numbers are written out
here) and logs every message with its bytes and fds.  By default it answers
correctly; `answers` replaces what it says to one request by anything at all.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from pyvnet.spec.config import NetConfig
from pyvnet.spec.features import features_from_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OFFER = features_from_names("mac,mtu,status,ctrl_vq,mq,event_idx,version_1,rss,hash_report")
PROTOCOL = 1 << 30
LOG_ALL = 1 << 26
# MQ, RARP, REPLY_ACK, NET_MTU, BACKEND_REQ, CONFIG, RESET_DEVICE, STATUS
PROTOCOL_OFFER = 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 13 | 1 << 16
REPLY_ACK = 1 << 3
NET_CONFIG = NetConfig(mac=b"\2plain", status=1, max_virtqueue_pairs=2, mtu=1500)


class Message(NamedTuple):
    request: int
    flags: int
    payload: bytes
    fds: tuple[int, ...]


def reply(request: int, payload: bytes, flags: int = 5) -> bytes:
    return struct.pack("=III", request, flags, len(payload)) + payload


def u64(number: int) -> bytes:
    return struct.pack("=Q", number)


class ScriptedBackend:
    """The far end of ``frontend``, a connected socket to be given to `Driver.connect`.

    Args:
        protocol_features: what to offer; None: the back-end has none at all.
        accepted: a connection to serve instead, made by a front-end that knows a path.

    Attributes:
        messages: everything that came; fds are ours and closed with us.
        answers: request → what to send instead of the right answer, None for nothing.
        fds_with: request → fds to send along with its answer.
        bases: what GET_VRING_BASE says, by index.
    """

    def __init__(
        self,
        *,
        protocol_features: int | None = PROTOCOL_OFFER,
        accepted: socket.socket | None = None,
    ) -> None:
        self.frontend, self._sock = socket.socketpair()
        if accepted is not None:
            self.frontend.close()
            self._sock.close()
            self._sock = accepted
        self._sock.setblocking(False)
        self.messages: list[Message] = []
        self.answers: dict[int, Callable[[Message], bytes | None]] = {}
        self.fds_with: dict[int, Sequence[int]] = {}
        self.bases: dict[int, int] = {}
        self.status = 0
        self.features = int(OFFER)
        self.protocol_features = protocol_features
        self.config = NET_CONFIG
        self.request_fd: socket.socket | None = None
        self._acked = 0
        self._inbox = bytearray()
        self._fds: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock.fileno(), self._read)

    def names(self, start: int = 0) -> list[int]:
        """Requests from message number ``start`` on."""
        return [message.request for message in self.messages[start:]]

    def of(self, request: int) -> list[Message]:
        """Every message of one kind."""
        return [message for message in self.messages if message.request == request]

    def say(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send anything on the main socket."""
        socket.send_fds(self._sock, [data], fds)

    def _read(self) -> None:
        # Never beyond a message: what is read at once shares its fds.
        size = struct.unpack_from("=8xI", self._inbox)[0] if len(self._inbox) >= 12 else 0
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, 12 + size - len(self._inbox), 64)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        self._fds += fds
        if not data:
            self._loop.remove_reader(self._sock.fileno())
            return
        self._inbox += data
        if len(self._inbox) < 12:
            return
        request, flags, size = struct.unpack_from("=III", self._inbox)
        if len(self._inbox) == 12 + size:
            message = Message(request, flags, bytes(self._inbox[12:]), tuple(self._fds))
            self._inbox.clear()
            self._fds.clear()
            self.messages.append(message)
            self._serve(message)

    def _serve(self, message: Message) -> None:
        answer = self.answers.get(message.request, self._answer)(message)
        if answer:
            self.say(answer, self.fds_with.get(message.request, ()))

    def _answer(self, message: Message) -> bytes | None:
        """The right answer."""
        request, payload = message.request, message.payload
        if request == 16:
            self._acked = struct.unpack("=Q", payload)[0]
        elif request == 21:
            self.request_fd = socket.socket(fileno=os.dup(message.fds[0]))
        elif request == 39:
            self.status = struct.unpack("=Q", payload)[0]
        elif request == 34:
            self.status = 0
        numbers = {
            1: self.features | (0 if self.protocol_features is None else PROTOCOL),
            15: self.protocol_features or 0,
            17: 2,
            36: 32,
            40: self.status,
        }
        if request in numbers:
            return reply(request, u64(numbers[request]))
        if request == 24:
            offset, size, _ = struct.unpack_from("=III", payload)
            piece = self.config.pack()[offset : offset + size].ljust(size, b"\0")
            return reply(request, payload[:12] + piece)
        if request == 11:
            index = struct.unpack_from("=I", payload)[0]
            return reply(request, struct.pack("=II", index, self.bases.get(index, 0)))
        return reply(request, u64(0)) if message.flags & 8 else None

    def hang_up(self) -> None:
        """Close the main socket, as a back-end that dies."""
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def close(self) -> None:
        """Close everything; harmless after `hang_up`."""
        if self._sock.fileno() >= 0:
            self.hang_up()
        if self.request_fd is not None:
            self.request_fd.close()
        for message in self.messages:
            for fd in message.fds:
                os.close(fd)
        for fd in self._fds:
            os.close(fd)
        self.messages.clear()
        if self.frontend.fileno() >= 0:
            self.frontend.close()
