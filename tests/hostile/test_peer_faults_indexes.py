# SPDX-License-Identifier: MIT
"""Rings and descriptors: indexes, ring addresses, memory not in one piece (section B)."""

from __future__ import annotations

import os
from itertools import product
from typing import TYPE_CHECKING, Final

import pytest

from pyvnet.datapath.engine import BreakReason
from pyvnet.datapath.memory import GuestMemory
from pyvnet.errors import DriverError, UsageError
from pyvnet.spec.ring import Desc
from tests.hostile import rig as rigs
from tests.hostile.attack import FRAME, ROLES, RX, TX, Attack
from tests.hostile.forms import repeated, three_forms
from tests.hostile.rig import PAGE, UNMAPPED, Rig, Ring, guarded

if TYPE_CHECKING:
    from pyvnet.datapath.native import Native

TOO_FAR: Final = BreakReason.AVAIL_INDEX

# (avail.idx less where the ring began, what the first entries say, why it breaks)
_JUMPS = [(9, ()), (16, ()), (17, ()), (0x8000, ()), (-1, ()), (-8, ())]
_HEADS = [(1, (head,)) for head in (8, 9, 0x7FFF, 0x8000, 0xFFFF)]
_TWICE = [(2, (0, 0)), (8, (0,) * 8)]
INDEXES: Final = (
    *((ahead, heads, TOO_FAR) for ahead, heads in _JUMPS),
    *((ahead, heads, BreakReason.DESC_INDEX) for ahead, heads in _HEADS),
    *((ahead, heads, BreakReason.HEAD_IN_USE) for ahead, heads in _TWICE),
)


@repeated
@three_forms
@pytest.mark.requirement("CVE-2016-5403", "PF-B-09", "VIO-SPL-17")
def test_indexes_no_driver_may_write(rig: Rig, variant: str, repeats: int) -> None:
    inputs = [
        (role, start, index)
        for role, start, index in product(ROLES, (0, 0xFFFC), INDEXES)
        # A second look at the same head needs a second chain in one batch.
        if index[2] is not BreakReason.HEAD_IN_USE or role == TX
    ]
    for turn in range(max(repeats, len(inputs))):
        role, start, (ahead, heads, reason) = inputs[turn % len(inputs)]
        with guarded():
            attack = Attack(rig, role, start=start, pieces=1 if heads else 3)
            if variant == "flip":
                _flip_index(attack, ahead, heads, reason)
                continue
            if variant == "unwind":
                attack.fail_start(turn)
            attack.start()
            for i, head in enumerate(heads):
                rig.arena.store16(attack.ring.entry(start + i), head)
            rig.arena.store16(attack.ring.avail_idx, start + ahead)
            rig.arena.freeze()
            rig.begin()
            attack.trigger()
            # What was complete before the second look at a head is not lost.
            complete = reason is BreakReason.HEAD_IN_USE
            assert rig.received() == [FRAME] * complete
            attack.expect_break(reason)
            assert attack.ring.taken() == [(0, 0)] * complete
            attack.finish()


def test_a_ring_that_begins_in_the_middle_where_there_is_nothing(rig: Rig) -> None:
    """Its used.idx is believed, which is no more than SET_VRING_BASE may say."""
    for role, lie in product(ROLES, (1, 9, 0x7FFF, 0x8000, 0xFFF7)):
        with guarded():
            attack = Attack(rig, role)
            rig.arena.store16(attack.ring.used + 2, lie)
            attack.start()
            attack.ring.start = lie
            rig.arena.freeze()
            rig.begin()
            attack.trigger()
            assert rig.received() == []
            attack.expect_break(TOO_FAR)
            attack.finish()


def _flip_index(attack: Attack, ahead: int, heads: tuple[int, ...], reason: BreakReason) -> None:
    """A good chain, and a word that turns bad once it has been read."""
    rig, ring = attack.rig, attack.ring
    attack.start()
    rig.begin()
    if heads:
        last = ring.start + len(heads) - 1
        at, bad = ring.entry(last), heads[-1]
        for i in range(len(heads)):
            ring.put(i, Desc(*attack.descs[0]) if i == 0 else Desc(attack.descs[0].addr, 1, 0, 0))
        if len(heads) == 1:
            rig.flip(at, bad.to_bytes(2, "little"))
            attack.launch()
            attack.expect_good()
            assert rig.reads == 1
        else:
            # All heads are different, and the last turns into the first one's.
            rig.flip(at, bad.to_bytes(2, "little"))
            attack.launch(*range(len(heads)))
            assert rig.received() == [FRAME]
            assert [head for head, _ in ring.taken()] == list(range(len(heads)))
            assert rig.reads == 1
        attack.finish((at, 2), *attack.written())
        return
    # The index is looked at again when what it showed is used up, and judged again.
    # One chain is gone by then, so a jump forward has to be one longer.
    value = ((ring.start + ahead + (ahead > 0)) & 0xFFFF).to_bytes(2, "little")
    rig.flip(ring.avail_idx, value)
    attack.launch()
    if attack.role == TX:
        assert rig.received() == [FRAME]
        attack.expect_break(reason)
        assert ring.taken() == [(0, 0)]
    else:
        attack.expect_good()
        attack.before = rig.engine.statistics(0)
        attack.trigger()
        taken = ring.taken()
        attack.expect_break(reason)
        assert ring.taken() == taken
    attack.finish((ring.avail_idx, 2), *attack.written())


def _addresses(ring: Ring) -> list[dict[str, int]]:
    end = ring.arena.end
    return [
        *({part: UNMAPPED} for part in ("desc", "avail", "used")),
        *({part: ring.arena.base - PAGE} for part in ("desc", "avail", "used")),
        {"desc": end - 112},
        {"avail": end - 20},
        {"used": end - 68},
        {"desc": (1 << 64) - 16},
        {"avail": (1 << 64) - 2},
        {"used": (1 << 64) - 4},
        {"desc": ring.desc + 8},
        {"avail": ring.avail + 1},
        {"used": ring.used + 2},
    ]


@repeated
@three_forms
@pytest.mark.requirement("PF-B-10", "PF-F-09", "VIO-SPL-15")
def test_a_ring_at_a_bad_address_never_runs(rig: Rig, variant: str, repeats: int) -> None:
    for turn in range(repeats):
        role = ROLES[turn % 3]
        with guarded():
            attack = Attack(rig, role)
            places = _addresses(attack.ring)
            place = places[turn // 3 % len(places)]
            good = {"desc": attack.ring.desc, "avail": attack.ring.avail, "used": attack.ring.used}
            rig.begin()
            if variant == "flip":
                _take_memory_away(attack)
                continue
            attack.ring.offer(0)
            if variant == "unwind":
                rig.fail(rigs.ALLOC, 1)
            for part, gpa in place.items():
                setattr(attack.ring, part, gpa)
            with pytest.raises(DriverError):
                rig.start(attack.ring, attack.index)
            rig.disarm()
            for part, gpa in good.items():
                setattr(attack.ring, part, gpa)
            rig.arena.freeze()
            rig.notify()
            rig.settle()
            assert rig.received() == []
            assert attack.ring.taken() == []
            assert not rig.engine.queue_state(attack.index).running
            with pytest.raises(UsageError, match="does not run"):
                rig.engine.ctrl_pop()
            assert os.eventfd_read(rig.kick) > 0
            rig.end()


def _take_memory_away(attack: Attack) -> None:
    """The address was good when the ring started; a memory swap takes it away."""
    rig = attack.rig
    attack.start()
    with GuestMemory(rig.arena.regions[1:], rig.native) as lanes_only:
        rig.engine.set_memory(lanes_only)
    attack.expect_break(BreakReason.RING_ADDRESS)
    rig.engine.set_memory(rig.table)
    rig.arena.freeze()
    attack.finish()


@repeated
@three_forms
@pytest.mark.parametrize("split", ["touching", "reversed", "runs", "hole"])
@pytest.mark.requirement("CVE-2018-1059", "VIO-SPL-01")
def test_what_lies_across_two_regions(
    hooked: Native, split: str, variant: str, repeats: int
) -> None:
    with Rig(hooked, split=split) as rig:
        for turn in range(max(4, repeats // 4)):
            role, part = (
                ROLES[turn % 3],
                ("buffer", "table", "desc", "avail", "used")[turn // 3 % 5],
            )
            with guarded():
                _across(rig, role, part, split, variant, turn)


def _across(rig: Rig, role: str, part: str, split: str, variant: str, turn: int) -> None:
    border = rig.arena.border
    # An even distance keeps words whole; that of a table entry need not.
    straddling = {
        "desc": {"desc": border - 64 & -16},
        "avail": {"avail": border - 10},
        "used": {"used": border - 36},
    }.get(part, {})
    attack = Attack(
        rig,
        role,
        indirect=part == "table",
        table=border - 23 if part == "table" else 0,
        **straddling,
    )
    if part == "buffer":
        attack.move(2 if role == RX else 0, border - 1)
    in_one_piece = split in {"touching", "reversed"}
    if variant == "unwind" and (in_one_piece or not straddling):
        attack.fail_start(turn)
    if straddling and not in_one_piece:
        with pytest.raises(DriverError):
            attack.start()
        return
    attack.start()
    if variant == "flip":
        rig.flip(attack.gpa(0), Desc(UNMAPPED, 1, 0, 0).pack())
    rig.begin()
    attack.launch()
    flipped = ((attack.gpa(0), 16),) if variant == "flip" else ()
    if split == "hole":
        attack.expect_break(BreakReason.DESC_ADDRESS)
    else:
        attack.expect_good()
    attack.finish(*flipped, *attack.written())
