# SPDX-License-Identifier: MIT
"""Rings and descriptors: indirect tables, huge chains, the control queue's index (section B)."""

from __future__ import annotations

import struct
from itertools import product
from typing import TYPE_CHECKING

import pytest

from pyvnet.datapath.engine import BreakReason
from pyvnet.datapath.memory import GuestMemory
from pyvnet.driver import memory as guest
from pyvnet.spec.ring import Desc
from tests.hostile.attack import COMMAND, FRAME, INDIRECT, NEXT, ROLES, TX, WRITE, Attack
from tests.hostile.forms import repeated, three_forms
from tests.hostile.rig import HDR, UNMAPPED, Rig, Ring, guarded

if TYPE_CHECKING:
    from pyvnet.datapath.native import Native

GIB = 1 << 30


@repeated
@three_forms
@pytest.mark.requirement("PF-B-12", "VIO-SPL-05")
def test_an_indirect_table_lies_anywhere(rig: Rig, variant: str, repeats: int) -> None:
    """At odd addresses too; and what its descriptor says of WRITE means nothing."""
    for turn in range(repeats):
        role, offset = ROLES[turn % 3], turn // 3 % 17
        with guarded():
            table = (rig.arena.end - 4096) + offset
            attack = Attack(rig, role, indirect=True, table=table)
            attack.ring.put(0, Desc(table, 48, INDIRECT | (WRITE if turn % 2 else 0), 0xFFFF))
            earlier: tuple[tuple[int, int], ...] = ()
            if variant == "unwind":
                attack.fail_start(turn)
            attack.start()
            if variant == "unwind" and role != TX:
                earlier = attack.fail_midway(turn)
            if variant == "flip":
                rig.flip(table + 16 * (turn % 3), Desc(UNMAPPED, 1, NEXT, 0xFFFF).pack())
            rig.begin()
            attack.launch()
            assert earlier == ()
            attack.expect_good()
            flipped = [(table + 16 * (turn % 3), 16)] if variant == "flip" else []
            assert not flipped or rig.reads == 1
            attack.finish(*flipped, *attack.written())


@repeated
@three_forms
@pytest.mark.requirement("PF-B-13", "VIO-SPL-06")
def test_each_table_has_its_own_limit(rig: Rig, variant: str, repeats: int) -> None:
    """Descriptors, then a table; then a direct chain that goes beyond that table's length."""
    data = bytes(HDR) + FRAME
    for turn in range(repeats):
        with guarded():
            rig.arena.wipe()
            ring = Ring(rig.arena)
            gpa = rig.arena.take(len(data))
            rig.arena.memory.write(gpa, data)
            cut = 1 + turn % (len(data) - 2)
            table = rig.arena.take(16, 16)
            rig.arena.memory.write(table, Desc(gpa + cut, len(data) - cut, 0, 0).pack())
            ring.put(0, Desc(gpa, cut, NEXT, 7))
            ring.put(7, Desc(table, 16, INDIRECT, 0))
            ring.put(1, Desc(gpa, 1, NEXT, 6))
            ring.put(6, Desc(gpa + 1, 1, NEXT, 5))
            ring.put(5, Desc(gpa + 2, len(data) - 2, 0, 0))
            before = rig.engine.statistics(0)
            rig.start(ring, 1)
            lost = variant == "unwind"
            if variant == "flip":
                rig.flip(ring.desc + 16 * 7, Desc(table, 16 * 9, INDIRECT | NEXT, 9).pack())
            if lost:
                rig.fail(5, 1 + turn % 2)  # the port refuses one of the two
            else:
                rig.begin()
            ring.offer(0, 1)
            rig.arena.freeze()
            rig.notify()
            rig.settle()
            rig.disarm()
            assert rig.received() == [FRAME] * (2 - lost)
            assert rig.engine.statistics(0).tx_drop_port == before.tx_drop_port + lost
            assert ring.taken() == [(0, 0), (1, 0)]
            rig.expect_quiet(1)
            rig.engine.stop_queue(1)
            if lost:
                rig.begin()
            rig.end(ring.used_area, (ring.desc + 16 * 7, 16))


@repeated
@three_forms
@pytest.mark.requirement("PF-B-11", "VIO-SPL-17")
def test_a_chain_of_more_bytes_than_a_length_can_say(
    hooked: Native, variant: str, repeats: int
) -> None:
    """2^32 - 1 is a chain, one more byte is malformed, and nothing of it is touched."""
    huge = guest.RegionSpec(0x10_0000_0000, 5 * GIB)
    with Rig(hooked) as rig, guest.GuestMemory([huge]) as far:
        regions = (*rig.arena.regions, *far.regions)
        with GuestMemory(regions, hooked) as table:
            rig.engine.set_memory(table)
            for turn, role in zip(range(repeats), ROLES * repeats, strict=False):
                with guarded():
                    attack = Attack(rig, role)
                    direction = attack.descs[0].flags
                    huge_one = Desc(huge.gpa, 0xFFFF_FFFF, direction, 1)
                    forged = {0: huge_one, 1: attack.descs[1]._replace(length=0xFFFF_FFFF)}
                    if role == "ctrl":
                        forged = {0: huge_one, 1: Desc(huge.gpa, 1 + turn % 3, 0, 0)}
                    if variant == "unwind":
                        attack.fail_start(turn)
                    attack.start()
                    if variant == "flip":
                        rig.flip(attack.gpa(0), forged[0].pack(), table)
                    else:
                        attack.forge(forged)
                    rig.begin()
                    attack.launch()
                    if variant == "flip":
                        attack.expect_good()
                        assert rig.reads == 1
                    else:
                        attack.expect_drop()
                    attack.finish((attack.gpa(0), 16), *attack.written())
            rig.engine.set_memory(rig.table)


@three_forms
@pytest.mark.requirement("PF-B-07", "NET-CVQ-03")
@pytest.mark.timeout(300)
def test_more_commands_than_an_index_can_count(rig: Rig, variant: str) -> None:
    """65,536 + 17 of them on a queue of 64, each answered once."""
    rounds = 65_536 + 17
    rig.arena.wipe()
    ring = Ring(rig.arena, 64)
    request, answer = rig.arena.take(2), rig.arena.take(1)
    rig.arena.memory.write(request, COMMAND)
    for i in range(0, 64, 2):
        ring.put(i, Desc(request, 2, NEXT, i + 1))
        ring.put(i + 1, Desc(answer, 1, WRITE, 0))
    rig.start(ring, 2 * rig.pairs)
    rig.begin()
    for turn in range(rounds):
        head = 2 * turn % 64
        if variant == "flip" and turn % 1000 == 0:
            rig.flip(ring.entry(turn), b"\xff\xff")
        ring.offer(head)
        if variant == "unwind" and turn % 1000 == 0:
            # A command waits for its answer: no second one is taken, and the ring is resumed.
            assert rig.engine.ctrl_pop() == (COMMAND, 1)
            state = rig.engine.stop_queue(2 * rig.pairs)
            assert (state.avail_base, state.used_base) == (turn & 0xFFFF,) * 2
            ring.start = turn & 0xFFFF
            rig.start(ring, 2 * rig.pairs)
        assert rig.engine.ctrl_pop() == (COMMAND, 1)
        rig.engine.ctrl_complete(b"\0")
        assert rig.arena.load16(ring.used + 2) == (turn + 1) & 0xFFFF
        element = rig.arena.memory.read(ring.used + 4 + 8 * (turn % 64), 8)
        assert element == struct.pack("<II", head, 1)
    assert rig.engine.ctrl_pop() is None
    rig.expect_quiet(2 * rig.pairs)
    rig.disarm()
    rig.arena.freeze()
    rig.engine.stop_queue(2 * rig.pairs)
    rig.end()


@three_forms
@pytest.mark.requirement("CVE-2016-5403", "VIO-SPL-02", "VIO-SPL-17")
def test_more_pieces_than_a_chain_may_have(rig: Rig, variant: str) -> None:
    """1024 pieces of host memory are a chain, one more breaks the ring."""
    for pieces, indirect in product((1023, 1024, 1025, 2000), (False, True)):
        with guarded():
            rig.arena.wipe()
            ring = Ring(rig.arena, 2048)
            gpa = rig.arena.take(2048)
            rig.arena.memory.write(gpa, bytes(HDR) + FRAME.ljust(2036, b"\0"))
            table = rig.arena.take(16 * pieces, 16) if indirect else ring.desc
            for i in range(pieces):
                more = i < pieces - 1
                desc = Desc(gpa + i, 1, NEXT if more else 0, i + 1 if more else 0)
                rig.arena.memory.write(table + 16 * i, desc.pack())
            if indirect:
                ring.put(0, Desc(table, 16 * pieces, INDIRECT, 0))
            rig.start(ring, 1)
            if variant == "flip":  # the last one turns into a loop
                rig.flip(table + 16 * (pieces - 1), Desc(gpa, 1, NEXT, 0).pack())
            if variant == "unwind":
                rig.fail(5, 1)
            else:
                rig.begin()
            ring.offer(0)
            rig.arena.freeze()
            rig.notify()
            rig.settle()
            rig.disarm()
            if pieces > 1024:
                rig.expect_broken(1, BreakReason.CHAIN_TOO_LONG)
                assert rig.received() == []
            else:
                assert [len(data) for data in rig.received()] == [pieces - HDR] * (
                    variant != "unwind"
                )
                rig.expect_quiet(1)
            rig.engine.stop_queue(1)
            if variant == "unwind":
                rig.begin()
            rig.end(ring.used_area, (table + 16 * (pieces - 1), 16))
