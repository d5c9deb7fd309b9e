# SPDX-License-Identifier: MIT
"""A front-end cuts its guest memory off while frames and commands are under way."""

from __future__ import annotations

import asyncio
import os
import struct
from itertools import product
from typing import TYPE_CHECKING, Final

from pyvnet.spec.vhost_user import (
    RegionDescription,
    Request,
    message,
    pack_memory_table,
    pack_region,
)
from tests.hostile.rig import expect_held, held
from tests.hostile.vhost_user.test_conversations import attack, named
from tests.hostile.vhost_user.world import (
    ANSWERED,
    CONTROLQ,
    DEADLINE,
    GPA,
    REGION,
    SIZE,
    UVA,
    World,
    opening,
    ring,
    say,
    world,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

RX, TX = 0, 1
# Rings lie in one file, what their chains are made of in another behind it.
DATA: Final = RegionDescription(GPA + SIZE, SIZE, UVA + SIZE, 0)
WRITE, NEXT = 2, 1
COMMAND: Final = b"\4\0\1\0"  # VQ_PAIRS_SET 1
FRAME: Final = b"\xff" * 60
REASON: Final = "its guest memory went away while it was mapped"


class Doomed:
    """A front-end whose rings are full of chains; they become available one by one."""

    def __init__(self, here: World) -> None:
        self.here, self.sent = here, 0
        self.files = {
            "rings": os.memfd_create("pyvnet-hostile", os.MFD_CLOEXEC),
            "data": os.memfd_create("pyvnet-hostile", os.MFD_CLOEXEC),
        }
        for fd in self.files.values():
            os.truncate(fd, SIZE)
        self.kicks = {index: os.eventfd(0, os.EFD_NONBLOCK) for index in (RX, TX, CONTROLQ)}
        self.offered = dict.fromkeys(self.kicks, 0)
        self.liar = here.connect()

    def _write(self, file: str, at: int, data: bytes) -> None:
        os.pwrite(self.files[file], data, at)

    def _chains(self, index: int) -> None:
        """Chain n is descriptors 2n and 2n + 1, over 1 KiB of data."""
        for n in range(16):
            at = index * 0x4000 + n * 0x400
            if index == RX:
                pieces = [(at, 0x400, WRITE)]
            elif index == TX:
                pieces = [(at, 12, NEXT), (at + 12, len(FRAME), 0)]
                self._write("data", at + 12, FRAME)
            else:
                pieces = [(at, len(COMMAND), NEXT), (at + 0x200, 1, WRITE)]
                self._write("data", at, COMMAND)
            for i, (where, length, flags) in enumerate(pieces):
                desc = struct.pack("<QIHH", DATA.gpa + where, length, flags, 2 * n + i + 1)
                self._write("rings", index * 0x4000 + 16 * (2 * n + i), desc)
            self._write("rings", index * 0x4000 + 0x1004 + 2 * n, struct.pack("<H", 2 * n))

    async def start(self) -> None:
        """All rings run."""
        for index in self.kicks:
            self._chains(index)
        for said in (*opening(), *ring(RX), *ring(TX), *ring(CONTROLQ)):
            if said.request == Request.SET_MEM_TABLE:
                table = message(said.request, pack_memory_table((REGION, DATA)))
                self.liar.utter(table, map(os.dup, self.files.values()))
            elif said.request == Request.SET_VRING_KICK:
                self.liar.utter(said.data, [os.dup(self.kicks[said.data[12]])])
            elif said.request not in ANSWERED:
                self.liar.say(said)
        assert await self.liar.ask(Request.GET_FEATURES)

    def use(self, index: int, *, offer: bool = True) -> None:
        """Something to do for a ring, with one chain more unless the ring is no more."""
        if offer:
            self.offered[index] += 1
            self._write("rings", index * 0x4000 + 0x1002, struct.pack("<H", self.offered[index]))
        os.eventfd_write(self.kicks[index], 1)
        if index == RX:
            self.here.port.wire(0).send(FRAME)
            self.sent += 1

    def cut(self, what: str) -> None:
        """Take a file's bytes away; nobody may write to it after that."""
        os.truncate(self.files[what], 0)

    async def end(self) -> str:
        """Why the back-end hung up; each frame found its way or its end."""
        reason = await self.liar.over()
        for fd in (*self.files.values(), *self.kicks.values()):
            os.close(fd)
        return reason


def turns() -> Iterator[tuple[str, int, int]]:
    """What is cut, which ring is the first to touch it, how much went well before."""
    yield from product(("rings", "data"), (RX, TX, CONTROLQ), (0, 4))


def port_frames(here: World) -> int:
    """Frames taken from the victim's host port so far."""
    return here.device.statistics(0).rx_port_frames


async def test_who_cuts_its_memory_off_is_dropped_and_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line says so; the neighbour loses no frame; the next front-end is served."""
    async with world(caplog) as here:
        await here.works()
        before = held()
        for what, index, well in turns():
            with named(f"{what} cut under vring {index} after {well} rounds"):
                doomed, already = Doomed(here), port_frames(here)
                await doomed.start()
                here.lines()
                here.neighbour.begin()
                for _ in range(well):
                    for each in doomed.kicks:
                        doomed.use(each)
                doomed.cut(what)
                doomed.use(index, offer=what != "rings")
                assert await doomed.liar.hung_up() == REASON
                await here.neighbour.end()
                assert here.lines() == [f"victim: front-end disconnected: {REASON}"]
                assert not here.backend.connected
                async with asyncio.timeout(DEADLINE):
                    while port_frames(here) < already + doomed.sent:
                        here.neighbour.begin()
                        await here.neighbour.end()
                await doomed.end()
        expect_held(before)
        assert here.lines() == []
        await here.works()


async def test_a_region_added_beyond_the_end_of_its_file_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world(caplog) as here:
        before = held()
        for kind in ("short memory", "empty memory"):
            added = say(Request.ADD_MEM_REG, pack_region(DATA), kind)
            await attack(here, [*opening(), *ring(RX), *ring(TX), added], "memory")
        expect_held(before)
        await here.works()
