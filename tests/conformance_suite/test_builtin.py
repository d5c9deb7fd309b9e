# SPDX-License-Identifier: MIT
"""Our own device passes the suite it brings along, each case a test of the ids it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyvnet.conformance.builtin import Builtin
from pyvnet.conformance.case import Case, Verdict
from pyvnet.conformance.cases import everything
from pyvnet.conformance.run import suite

if TYPE_CHECKING:
    from pyvnet.conformance.run import Result

WITHIN = 20.0  # a hang guard

# What cannot be seen on a port made of socket pairs, and what the report says then.
NOT_HERE = {
    "flows-come-back-where-they-were-sent": "on this wire the sender chooses the queue",
}

_results: dict[str, Result] = {}


async def result_of(case: Case, request: pytest.FixtureRequest) -> Result:
    """One run, side by side, of all cases the session has tests for; the first test waits for it.

    The leak check of that test is then the check of them all.
    """
    if case.name not in _results:
        params = [getattr(item, "callspec", None) for item in request.session.items]
        wanted = [spec.params.get("case") for spec in params if spec is not None]
        cases = {entry.name: entry for entry in wanted if isinstance(entry, Case)} | {
            case.name: case
        }
        results = await suite(
            Builtin(), list(cases.values()), timeout=WITHIN, control_queue="yes", hostile=True
        )
        _results.update((result.case.name, result) for result in results)
    return _results[case.name]


@pytest.mark.one_loop("what a device does is looked at; the driver is tested on both")
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=pytest.mark.requirement(*case.ids))
        for case in everything()
    ],
)
async def test_the_device_passes(case: Case, request: pytest.FixtureRequest) -> None:
    result = await result_of(case, request)
    said = (result.reason, *result.evidence)
    if case.name in NOT_HERE:
        assert result.verdict is Verdict.NOT_APPLICABLE, said
        assert NOT_HERE[case.name] in result.reason
    else:
        assert result.verdict is Verdict.PASSED, said


def test_what_is_not_seen_here_is_a_case() -> None:
    assert set(NOT_HERE) <= {case.name for case in everything()}
