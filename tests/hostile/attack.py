# SPDX-License-Identifier: MIT
"""One chain, good or forged, on one of the three kinds of queue.

A good chain is written first; a *forgery* replaces some of its descriptors.
So the three forms of a flaw are the same two values, told apart by when the
second one appears:

    static   the forgery is there when the engine looks: the outcome named
    flip     the good descriptor turns into the forged one right after the
             engine read it: it was read once, so the chain goes through
    unwind   as static, after an injected failure has left its marks, or not
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from pyvnet.datapath.engine import BreakReason, MalformedCommandError
from pyvnet.datapath.memory import GuestMemory
from pyvnet.errors import DriverError, HostError
from pyvnet.spec.ring import Desc, DescFlag
from tests.hostile import rig as rigs
from tests.hostile.rig import HDR, Rig, Ring, chain_bytes, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NEXT: Final = int(DescFlag.NEXT)
WRITE: Final = int(DescFlag.WRITE)
INDIRECT: Final = int(DescFlag.INDIRECT)

TX: Final = "tx"
RX: Final = "rx"
CTRL: Final = "ctrl"
ROLES: Final = (TX, RX, CTRL)
VARIANTS: Final = ("static", "flip", "unwind")
HEAD: Final = -1  # forged descriptor: the one in the ring that points to the indirect table
FRAME: Final = frame(7)
COMMAND: Final = b"\x04\x00"

Forgery: TypeAlias = "Callable[[Attack], Mapping[int, Desc]]"


class Case(NamedTuple):
    """One input of a flaw and what must come of it: reasons to BREAK, or none for DROP."""

    forge: Forgery
    reasons: tuple[BreakReason, ...] = ()
    roles: tuple[str, ...] = ROLES
    pieces: int = 3
    indirect: bool = False
    negotiated: bool = True


# What can fail when a ring starts: n-th call of a kind.
_START_FAILURES: Final = (
    (rigs.ALLOC, 1),
    *((rigs.FD, n) for n in (1, 2, 3)),
    (rigs.EPOLL, 1),
)
_MEMORY_FAILURES: Final = ((rigs.ALLOC, 1), *((rigs.MMAP, n) for n in (1, 2, 3, 4)))


def _lengths(role: str, pieces: int) -> list[tuple[int, bool]]:
    if role == RX:
        return [(100 if pieces == 1 else 40, True)] * pieces
    if role == TX:
        total = HDR + len(FRAME)
        sizes = [HDR, *[(total - HDR) // (pieces - 1)] * (pieces - 1)] if pieces > 1 else [total]
        sizes[-1] += total - sum(sizes)
        return [(size, False) for size in sizes]
    return [(2, False)] * max(1, pieces - 1) + [(1, True)] * (pieces > 1)


class Attack:
    """A chain of ``pieces`` buffers at head 0 of a fresh ring of 8."""

    def __init__(
        self,
        rig: Rig,
        role: str,
        *,
        pieces: int = 3,
        indirect: bool = False,
        start: int = 0,
        table: int = 0,
        **at: int,
    ) -> None:
        self.rig, self.role = rig, role
        self.index = {TX: 1, RX: 0, CTRL: 2 * rig.pairs}[role]
        rig.arena.wipe()
        self.ring = Ring(rig.arena, 8, start, **at)
        self.buffers = [
            (rig.arena.take(length), length, write) for length, write in _lengths(role, pieces)
        ]
        last = len(self.buffers) - 1
        self.descs = [
            Desc(
                gpa,
                length,
                (WRITE if write else 0) | (NEXT if i < last else 0),
                i + 1 if i < last else 0,
            )
            for i, (gpa, length, write) in enumerate(self.buffers)
        ]
        self.table = self.ring.desc
        if indirect:
            self.table = table or rig.arena.take(16 * len(self.descs), 16)
        rig.arena.poke(self.table, chain_bytes(self.descs))
        if indirect:
            self.ring.put(0, Desc(self.table, 16 * len(self.descs), INDIRECT, 0))
        self._fill()
        self.before = rig.engine.statistics(0)

    def _fill(self) -> None:
        data = {TX: bytes(HDR) + FRAME, RX: b"", CTRL: COMMAND * len(self.buffers)}[self.role]
        for gpa, length, write in self.buffers:
            if not write:
                self.rig.arena.poke(gpa, data[:length])
                data = data[length:]

    def gpa(self, number: int) -> int:
        """Where descriptor ``number`` of the chain lies."""
        return self.ring.desc if number == HEAD else self.table + 16 * number

    def move(self, number: int, gpa: int) -> None:
        """Put a buffer of the good chain somewhere else."""
        _, length, write = self.buffers[number]
        self.buffers[number] = (gpa, length, write)
        self.descs[number] = self.descs[number]._replace(addr=gpa)
        self.forge({number: self.descs[number]})
        self._fill()

    def forge(self, forged: Mapping[int, Desc]) -> None:
        for number, desc in forged.items():
            self.rig.arena.poke(self.gpa(number), desc.pack())

    def start(self, *, indirect: bool = True) -> None:
        self.rig.start(self.ring, self.index, indirect=indirect)

    def launch(self, *heads: int) -> None:
        """Offer the chain and make the engine look at it."""
        self.ring.offer(*(heads or (0,)))
        self.rig.arena.freeze()
        self.trigger()

    def trigger(self) -> None:
        if self.role == RX:
            self.rig.wire.send(FRAME)
        elif self.role == TX:
            self.rig.notify()
        self.rig.settle()

    def gained(self, counter: str) -> int:
        """How much a counter of the pair has risen."""
        now = self.rig.engine.statistics(0)
        return int(getattr(now, counter)) - int(getattr(self.before, counter))

    # Outcomes.

    def expect_good(self) -> None:
        """The chain went through as it was first read."""
        memory = self.rig.arena.memory
        if self.role == TX:
            assert self.rig.received() == [FRAME]
            assert self.ring.taken() == [(0, 0)]
            assert self.gained("tx_packets") == 1
        elif self.role == RX:
            assert self.ring.taken() == [(0, HDR + len(FRAME))]
            got = b"".join(memory.read(gpa, length) for gpa, length, _ in self.buffers)
            assert got[: HDR + len(FRAME)] == struct.pack("<10xH", 1) + FRAME
            assert self.gained("rx_packets") == 1
        else:
            readable = sum(length for _, length, write in self.buffers if not write)
            writable = sum(length for _, length, write in self.buffers if write)
            command = self.rig.engine.ctrl_pop()
            assert command == ((COMMAND * len(self.buffers))[:readable], writable)
            self.rig.engine.ctrl_complete(b"\0")
            assert self.ring.taken() == [(0, min(writable, 1))]
        self.rig.expect_quiet(self.index)

    def written(self) -> list[tuple[int, int]]:
        """What the device may have written when the chain went through."""
        left = {TX: 0, RX: HDR + len(FRAME), CTRL: 1}[self.role]
        spans = []
        for gpa, length, write in self.buffers:
            if write:
                spans.append((gpa, min(length, left)))
                left -= min(length, left)
        return spans

    def expect_drop(self, earlier: tuple[tuple[int, int], ...] = ()) -> None:
        """The chain came back once with length 0, one counter rose by one, the ring runs."""
        if self.role == CTRL:
            try:
                self.rig.engine.ctrl_pop()
            except MalformedCommandError:
                pass
            else:
                raise AssertionError("a malformed command was taken")
        else:
            counter = "tx_drop_malformed" if self.role == TX else "rx_drop_bad_buffer"
            assert self.gained(counter) == 1
        assert self.ring.taken() == [*earlier, (0, 0)]
        assert self.rig.received() == []
        self.rig.expect_quiet(self.index)

    def expect_break(self, *reasons: BreakReason) -> None:
        """That ring alone stopped; kicks for it are nothing any more."""
        if self.role == CTRL:
            try:
                self.rig.engine.ctrl_pop()
            except MalformedCommandError:
                raise AssertionError("the command was dropped, the ring runs on") from None
            except DriverError:
                pass
            else:
                raise AssertionError("a command was taken")
        self.rig.expect_broken(self.index, *reasons)
        assert self.rig.received() == []
        left = self.ring.taken()
        for _ in range(2):
            self.rig.notify()
            self.rig.settle()
        assert self.ring.taken() == left
        self.rig.expect_still_broken(self.index)
        if self.role != CTRL:
            assert self.gained("rings_broken") == 1

    def finish(self, *allowed: tuple[int, int]) -> None:
        """Stop the ring and check what holds after every attack."""
        self.rig.disarm()
        self.rig.engine.stop_queue(self.index)
        assert self.rig.received() == []
        self.rig.end(self.ring.used_area, *allowed)

    # Failures half way.

    def fail_start(self, turn: int, *, indirect: bool = True) -> None:
        """One thing a start needs is not to be had: refused as a whole."""
        site, countdown = _START_FAILURES[turn % (5 if self.role != CTRL else 4)]
        self.rig.fail(site, countdown)
        try:
            self.rig.start(self.ring, self.index, indirect=indirect)
        except HostError as error:
            assert error.errno in {errno.ENOMEM, errno.EMFILE, errno.ENOSPC}  # noqa: PT017
        else:
            raise AssertionError("a ring started without what it needs")
        self.rig.disarm()
        assert not self.rig.engine.queue_state(self.index).running

    def fail_midway(self, turn: int) -> tuple[tuple[int, int], ...]:
        """What goes wrong while the ring runs: a frame the port refuses, or memory not to be had.

        Returns the used elements this left behind.
        """
        if self.role == TX:
            head = self.ring.size - 1
            whole = self.rig.arena.take(HDR + len(FRAME))
            self.rig.arena.memory.write(whole, bytes(HDR) + FRAME)
            self.ring.put(head, Desc(whole, HDR + len(FRAME), 0, 0))
            self.rig.fail(rigs.PORT_SEND, 1)
            self.launch(head)
            assert self.gained("tx_drop_port") == 1
            self.rig.disarm()
            return ((head, 0),)
        site, countdown = _MEMORY_FAILURES[turn % len(_MEMORY_FAILURES)]
        self.rig.fail(site, countdown)
        try:
            GuestMemory(self.rig.arena.regions, self.rig.native)
        except HostError:
            pass
        else:
            raise AssertionError("memory was mapped without what that needs")
        self.rig.disarm()
        return ()


def run(rig: Rig, role: str, case: Case, variant: str, turn: int) -> None:
    """One attempt of one case in one form."""
    with rigs.guarded():
        attack = Attack(rig, role, pieces=case.pieces, indirect=case.indirect)
        forged = dict(case.forge(attack))
        if variant == "flip":
            _flip(attack, forged, case, turn)
            return
        attack.forge(forged)
        if variant == "unwind" and turn % 2 == 0:
            attack.fail_start(turn // 2, indirect=case.negotiated)
        attack.start(indirect=case.negotiated)
        earlier: tuple[tuple[int, int], ...] = ()
        if variant == "unwind" and turn % 2 and case.pieces < 8:
            earlier = attack.fail_midway(turn // 2)
        rig.begin()
        attack.launch()
        if case.reasons:
            attack.expect_break(*case.reasons)
        else:
            attack.expect_drop(earlier)
        attack.finish()


def _flip(attack: Attack, forged: dict[int, Desc], case: Case, turn: int) -> None:
    number = sorted(forged)[turn % len(forged)]
    attack.start(indirect=case.negotiated)
    attack.rig.flip(attack.gpa(number), forged[number].pack())
    attack.rig.begin()
    attack.launch()
    attack.expect_good()
    assert attack.rig.reads == 1, f"descriptor {number} was read {attack.rig.reads} times"
    attack.finish((attack.gpa(number), 16), *attack.written())
