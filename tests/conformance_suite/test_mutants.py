# SPDX-License-Identifier: MIT
"""The suite sees every deliberate fault, by the cases that are named for it and no others."""

from __future__ import annotations

from typing import Any, Final

import pytest

from pyvnet.conformance import ids
from pyvnet.conformance.cases import everything
from pyvnet.datapath.native import Native
from tests.conformance_suite import engine, mutants
from tests.conformance_suite.unseen import UNSEEN

ALL: Final = mutants.mutants()
SEEN_BY: Final = mutants.seen_by()
CASES: Final = {case.name: case for case in everything()}
# Under sanitizers every fourth: what they would find, they find with few.
FEW: Final = 4

HANG_SECONDS: Final = 480.0


def test_those_of_the_engine_are_in_the_table(native_hooks: tuple[Any, Any]) -> None:
    compiled = {name for name, mutant in ALL.items() if not mutant.faults}
    assert compiled == set(engine.names(Native(*native_hooks)))


def test_the_lists_are_of_mutants_and_cases_there_are() -> None:
    assert set(SEEN_BY) == set(ALL)
    assert {name for listed in SEEN_BY.values() for name in listed} <= set(CASES)
    assert len(ALL) >= 40


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_case_sees_what_it_violates(name: str) -> None:
    mutant = ALL[name]
    assert set(mutant.ids) <= set(ids.table())
    cited = {each for case in SEEN_BY[name] for each in CASES[case].ids}
    assert cited & set(mutant.ids), f"none of the cases that fail cites one of {mutant.ids}"


@pytest.mark.timeout(HANG_SECONDS + 60)
@pytest.mark.parametrize("wide", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_the_failing_set_is_the_list(pytestconfig: pytest.Config, *, wide: bool) -> None:
    chosen = sorted(mutants.WIDE if wide else ALL.keys() - mutants.WIDE)
    if pytestconfig.getoption("--once"):
        chosen = chosen[::FEW]
    sights = mutants.sights(chosen, HANG_SECONDS)
    broken = {name: sight.broken for name, sight in sights.items() if sight.broken}
    assert not broken, "cases that broke themselves"
    seen = {name: sorted(sights[name].failed) for name in chosen}
    assert seen == {name: SEEN_BY[name] for name in chosen}


def test_every_case_of_a_must_is_needed() -> None:
    felled = {name for listed in SEEN_BY.values() for name in listed}
    must = {name for name, case in CASES.items() if case.must}
    assert must - felled == set(UNSEEN), "no mutant fells it: say why in unseen.py, or write one"
