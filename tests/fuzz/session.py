# SPDX-License-Identifier: MIT
"""Fuzz target: a vhost-user session, any bytes with any fds.

Invariant: it answers or raises FrontendError, asks of the engine only what the
state of its rings and memory allows, and leaves the process the file descriptors
it had.

An input is a list of steps, each begun by a byte: its low two bits say what
kind, the next three how many fds come with it (one byte each says of what kind),
the top bit whether the next action fails.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Final

from pyvnet.errors import FrontendError, HostError
from pyvnet.spec.vhost_user import FLAG_NEED_REPLY, VERSION, Header
from pyvnet.transport.vhost_user import actions
from pyvnet.transport.vhost_user.messages import PROTOCOL_FEATURES
from pyvnet.transport.vhost_user.session import RefusedError, Session
from pyvnet.transport.vhost_user.state import Offer
from tests.fuzz.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.spec.transport import MemoryRegion

OFFERED: Final = (1 << 32) | (1 << 17) | (1 << 22) | (1 << 15) | (1 << 5) | (1 << 60)
PAIRS: Final = 2
RAW, MESSAGE, MESSAGE_WITH_ACK = range(3)
ROOT: Final = os.path.dirname(__file__)  # noqa: PTH120 - a name to open, not to work with


def _memfd(size: int) -> int:
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC)
    os.truncate(fd, size)
    return fd


def _one_of(ends: tuple[int, int], kept: int) -> int:
    os.close(ends[1 - kept])
    return ends[kept]


def _socketpair() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


FDS: Final[tuple[Callable[[], int], ...]] = (
    lambda: os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK),
    lambda: _memfd(1 << 20),
    lambda: _memfd(0),
    lambda: _one_of(_socketpair(), 0),  # its peer is closed
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach(),
    lambda: _one_of(os.pipe(), 0),
    lambda: _one_of(os.pipe(), 1),
    lambda: os.open(__file__, os.O_RDONLY),
    lambda: os.open(os.devnull, os.O_RDWR),
    lambda: os.open(ROOT, os.O_RDONLY),
    lambda: os.open(ROOT, os.O_PATH),
)


class Engine:
    """What is below a session, in so far as it may be asked wrongly."""

    def __init__(self) -> None:
        self.negotiated = False
        self.running: set[int] = set()
        self.regions: tuple[MemoryRegion, ...] = ()
        self.fails = 0  # what the next action does: nothing, or one of these errors

    def perform(self, action: actions.Action) -> Any:
        self._check(action)
        fails, self.fails = self.fails, 0
        # A ring that is to stop does stop.
        if fails and not isinstance(action, actions.StopRing):
            raise (FrontendError if fails == 1 else HostError)("made to fail")
        return self._do(action)

    def _check(self, action: actions.Action) -> None:
        match action:
            case actions.StartRing(setup):
                assert self.negotiated, "a ring before features"
                assert setup.index not in self.running, "a ring started twice"
                assert 1 <= setup.size <= 32768
                assert not setup.size & (setup.size - 1)
                for address in (setup.desc_table, setup.avail_ring, setup.used_ring):
                    assert any(r.gpa <= address < r.gpa + r.size for r in self.regions)
                _open(setup.kick_fd, setup.call_fd, setup.err_fd)
            case actions.StopRing(index) | actions.EnableRing(index):
                assert index in self.running, "a ring that does not run"
            case actions.MoveRing(index):
                assert index in self.running, "a ring that does not run"
            case actions.ReplaceKick(index, kick_fd):
                assert index in self.running, "a ring that does not run"
                _open(kick_fd)
            case actions.ReplaceCalls(index, call_fd, err_fd):
                assert index in self.running, "a ring that does not run"
                _open(call_fd, err_fd)
            case actions.SetMemory(regions):
                _disjoint(regions)
            case actions.Negotiate() if self.running:
                assert self.negotiated
            case actions.ResetDevice():
                assert not self.running, "a reset with rings that run"

    def _do(self, action: actions.Action) -> Any:
        match action:
            case actions.Negotiate():
                self.negotiated = True
            case actions.ResetDevice():
                self.negotiated = False
            case actions.SetMemory(regions):
                self.regions = regions
            case actions.StartRing(setup):
                self.running.add(setup.index)
            case actions.StopRing(index):
                self.running.discard(index)
                return index + 1, index + 1
            case actions.ReadConfig(_offset, size):
                return bytes(size)
            case actions.ReadStatus():
                return 0x40
            case actions.OpenBackendChannel(fd):
                os.close(fd.take())
        return None


def _open(*fds: int) -> None:
    for fd in fds:
        assert fd == -1 or os.fstat(fd)


def _disjoint(regions: tuple[MemoryRegion, ...]) -> None:
    end = 0
    for region in sorted(regions, key=lambda each: each.gpa):
        assert region.size
        assert region.gpa >= end, "regions overlap"
        end = region.gpa + region.size
        _open(region.fd)


def _feed(session: Session, engine: Engine, data: bytes, fds: list[int]) -> None:
    """As the connection does: never more than completes a message."""
    while True:
        part, data = data[: session.missing], data[session.missing :]
        message = session.receive(part, fds)
        fds = []
        if message is not None:
            answer = b""
            try:
                answer = session.handle(message, engine.perform)
            except RefusedError as refused:
                answer = refused.answer
            _well_formed(answer, message.header.request)
        if not data:
            return


def _well_formed(answer: bytes, request: int) -> None:
    if answer:
        header = Header.unpack(answer[:12])
        assert header.request == request
        assert header.is_reply
        assert header.version == VERSION
        assert header.size == len(answer) - 12


def _step(session: Session, engine: Engine, reader: Reader) -> None:
    head = reader.byte()
    kinds = [reader.byte() % len(FDS) for _ in range(head >> 2 & 7)]
    engine.fails = (head >> 7) * (1 + (head >> 6 & 1))
    if head & 3 == RAW:
        data = reader.take(reader.word())
    else:
        request = reader.byte()
        payload = reader.take(reader.word() & 0x1FFF)
        flags = VERSION | (FLAG_NEED_REPLY if head & 3 == MESSAGE_WITH_ACK else 0)
        data = Header(request, flags, len(payload)).pack() + payload
    if data:
        _feed(session, engine, data, [FDS[kind]() for kind in kinds])


def check(data: bytes) -> None:
    """Run one input; raises AssertionError when the invariant does not hold."""
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - some hundred thousand times
    reader, engine = Reader(data), Engine()
    session = Session(Offer(OFFERED, PROTOCOL_FEATURES, PAIRS, PAIRS))
    try:
        while reader.more:
            _step(session, engine, reader)
    except FrontendError:
        pass
    finally:
        engine.fails = 0
        session.close(engine.perform)
    assert not engine.running, "rings outlive the conversation"
    assert not engine.regions, "memory outlives the conversation"
    assert os.listdir("/proc/self/fd") == before, "fds outlive the conversation"  # noqa: PTH208
