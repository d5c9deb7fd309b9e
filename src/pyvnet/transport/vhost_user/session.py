# SPDX-License-Identifier: MIT
"""One front-end's conversation, sans-IO: bytes and fds in; actions and bytes out.

    session = Session(offer)
    for step in session.receive(data, fds): ...

Framing comes first: 12 bytes of header, then as many of payload as it says.
What is wrong there ends the conversation, because nothing behind it can be
trusted.  A whole message is looked up in ``messages.TABLE`` and handled; one
that is refused leaves everything as it was before, its fds closed, and is
answered with a failure if the front-end asked for acknowledgements.  If it did
not, it would go on as if all were well: the conversation ends then, too.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from pyvnet.errors import FrontendError, PyvnetError
from pyvnet.spec.vhost_user import (
    HEADER,
    MAX_PAYLOAD,
    VERSION,
    Header,
    ProtocolFeature,
    pack_u64,
    reply,
    request_name,
)
from pyvnet.transport.vhost_user import rings
from pyvnet.transport.vhost_user.actions import SetMemory
from pyvnet.transport.vhost_user.fds import Fd, close_all
from pyvnet.transport.vhost_user.messages import TABLE, Message
from pyvnet.transport.vhost_user.state import Offer, SessionState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyvnet.transport.vhost_user.actions import Action, Answer, Steps, SubSteps
    from pyvnet.transport.vhost_user.messages import Row

_ACK = 0
_FAILURE = 1


class RefusedError(FrontendError):
    """A message was refused, and the front-end is told so: send ``answer``, log, and go on."""

    def __init__(self, reason: str, answer: bytes) -> None:
        self.answer = answer
        super().__init__(reason)


class Session:
    """The back-end's side of one conversation."""

    def __init__(self, offer: Offer) -> None:
        self.state = SessionState(offer)
        self._input = bytearray()
        self._fds: list[Fd] = []
        self.messages = 0
        self.refused = 0

    @property
    def missing(self) -> int:
        """Bytes that complete the header or the message begun; never 0.

        Reading no more than these keeps the fds of one message apart from those
        of the next.
        """
        if len(self._input) < HEADER.size:
            return HEADER.size - len(self._input)
        return HEADER.size + self._header().size - len(self._input)

    def _header(self) -> Header:
        return Header.unpack(bytes(self._input[: HEADER.size]))

    def receive(self, data: bytes, fds: Sequence[int]) -> Message | None:
        """Take in what was read; returns a message once it is whole.

        The fds change hands at once.  Raises FrontendError when the stream
        cannot be made sense of; the conversation is over then.
        """
        begun = bool(self._input)
        self._fds += map(Fd, fds)
        self._input += data
        if fds and begun:
            # Else their number would be bounded by nothing but the message's length.
            raise FrontendError("file descriptors in the middle of a message")
        if len(self._input) < HEADER.size:
            return None
        header = self._header()
        name = request_name(header.request)
        if header.version != VERSION:
            raise FrontendError(f"{name}: protocol version {header.version}")
        if header.is_reply:
            raise FrontendError(f"{name}: a reply to nothing")
        if header.size > MAX_PAYLOAD:
            raise FrontendError(f"{name}: {header.size} bytes of payload")
        if len(self._input) < HEADER.size + header.size:
            return None
        payload = bytes(self._input[HEADER.size :])
        self._input.clear()
        given, self._fds = self._fds, []
        return Message(header, payload, given)

    def handle(self, message: Message, perform: Callable[[Action], Any]) -> bytes:
        """Carry out one message; returns what to send, often nothing.

        ``perform`` carries out the actions and returns their results.  Raises
        RefusedError for a message that was turned down and is acknowledged so;
        any other FrontendError means that the conversation is over.
        """
        self.messages += 1
        row = TABLE.get(message.header.request)
        try:
            payload = _run(self._admitted(row, message), perform)
        except PyvnetError as error:
            self.refused += 1
            if self._acknowledges(row, message):
                answer = reply(message.header.request, pack_u64(_FAILURE))
                raise RefusedError(f"{message.name} refused: {error}", answer) from error
            raise FrontendError(f"{message.name}: {error}") from error
        finally:
            close_all(message.fds)
        if payload is not None:
            return reply(message.header.request, payload)
        if self._acknowledges(row, message):
            return reply(message.header.request, pack_u64(_ACK))
        return b""

    def _admitted(self, row: Row | None, message: Message) -> Steps | Answer:
        """The handler's steps; raises FrontendError when the row does not let the message in."""
        if row is None:
            raise FrontendError("not supported")
        if row.needs & ~self.state.protocol_features:
            raise FrontendError(f"protocol feature {row.needs.name} was not negotiated")
        if len(message.fds) not in row.fds:
            raise FrontendError(f"{len(message.fds)} file descriptors")
        if row.empty and message.payload:
            raise FrontendError(f"{len(message.payload)} bytes of payload")
        return row.handler(self.state, message)

    def _acknowledges(self, row: Row | None, message: Message) -> bool:
        """Whether this front-end waits for word on this message."""
        wanted = message.header.need_reply
        agreed = self.state.protocol_features & ProtocolFeature.REPLY_ACK
        return bool(wanted and agreed) and not (row is not None and row.answers)

    def close(self, perform: Callable[[Action], Any]) -> None:
        """The conversation is over: stop every ring, let go of memory and fds.

        All of it, whatever fails on the way; raises the first error afterwards.
        """
        errors: list[PyvnetError] = []

        def attempt(action: Action) -> Any:
            try:
                return perform(action)
            except PyvnetError as error:
                errors.append(error)
                return 0, 0  # of a ring, where it stands

        try:
            _run(self._end(), attempt)
        finally:
            close_all(self._fds)
            self._fds = []
            self.state.close()
        if errors:
            raise errors[0]

    def _end(self) -> SubSteps:
        yield from rings.halt_all(self.state)
        yield SetMemory(())


def _run(steps: Steps | SubSteps | Answer, perform: Callable[[Action], Any]) -> Answer:
    """Drive a handler: give it each action's result, or raise the action's error in it."""
    if not isinstance(steps, Generator):
        return steps
    try:
        action = next(steps)
        while True:
            try:
                result = perform(action)
            except PyvnetError as error:
                action = steps.throw(error)
            else:
                action = steps.send(result)
    except StopIteration as done:
        answer: Answer = done.value
        return answer
