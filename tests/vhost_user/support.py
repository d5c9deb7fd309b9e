# SPDX-License-Identifier: MIT
"""A front-end's hand for tests: messages by name, and a note of what they made happen."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

import pytest

from pyvnet.errors import FrontendError
from pyvnet.spec.features import Feature
from pyvnet.spec.vhost_user import (
    F_PROTOCOL_FEATURES,
    HEADER,
    VRING_NO_FD,
    Header,
    RegionDescription,
    Request,
    VringAddress,
    VringState,
    message,
    pack_memory_table,
    pack_u64,
    unpack_u64,
)
from pyvnet.transport.vhost_user import actions
from pyvnet.transport.vhost_user.messages import PROTOCOL_FEATURES, TABLE
from pyvnet.transport.vhost_user.session import RefusedError, Session
from pyvnet.transport.vhost_user.state import Offer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.transport.vhost_user.actions import Action

OFFER = (
    Feature.VERSION_1
    | Feature.MAC
    | Feature.CTRL_VQ
    | Feature.MQ
    | Feature.RSS
    | Feature.HASH_REPORT
    | Feature.MRG_RXBUF
)
PAIRS = 2
CONTROLQ = 2 * PAIRS

GPA = 0x10_0000
UVA = 0x7F00_0000_0000
SIZE = 0x10_0000


def memory_fd(size: int = SIZE) -> int:
    fd = os.memfd_create("pyvnet-test-frontend", os.MFD_CLOEXEC)
    os.truncate(fd, size)
    return fd


def event_fd() -> int:
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


class RefusalError(Exception):
    """The back-end answered that it refused."""


class Conversation:
    """A session and a world that does what it asks, noting it down.

    ``fails`` maps a kind of action to the error its next instance meets;
    ``positions`` is where rings stand when they are stopped.
    """

    def __init__(
        self, *, features: int = int(OFFER), pairs: int = PAIRS, queue_num: int | None = None
    ) -> None:
        self.session = Session(
            Offer(features, PROTOCOL_FEATURES, pairs, pairs if queue_num is None else queue_num)
        )
        self.actions: list[Action] = []
        self.fails: dict[type, Exception] = {}
        self.positions: dict[int, int] = {}
        self.device_status = 0
        self.open = True
        self.need_reply = False

    @property
    def state(self) -> Any:
        return self.session.state

    def perform(self, action: Action) -> Any:
        if (error := self.fails.pop(type(action), None)) is not None:
            raise error
        self.actions.append(action)
        match action:
            case actions.StopRing(index):
                return self.positions.get(index, 0), self.positions.get(index, 0)
            case actions.ReadConfig(_offset, size):
                return bytes(range(size % 256)).ljust(size, b"\0")
            case actions.ReadStatus():
                return self.device_status
            case actions.OpenBackendChannel(fd):
                os.close(fd.take())
        return None

    def took(self) -> list[Action]:
        """What was asked for since the last look."""
        taken, self.actions = self.actions, []
        return taken

    def raw(self, data: bytes, fds: Sequence[int] = ()) -> bytes:
        """Feed bytes as they are, read as the connection does; returns what came back."""
        given = list(fds)
        answers = b""
        while data:
            part, data = data[: self.session.missing], data[self.session.missing :]
            whole = self.session.receive(part, given)
            given = []
            if whole is not None:
                answers += self.session.handle(whole, self.perform)
        return answers

    def send(
        self,
        request: int,
        payload: bytes = b"",
        fds: Sequence[int] = (),
        *,
        need_reply: bool = False,
    ) -> bytes | None:
        """One request; returns the payload of the answer, None without one.

        Raises RefusalError when the back-end says no, FrontendError when it hangs up.
        """
        wanted = need_reply or self.need_reply
        try:
            answer = self.raw(message(request, payload, need_reply=wanted), fds)
        except RefusedError as refused:
            raise RefusalError(str(refused)) from refused
        except FrontendError:
            self.open = False
            raise
        if not answer:
            return None
        header = Header.unpack(answer[: HEADER.size])
        assert header.request == request
        assert header.is_reply
        assert header.size == len(answer) - HEADER.size
        return answer[HEADER.size :]

    def ask(self, request: int) -> int:
        """A request whose answer is a u64."""
        answer = self.send(request)
        assert answer is not None
        return unpack_u64(answer)

    def tell(self, request: int, value: int) -> bytes | None:
        return self.send(request, pack_u64(value))

    # The usual sequences.

    def negotiate(
        self, features: int = int(OFFER), *, protocol: int = int(PROTOCOL_FEATURES)
    ) -> None:
        self.tell(Request.SET_PROTOCOL_FEATURES, protocol)
        self.send(Request.SET_OWNER)
        self.tell(Request.SET_FEATURES, features | F_PROTOCOL_FEATURES)

    def give_memory(self, *regions: RegionDescription) -> None:
        regions = regions or (RegionDescription(GPA, SIZE, UVA, 0),)
        self.send(Request.SET_MEM_TABLE, pack_memory_table(regions), [memory_fd() for _ in regions])

    def describe(self, index: int, *, size: int = 256, base: int = 0) -> None:
        at = UVA + index * 0x4000
        self.send(Request.SET_VRING_NUM, VringState(index, size).pack())
        self.send(Request.SET_VRING_BASE, VringState(index, base).pack())
        self.send(
            Request.SET_VRING_ADDR,
            VringAddress(index, 0, at, at + 0x2000, at + 0x1000).pack(),
        )

    def kick(self, index: int, *, fd: bool = True) -> None:
        if fd:
            self.send(Request.SET_VRING_KICK, pack_u64(index), [event_fd()])
        else:
            self.tell(Request.SET_VRING_KICK, index | VRING_NO_FD)

    def enable(self, index: int, *, on: bool = True) -> None:
        self.send(Request.SET_VRING_ENABLE, VringState(index, int(on)).pack())

    def base(self, index: int) -> int:
        answer = self.send(Request.GET_VRING_BASE, VringState(index, 0).pack())
        assert answer is not None
        return VringState.unpack(answer).num

    def start(self, *indexes: int, base: int = 0) -> None:
        """All rings of a front-end that describes them before it starts the first."""
        for index in indexes:
            self.describe(index, base=base)
        for index in indexes:
            self.kick(index)
            self.enable(index)

    def take_out_memory_of(self, index: int) -> None:
        """Describe a started ring anew, where there is no memory."""
        at = UVA + SIZE
        self.send(Request.SET_VRING_ADDR, VringAddress(index, 0, at, at, at).pack())

    def ready(self, **options: Any) -> None:
        self.negotiate(**options)
        self.give_memory()

    def close(self) -> None:
        self.session.close(self.perform)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def refused(front: Conversation, request: int, payload: bytes = b"", fds: int = 0) -> None:
    """Refused with an acknowledgement, and without one the end; either way nothing was done."""
    front.took()
    row = TABLE.get(request)
    kind = FrontendError if row is not None and row.answers else RefusalError
    with pytest.raises(kind):
        front.send(request, payload, [event_fd() for _ in range(fds)], need_reply=True)
    with pytest.raises(FrontendError):
        front.send(request, payload, [event_fd() for _ in range(fds)])
    assert front.took() == []
