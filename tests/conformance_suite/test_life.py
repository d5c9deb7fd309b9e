# SPDX-License-Identifier: MIT
"""A back-end that dies under the suite costs its time once; one that lives is judged to the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from pyvnet.conformance import report as show
from pyvnet.conformance.case import Verdict
from pyvnet.conformance.cases import everything, select
from pyvnet.conformance.run import Runner
from pyvnet.conformance.target import VhostUser
from tests.conformance_suite.listening import (
    Listening,
    deaf_to,
    falls_silent_after,
    listening,
    slow,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyvnet.conformance.case import Case
    from pyvnet.conformance.run import Report, Result
    from tests.driver.scripted_backend import ScriptedBackend

pytestmark = pytest.mark.one_loop("the front-end's own tests run on both")

WITHIN = 60.0  # a hang guard
EACH = 0.15
SET_FEATURES, UNKNOWN = 2, 0x7F0F


async def judged(path: Path, *words: str, each: float = EACH) -> Report:
    cases = select(words) if words else everything()
    async with asyncio.timeout(WITHIN):
        return await Runner(VhostUser(path), timeout=each, control_queue="no").run(cases)


def untried(report: Report) -> list[Result]:
    return [r for r in report.results if not r.tried and r.verdict is Verdict.INCONCLUSIVE]


def named(report: Report, case: str) -> Result:
    (result,) = (result for result in report.results if result.case.name == case)
    return result


def waited_in_vain(report: Report) -> list[Case]:
    return [r.case for r in report.results if r.seconds >= 0.9 * EACH]


class Nth:
    """From its n-th connection on a back-end does this."""

    def __init__(self, number: int, then: Callable[[ScriptedBackend], None]) -> None:
        self._left = number
        self._then = then

    def __call__(self, backend: ScriptedBackend) -> None:
        self._left -= 1
        if self._left <= 0:
            self._then(backend)


# --- dead ---------------------------------------------------------------------------------


def one_reason_in_one_line(report: Report, cases: int) -> None:
    """In the table, but each case in JSON and JUnit."""
    rest = untried(report)
    assert len(report.results) == cases
    assert {result.reason for result in rest} == {report.silence}
    lines = [line for line in show.summary(report) if report.silence in line]
    assert lines == [f"unclear  and {len(rest)} more: {report.silence}"]
    told = show.as_json(report)
    assert len(told["cases"]) == cases
    assert told["silence"] == report.silence
    assert sum(not case["tried"] for case in told["cases"]) >= len(rest)
    errors = ET.fromstring(show.as_junit(report)).findall("testcase/error")  # noqa: S314 (our own)
    assert sum(error.get("message") == report.silence for error in errors) == len(rest)
    assert report.exit_status == 1


async def test_one_that_greets_and_does_not_negotiate(tmp_path: Path) -> None:
    """What takes no negotiation is judged all the same; the rest is not waited for."""
    with listening(tmp_path / "x", deaf_to(SET_FEATURES)):
        report = await judged(tmp_path / "x")
    one_reason_in_one_line(report, len(everything()))
    assert "the first messages are answered and no negotiation" in report.silence
    assert named(report, "version-1-is-offered").verdict is Verdict.PASSED
    assert named(report, "the-number-of-pairs-is-possible").verdict is Verdict.PASSED
    assert 1 <= len(waited_in_vain(report)) <= 6


async def test_one_that_stalls_at_some_case(tmp_path: Path) -> None:
    with listening(tmp_path / "x", Nth(8, falls_silent_after(0))):
        report = await judged(tmp_path / "x")
    one_reason_in_one_line(report, len(everything()))
    assert "no answer to GET_FEATURES" in report.silence
    assert report.count(Verdict.PASSED)
    assert 1 <= len(waited_in_vain(report)) <= 3


async def test_one_that_dies_in_the_middle_of_a_case(tmp_path: Path) -> None:
    """The case it died in has failed; nobody is asked about the others."""

    def dies_of_it(backend: ScriptedBackend) -> None:
        backend.answers[SET_FEATURES] = lambda _: there[0].die()

    there: list[Listening] = []
    with listening(tmp_path / "x", Nth(8, dies_of_it)) as backend:
        there.append(backend)
        report = await judged(tmp_path / "x")
    one_reason_in_one_line(report, len(everything()))
    (failed,) = (r for r in report.results if r.verdict is Verdict.FAILED and "closed" in r.reason)
    assert f"no answer since {failed.case.name}: no vhost-user back-end" in report.silence


async def test_the_last_case_asks_nobody(tmp_path: Path) -> None:
    """There is nothing to be saved, and the verdict is the case's own."""
    with listening(tmp_path / "x", deaf_to(UNKNOWN)) as backend:
        report = await judged(tmp_path / "x", "unknown-messages-are-refused")
        connections = backend.connections
    assert connections == 2  # what it offers, and the case
    assert report.results[0].verdict is Verdict.FAILED
    assert not report.silence


# --- alive --------------------------------------------------------------------------------


async def test_one_that_starts_again_is_judged_to_the_end(tmp_path: Path) -> None:
    """It died of a case, and was back before it was given up."""

    def dies_of_it(backend: ScriptedBackend) -> None:
        backend.answers[SET_FEATURES] = lambda _: starts_again()

    def starts_again() -> None:
        there[0].die()
        (tmp_path / "x").unlink()
        asyncio.get_running_loop().call_later(EACH, listen)

    def listen() -> None:
        there.append(Listening(tmp_path / "x", lambda _: None))

    there: list[Listening] = []
    with listening(tmp_path / "x", Nth(8, dies_of_it)) as backend:
        there.append(backend)
        report = await judged(tmp_path / "x")
    first, second = there
    second.close()
    assert (report.silence, untried(report)) == ("", [])
    assert second.connections > first.connections
    assert report.count(Verdict.FAILED)


async def test_one_that_is_slow_is_not_called_dead(tmp_path: Path) -> None:
    """No case is over in time, but each answer comes."""
    with listening(tmp_path / "x", slow(EACH / 12)):
        report = await judged(tmp_path / "x", "VIO-RST-01", "NET-CFG-04")
    assert (report.silence, untried(report)) == ("", [])
    assert len(waited_in_vain(report)) >= 2


async def test_a_question_that_is_not_answered_is_no_death(tmp_path: Path) -> None:
    """Everything else is."""
    with listening(tmp_path / "x", deaf_to(UNKNOWN)):
        report = await judged(tmp_path / "x", "VHU-MSG-06", "VHU-MSG-03")
    assert (report.silence, untried(report)) == ("", [])
    assert named(report, "unknown-messages-are-refused").verdict is Verdict.FAILED
    assert named(report, "messages-are-acknowledged-on-demand").verdict is Verdict.PASSED


async def test_one_that_is_too_slow_for_the_timeout_is_told_apart(tmp_path: Path) -> None:
    """It answers, and never in the time of a case: the way out is said."""
    with listening(tmp_path / "x", Nth(2, slow(EACH / 4))):
        report = await judged(tmp_path / "x")
    assert "3 cases in a row got no answer within 0.15 s (--timeout)" in report.silence
    assert report.exit_status == 1
