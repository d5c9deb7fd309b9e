# SPDX-License-Identifier: MIT
"""A victim with something of its own in a file that is cut off under it.

After `Doomed.cut` this process must not touch those bytes itself: our own
mapping of the file is not guest memory of an engine, and reading it is fatal.
"""

from __future__ import annotations

import os
import select
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

from pyvnet.datapath.engine import MalformedCommandError, MemoryLost
from pyvnet.datapath.memory import GuestMemory
from pyvnet.driver import memory as guest
from pyvnet.errors import DriverError
from pyvnet.spec.ring import Desc
from tests.hostile.attack import COMMAND, CTRL, FRAME, INDIRECT, NEXT, RX, TX, WRITE
from tests.hostile.rig import HDR, PAGE, Rig, Ring

if TYPE_CHECKING:
    from pyvnet.datapath.engine import PortGone, RingBroken

GPA: Final = 0x20_0000_0000
# What may lie in the file.  A frame is sent from two pieces; only the second is "payload".
PLACES: Final = ("desc table", "avail ring", "used ring", "indirect table", "buffer", "payload")
_SECONDS: Final = 10.0


class Doomed:
    """One chain on a queue of ``role``, with ``place`` in the file; `launch` lets it be seen."""

    def __init__(self, rig: Rig, role: str, place: str, *, size: int = 4 * PAGE) -> None:
        self.rig, self.role, self.place = rig, role, place
        self.index = {TX: 1, RX: 0, CTRL: 2 * rig.pairs}[role]
        self._stack = ExitStack()
        self.memory = self._stack.enter_context(
            guest.GuestMemory([guest.RegionSpec(GPA, size)], name="-doomed")
        )
        self._fd = self.memory.regions[0].fd
        regions = (*rig.arena.regions, *self.memory.regions)
        with GuestMemory(regions, rig.native) as table:
            rig.engine.set_memory(table)
        self._stack.callback(rig.engine.set_memory, rig.table)
        if role == RX:
            self._spare_the_lane()
        rig.arena.wipe()
        at = {
            name: self._take(f"{name} {kind}", bytes_, align)
            for name, kind, bytes_, align in (
                ("desc", "table", 128, 16),
                ("avail", "ring", 22, 2),
                ("used", "ring", 70, 4),
            )
        }
        self.ring = Ring(rig.arena, 8, **at)
        self._chain()
        rig.start(self.ring, self.index)
        rig.settle()  # a ring that starts is looked at
        self._stack.callback(rig.engine.stop_queue, self.index)

    def _spare_the_lane(self) -> None:
        """By RSS, so that no frame finds its way to the victim's other pair, which stands still."""
        rig = self.rig
        lanes, rig.lanes = rig.lanes, rig.lanes[1:]
        self._stack.callback(setattr, rig, "lanes", lanes)
        rig.set_policy(mode="rss", hash_types=0)
        self._stack.callback(rig.set_policy)

    def _take(self, what: str, size: int, align: int = 1) -> int:
        if what == self.place:
            return self.memory.alloc(size, align=align)
        return self.rig.arena.take(size, align)

    def _poke(self, gpa: int, data: bytes) -> None:
        (self.memory if gpa >= GPA else self.rig.arena.memory).write(gpa, data)

    def _chain(self) -> None:
        pieces = {
            TX: [
                (bytes(HDR), "buffer"),
                (FRAME, "payload" if self.place == "payload" else "buffer"),
            ],
            RX: [(bytes(HDR + len(FRAME)), "buffer")],
            CTRL: [(COMMAND, "buffer"), (b"\xff", "buffer")],
        }[self.role]
        descs = []
        for i, (data, what) in enumerate(pieces):
            gpa = self._take(what, len(data))
            self._poke(gpa, data)
            writable = self.role == RX or (self.role == CTRL and i == 1)
            flags = (WRITE if writable else 0) | (NEXT if i < len(pieces) - 1 else 0)
            descs.append(Desc(gpa, len(data), flags, i + 1))
        if self.place == "indirect table":
            table = self._take(self.place, 16 * len(descs), 16)
            self._poke(table, b"".join(desc.pack() for desc in descs))
            descs = [Desc(table, 16 * len(descs), INDIRECT, 0)]
        for i, desc in enumerate(descs):
            self._poke(self.ring.desc + 16 * i, desc.pack())

    def offer(self) -> None:
        """Make the chain available; nobody kicks."""
        self._poke(self.ring.avail, bytes(2) + b"\x01\0" + bytes(2))

    def cut(self, size: int = 0) -> None:
        """Take the bytes of the file from ``size`` on away."""
        os.ftruncate(self._fd, size)

    def trigger(self) -> None:
        """Let the engine look at the ring, and use what it finds."""
        if self.role == CTRL:
            self._command()
        elif self.role == RX:
            self.rig.wire.send(FRAME)
        else:
            self.rig.notify()
        self.rig.settle()

    def _command(self) -> None:
        try:
            if self.rig.engine.ctrl_pop():
                self.rig.engine.ctrl_complete(b"\0")
        except (MalformedCommandError, DriverError):
            pass

    def events(self) -> list[RingBroken | PortGone | MemoryLost]:
        """Wait for one event at least; all there are."""
        waiting = select.poll()
        waiting.register(self.rig.engine.event_fd, select.POLLIN)
        assert waiting.poll(_SECONDS * 1000), "nothing was reported"
        self.rig.settle()
        events = []
        while (event := self.rig.engine.next_event()) is not None:
            events.append(event)
        return events

    def expect_lost(self) -> None:
        """The loss is reported once, however often memory is touched after it."""
        assert self.events().count(MemoryLost()) == 1
        for _ in range(3):
            self.trigger()
        assert self.rig.engine.next_event() != MemoryLost()

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
