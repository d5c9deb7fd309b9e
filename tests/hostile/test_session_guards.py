# SPDX-License-Identifier: MIT
"""Each check of the vhost-user session is needed: without it, the test named for it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.hostile import session_guards
from tests.hostile.session_guards import OTHERS, WITNESSES, Check, Other, off
from tests.spoilt import spoilt

if TYPE_CHECKING:
    from collections.abc import Callable


# pytest's own failures are no Exceptions.
MISSED = (Exception, pytest.fail.Exception)


def _name(guard: object) -> str | None:
    if isinstance(guard, Check):
        return f"{guard.function}-{guard.condition}"
    if isinstance(guard, Other):
        return f"{guard.fault.function}-{guard.fault.fragment.strip()}"
    return None


def test_every_check_has_a_witness() -> None:
    found = list(session_guards.checks())
    assert len(found) == len(set(found)), "two checks of one name in one function"
    assert set(found) == set(WITNESSES), "name the test that misses it in session_guards.py"


@pytest.mark.parametrize(
    "witness", dict.fromkeys([*WITNESSES.values(), *(other.witness for other in OTHERS)])
)
def test_with_its_check_a_witness_holds(witness: Callable[[], None]) -> None:
    witness()


@pytest.mark.may_leak("what is taken out may be what closes")
@pytest.mark.parametrize(("check", "witness"), WITNESSES.items(), ids=_name)
@pytest.mark.requirement("CVE-2020-10723", "CVE-2022-0669", "CVE-2019-14818-a", "CVE-2026-5747")
def test_without_its_check_it_does_not(check: Check, witness: Callable[[], None]) -> None:
    with off(check), pytest.raises(MISSED):
        witness()


@pytest.mark.may_leak("what is taken out may be what closes")
@pytest.mark.parametrize("guard", OTHERS, ids=_name)
def test_without_another_guard_it_does_not(guard: Other) -> None:
    with spoilt(guard.fault), pytest.raises(MISSED):
        guard.witness()
