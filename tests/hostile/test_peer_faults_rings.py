# SPDX-License-Identifier: MIT
"""Rings and descriptors: chains no driver may build (docs/peer-faults.md, section B).

Every row runs in its three forms over transmitq, receiveq and controlq, direct
and through an indirect table; see ``attack`` for what the forms are.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from pyvnet.datapath.engine import BreakReason
from tests.hostile.attack import (
    CTRL,
    HEAD,
    INDIRECT,
    NEXT,
    ROLES,
    RX,
    TX,
    WRITE,
    Case,
    run,
)
from tests.hostile.forms import repeated, three_forms
from tests.hostile.rig import PAGE, UNMAPPED, Rig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyvnet.spec.ring import Desc
    from tests.hostile.attack import Attack, Forgery

LOOP: Final = BreakReason.DESC_LOOP
INDEX: Final = BreakReason.DESC_INDEX
ADDRESS: Final = BreakReason.DESC_ADDRESS
BAD_INDIRECT: Final = BreakReason.INDIRECT


class Row(NamedTuple):
    """A fault of peers: ids, and the inputs that once showed it."""

    ids: tuple[str, ...]
    cases: tuple[Case, ...]


def change(*numbers: int, flags: int = 0, **fields: int) -> Forgery:
    """Give descriptors other fields; ``flags`` are added."""

    def forge(attack: Attack) -> Mapping[int, Desc]:
        return {
            number: attack.descs[number]._replace(
                flags=attack.descs[number].flags | flags, **fields
            )
            for number in (n % len(attack.descs) for n in numbers)
        }

    return forge


def head(flags: int = INDIRECT, **fields: int) -> Forgery:
    """Forge the descriptor that points to the indirect table."""

    def forge(attack: Attack) -> Mapping[int, Desc]:
        desc = attack.descs[0]._replace(addr=attack.table, length=16 * len(attack.descs), next=0)
        return {HEAD: desc._replace(flags=flags, **fields)}

    return forge


def both(forge: Forgery, *reasons: BreakReason, pieces: int = 3) -> Iterable[Case]:
    """In the descriptor table, and in an indirect one."""
    for indirect in (False, True):
        yield Case(forge, reasons, pieces=pieces, indirect=indirect)


def turned(number: int) -> Forgery:
    """A buffer of the other direction."""

    def forge(attack: Attack) -> Mapping[int, Desc]:
        desc = attack.descs[number]
        return {number: desc._replace(flags=desc.flags ^ WRITE)}

    return forge


def ends_beyond(number: int, beyond: int, length: int) -> Forgery:
    """A buffer whose last byte lies ``beyond`` bytes past its region's last one."""

    def forge(attack: Attack) -> Mapping[int, Desc]:
        at = attack.rig.arena.end + beyond - length
        return {number: attack.descs[number]._replace(addr=at, length=length)}

    return forge


def loop(length: int, *, empty: bool = False) -> Forgery:
    """The last of ``length`` descriptors leads back to the first."""

    def forge(attack: Attack) -> Mapping[int, Desc]:
        descs = attack.descs[:length]
        descs[-1] = descs[-1]._replace(flags=descs[-1].flags | NEXT, next=0)
        if empty:
            return {i: desc._replace(length=0) for i, desc in enumerate(descs)}
        return {length - 1: descs[-1]}

    return forge


TRANSMIT_AND_RECEIVE: Final = (TX, RX)
ROWS: Final = (
    Row(
        ("CVE-2020-10725", "VIO-SPL-17"),
        tuple(c for k in range(3) for c in both(change(k, addr=UNMAPPED, length=0))),
    ),
    Row(("CVE-2016-6490", "VIO-SPL-17"), tuple(both(change(0, 1, 2, length=0)))),
    Row(
        ("CVE-2019-9547", "VIO-SPL-17"),
        (
            *(c for k in range(3) for c in both(change(k, flags=NEXT, next=k), LOOP)),
            *(c for n in range(2, 9) for c in both(loop(n), LOOP, pieces=8)),
        ),
    ),
    Row(
        ("PF-B-05", "VIO-SPL-17"),
        tuple(c for n in range(1, 9) for c in both(loop(n, empty=True), LOOP, pieces=8)),
    ),
    Row(
        ("PF-B-06", "VIO-SPL-17"),
        tuple(
            case._replace(roles=(CTRL,))
            for case in (
                *(c for n in (1, 2, 3) for c in both(loop(n), LOOP)),
                *(
                    c
                    for k, beyond in product(range(3), (8, 9, 0x7FFF, 0x8000, 0xFFFF))
                    for c in both(change(k, flags=NEXT, next=beyond), INDEX)
                ),
            )
        ),
    ),
    Row(
        ("PF-B-14", "VIO-SPL-17"),
        (
            *(Case(change(k, flags=INDIRECT), (BAD_INDIRECT,), negotiated=False) for k in range(3)),
            Case(head(INDIRECT | NEXT), (BAD_INDIRECT,), indirect=True),
            *(Case(change(k, flags=INDIRECT), (BAD_INDIRECT,), indirect=True) for k in range(3)),
            *(
                Case(head(length=length), (BAD_INDIRECT,), indirect=True)
                for length in (0, 8, 15, 17, 16 * 65537, 0xFFFF_FFF0, 0xFFFF_FFFF)
            ),
        ),
    ),
    Row(
        ("CVE-2019-18960",),
        (
            *(
                c
                for k, beyond in product(range(3), (1, PAGE))
                for c in both(ends_beyond(k, beyond, 40), ADDRESS)
            ),
            Case(head(addr=UNMAPPED), (ADDRESS,), indirect=True),
        ),
    ),
    Row(
        ("PF-B-16",),
        (
            *(c for k in range(3) for c in both(ends_beyond(k, 65535 - 64, 65535), ADDRESS)),
            *(c for k in range(3) for c in both(change(k, flags=NEXT, next=0xFFFF), INDEX)),
        ),
    ),
    # Readable behind writable, or buffers of a direction that this queue has no use for.
    Row(
        ("VIO-SPL-17", "VIO-SPL-03"),
        (
            Case(turned(0), roles=(TX, RX, CTRL)),
            Case(turned(2), roles=TRANSMIT_AND_RECEIVE),
            Case(turned(0), indirect=True),
            Case(turned(1), roles=TRANSMIT_AND_RECEIVE, indirect=True),
        ),
    ),
)


def every(row: Row) -> list[tuple[Case, str]]:
    return [(case, role) for role in ROLES for case in row.cases if role in case.roles]


@repeated
@three_forms
@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=row.ids[0], marks=pytest.mark.requirement(*row.ids)) for row in ROWS],
)
def test_chains_no_driver_may_build(rig: Rig, row: Row, variant: str, repeats: int) -> None:
    attempts = every(row)
    for turn in range(max(repeats, len(attempts))):
        case, role = attempts[turn % len(attempts)]
        try:
            run(rig, role, case, variant, turn // len(attempts) + turn)
        except AssertionError as error:
            error.add_note(f"{role}, case {row.cases.index(case)}, turn {turn}")
            raise
