# SPDX-License-Identifier: MIT
"""The front-end's end of a vhost-user connection: one request at a time, each with its answer.

The stream has no way back to the start of a message.  So whatever breaks the
alternation of request and answer (a wrong answer, one too many, one that never
comes, a caller who gives up half way) ends the connection: the socket is
closed, which the back-end sees, and every later call raises ConnectionError
saying why.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet.driver.errors import DeviceViolation, RefusedError
from pyvnet.spec import vhost_user as vu

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

DEFAULT_TIMEOUT: Final = 10.0

_READ: Final = 4096
_HEADER: Final = vu.HEADER.size
U64_REPLY: Final = frozenset({vu.U64.size})


def receive_with_fds(sock: socket.socket, size: int) -> tuple[bytes, int]:
    """Take up to ``size`` bytes, and close every fd that comes with them.

    Returns the bytes and how many fds there were: nothing a back-end sends
    to this front-end carries any.  Raises OSError as recvmsg does.
    """
    data, fds, flags, _ = socket.recv_fds(sock, size, vu.MAX_FDS, socket.MSG_CMSG_CLOEXEC)
    for fd in fds:
        os.close(fd)
    return data, len(fds) + bool(flags & socket.MSG_CTRUNC)


class _Awaited(NamedTuple):
    """The answer the back-end owes."""

    request: int
    sizes: Container[int]
    answer: asyncio.Future[bytes]


class Link:
    """A connected socket, which it owns.

    Args:
        sock: AF_UNIX, stream, connected.
        timeout: seconds an exchange may take.
        on_lost: called once, with the reason, when the connection ends by itself.

    Attributes:
        reply_ack: REPLY_ACK was negotiated: messages without an answer of their own ask for one.
        failure: why there is no connection any more, if so.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        on_lost: Callable[[Exception], None] | None = None,
    ) -> None:
        sock.settimeout(0)
        self.reply_ack = False
        self.failure: Exception | None = None
        self._sock = sock
        self._timeout = timeout
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._inbox = bytearray()
        self._awaited: _Awaited | None = None
        self._room: asyncio.Future[None] | None = None
        self._loop.add_reader(sock.fileno(), self._readable)

    async def call(
        self,
        request: int,
        payload: bytes = b"",
        fds: Sequence[int] = (),
        *,
        sizes: Container[int] = U64_REPLY,
        need_reply: bool = False,
    ) -> bytes:
        """Send a message that has an answer of its own; returns its payload.

        Args:
            request: the message.
            payload: its bytes.
            fds: go with its first byte and stay the caller's.
            sizes: payload sizes the answer may have.
            need_reply: ask for an acknowledgement too, which changes nothing.

        Raises:
            DeviceViolation: what came is not the answer.
            ConnectionError: the back-end is gone.
            TimeoutError: nothing came.
        """
        return await self._exchange(request, payload, fds, sizes, need_reply=need_reply)

    async def call_u64(self, request: int, payload: bytes = b"") -> int:
        """`call` for an answer that is one number."""
        return vu.unpack_u64(await self.call(request, payload))

    async def tell(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send a message that has no answer of its own.

        With REPLY_ACK it returns when the back-end has obeyed, without when it was sent.

        Raises:
            RefusedError: the back-end did not obey.
            DeviceViolation, ConnectionError, TimeoutError: as `call`.
        """
        if not self.reply_ack:
            await self._exchange(request, payload, fds, None, need_reply=False)
            return
        answer = await self._exchange(request, payload, fds, U64_REPLY, need_reply=True)
        if code := vu.unpack_u64(answer):
            raise RefusedError(vu.request_name(request), f"it answered {code:#x}")

    async def _exchange(
        self,
        request: int,
        payload: bytes,
        fds: Sequence[int],
        sizes: Container[int] | None,
        *,
        need_reply: bool,
    ) -> bytes:
        message = vu.message(request, payload, need_reply=need_reply)
        async with self._turn:
            self.check()
            answer = self._loop.create_future()
            if sizes is not None:
                self._awaited = _Awaited(request, sizes, answer)
            try:
                async with asyncio.timeout(self._timeout):
                    await self._send(message, fds)
                    return b"" if sizes is None else await answer
            except TimeoutError:
                what = f"no answer to {vu.request_name(request)} within {self._timeout} s"
                self.lose(ConnectionAbortedError(what))
                raise TimeoutError(what) from None
            except asyncio.CancelledError:
                self.lose(
                    ConnectionAbortedError(f"{vu.request_name(request)} was given up half way")
                )
                raise
            finally:
                self._awaited = None
                if not answer.cancel() and not answer.cancelled():
                    answer.exception()  # seen: nobody need hear of it again

    def check(self) -> None:
        """Raise ConnectionError where there is no connection any more."""
        if self.failure is not None:
            raise ConnectionError(f"no connection to the back-end: {self.failure}")

    # --- bytes out ------------------------------------------------------------------

    async def _send(self, message: bytes, fds: Sequence[int]) -> None:
        while message:
            try:
                sent = socket.send_fds(self._sock, [message], fds, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                self.lose(ConnectionResetError(f"the back-end is gone: {error.strerror}"))
                self.check()
            else:
                message, fds = message[sent:], ()

    async def _writable(self) -> None:
        """Wait until the back-end has read something."""
        self._room = room = self._loop.create_future()
        fd = self._sock.fileno()
        self._loop.add_writer(fd, self._has_room)
        try:
            await room
        finally:
            self._room = None
            if self._sock.fileno() >= 0:
                self._loop.remove_writer(fd)
        self.check()

    def _has_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # --- bytes in -------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data, fds = receive_with_fds(self._sock, _READ)
        except BlockingIOError:
            return
        except OSError as error:
            self.lose(ConnectionResetError(f"the back-end is gone: {error.strerror}"))
            return
        awaited = self._awaited
        if fds:
            self.lose(DeviceViolation(f"{fds} file descriptors came, and no message has any"))
        elif not data:
            where = f" instead of answering {vu.request_name(awaited.request)}" if awaited else ""
            self.lose(ConnectionResetError(f"the back-end closed the connection{where}"))
        elif awaited is None or awaited.answer.done():
            self.lose(DeviceViolation(f"{len(data)} bytes came that nobody had asked for"))
        else:
            self._inbox += data
            self._judge(awaited)

    def _judge(self, awaited: _Awaited) -> None:
        """Hand the answer over when it is whole; end everything when it is not one."""
        if len(self._inbox) < _HEADER:
            return
        header = vu.Header.unpack(bytes(self._inbox[:_HEADER]))
        name = vu.request_name(awaited.request)
        verdicts = (
            (header.version != vu.VERSION, f"protocol version {header.version}"),
            (not header.is_reply, "no REPLY flag"),
            (header.request != awaited.request, f"it says {vu.request_name(header.request)}"),
            (header.size not in awaited.sizes, f"its size is {header.size}"),
            (len(self._inbox) > _HEADER + header.size, "more bytes follow than it has"),
        )
        for wrong, what in verdicts:
            if wrong:
                self.lose(DeviceViolation(f"not an answer to {name}: {what}"))
                return
        if len(self._inbox) == _HEADER + header.size:
            awaited.answer.set_result(bytes(self._inbox[_HEADER:]))
            self._inbox.clear()

    # --- the end --------------------------------------------------------------------

    def lose(self, reason: Exception) -> None:
        """End the connection for a reason; harmless when it has ended."""
        if self.failure is not None:
            return
        self._shut(reason)
        if self._awaited is not None and not self._awaited.answer.done():
            self._awaited.answer.set_exception(reason)
        self._has_room()
        if self._on_lost is not None:
            self._on_lost(reason)

    def _shut(self, reason: Exception) -> None:
        self.failure = reason
        fd = self._sock.fileno()
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        self._sock.close()

    def close(self) -> None:
        """Hang up; harmless when there is no connection."""
        if self.failure is None:
            self._shut(ConnectionAbortedError("it was closed here"))
