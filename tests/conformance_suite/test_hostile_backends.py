# SPDX-License-Identifier: MIT
"""Whatever is at the other end: every case ends in time, with a reason, and nothing stays open."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from pyvnet.conformance.case import Case, Verdict
from pyvnet.conformance.cases import everything, select
from pyvnet.conformance.run import ControlQueue, Report, Result, Runner
from pyvnet.conformance.target import VhostUser
from tests.conformance_suite.listening import (
    RingWriter,
    answers,
    dies_after,
    falls_silent_after,
    listening,
    says,
)
from tests.driver.scripted_backend import ScriptedBackend, u64

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

WITHIN = 30.0  # a hang guard for a whole run
BRIEF = 0.05  # a case may take, where its end is what is looked at
AMPLE = 5.0  # where something is to be said in time, and nothing waits for it to pass
EVERY_BIT = (1 << 64) - 1

# One of each kind: questions, negotiation, commands, raw messages, memory, new connections.
FEW = select(
    [
        "version-1-is-offered",
        "every-bit-can-be-accepted-alone",
        "a-reset-begins-anew",
        "fields-can-be-read-before-negotiation",
        "commands-are-acknowledged",
        "messages-are-acknowledged-on-demand",
        "configuration-comes-as-asked-for",
        "reset-device-begins-anew",
        "a-connection-that-breaks-off-is-forgotten",
        "half-a-message-harms-nobody-else",
    ]
)


async def judged(path: Path, cases: Sequence[Case] = FEW, each: float = BRIEF) -> Report:
    control: ControlQueue = "auto" if each is BRIEF else "no"  # which takes its time to find out
    async with asyncio.timeout(WITHIN):
        return await Runner(VhostUser(path), timeout=each, control_queue=control).run(cases)


def by_verdict(report: Report, verdict: Verdict) -> list[Result]:
    return [result for result in report.results if result.verdict is verdict]


def tried(report: Report) -> list[Result]:
    """Cases somebody was asked about in vain."""
    return [result for result in by_verdict(report, Verdict.INCONCLUSIVE) if result.tried]


def every_case_ended(report: Report, cases: Sequence[Case] = FEW) -> None:
    assert [result.case for result in report.results] == list(cases)
    for result in report.results:
        assert result.verdict is Verdict.PASSED or result.reason, result.case.name


# --- nobody there -------------------------------------------------------------------------


async def test_nobody_listens(tmp_path: Path) -> None:
    report = await judged(tmp_path / "gone", everything())
    every_case_ended(report, everything())
    assert not by_verdict(report, Verdict.PASSED) + by_verdict(report, Verdict.FAILED)
    assert "no vhost-user back-end at" in report.problem
    assert report.exit_status == 1
    assert not tried(report)
    assert "no vhost-user back-end" in report.silence


async def test_a_listener_that_never_accepts(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "x"))
        sock.listen(0)
        report = await judged(tmp_path / "x", everything())
    every_case_ended(report, everything())
    assert not by_verdict(report, Verdict.PASSED) + by_verdict(report, Verdict.FAILED)
    assert report.exit_status == 1


@pytest.mark.parametrize("messages", [0, 1])
async def test_silence_is_given_up_before_the_first_case(tmp_path: Path, messages: int) -> None:
    with listening(tmp_path / "x", falls_silent_after(messages)) as backend:
        report = await judged(tmp_path / "x", everything())
    every_case_ended(report, everything())
    assert not by_verdict(report, Verdict.PASSED) + by_verdict(report, Verdict.FAILED)
    assert not tried(report)
    assert backend.connections < 20
    assert report.exit_status == 1


async def test_a_back_end_that_closes_every_connection(tmp_path: Path) -> None:
    with listening(tmp_path / "x", ScriptedBackend.hang_up) as backend:
        report = await judged(tmp_path / "x", everything())
    every_case_ended(report, everything())
    assert not by_verdict(report, Verdict.PASSED)
    assert not tried(report)
    assert backend.connections < 20


# --- liars --------------------------------------------------------------------------------


@pytest.mark.one_loop("the front-end's own tests run on both")
@pytest.mark.parametrize("messages", range(2, 26, 3))
@pytest.mark.parametrize("end", [dies_after, falls_silent_after], ids=["dies", "falls-silent"])
async def test_the_end_may_come_at_any_message(
    tmp_path: Path, messages: int, end: Callable[[int], Callable[[ScriptedBackend], None]]
) -> None:
    with listening(tmp_path / "x", end(messages)):
        report = await judged(tmp_path / "x", each=0.02)
    every_case_ended(report)
    assert by_verdict(report, Verdict.FAILED) or by_verdict(report, Verdict.INCONCLUSIVE)


LIES: dict[str, tuple[Callable[[ScriptedBackend], None], str]] = {
    "garbage": (says(1, bytes(range(64))), "not an answer to GET_FEATURES: protocol version"),
    "other-id": (answers(15, u64(0), flags=1), "no REPLY flag"),
    "huge-size": (says(1, struct.pack("=III", 1, 5, 0xFFFFFFFF)), "its size is 4294967295"),
    "twice": (says(1, struct.pack("=IIIQ", 1, 5, 8, 1 << 32) * 2), "more bytes follow"),
    "no-queues": (answers(17, u64(0)), "says it has 0 queues"),
    "config-lies": (
        says(24, struct.pack("=III", 24, 5, 12) + struct.pack("=III", 0, 0, 0)),
        "refused GET_CONFIG",
    ),
    "config-of-another-place": (
        says(24, struct.pack("=IIIIII", 24, 5, 40, 4, 28, 0) + bytes(28)),
        "GET_CONFIG of 28 bytes at 0 answered (4, 28)",
    ),
    "status": (answers(40, u64(0x55)), "status is 0x55 after a reset"),
    "wide-status": (answers(40, u64(EVERY_BIT)), "more than a byte"),
    "refuses-everything": (answers(2, u64(22)), "refused"),
}


@pytest.mark.one_loop("the front-end's own tests run on both")
@pytest.mark.parametrize("name", LIES)
async def test_a_lie_is_evidence(tmp_path: Path, name: str) -> None:
    spoil, words = LIES[name]
    with listening(tmp_path / "x", spoil):
        report = await judged(tmp_path / "x", each=AMPLE)
    every_case_ended(report)
    said = [result.reason for result in report.results if result.verdict is not Verdict.PASSED]
    assert any(words in reason for reason in said), said
    assert report.exit_status == 1


async def test_half_an_answer_is_none(tmp_path: Path) -> None:
    with listening(tmp_path / "x", says(1, struct.pack("=III", 1, 5, 8) + bytes(7))):
        report = await judged(tmp_path / "x")
    every_case_ended(report)
    assert not by_verdict(report, Verdict.PASSED) + by_verdict(report, Verdict.FAILED)


async def test_impossible_features(tmp_path: Path) -> None:
    """Every bit there is, of both kinds: what contradicts itself or means nothing is named."""

    def everything_offered(backend: ScriptedBackend) -> None:
        backend.features = EVERY_BIT
        backend.protocol_features = EVERY_BIT

    cases = select(["initialization"])
    with listening(tmp_path / "x", everything_offered):
        report = await judged(tmp_path / "x", cases, each=AMPLE)
    every_case_ended(report, cases)
    verdicts = {result.case.name: result for result in report.results}
    wrong = verdicts["no-bit-is-offered-that-means-nothing-here"]
    assert wrong.verdict is Verdict.FAILED
    assert "sr_iov" in wrong.reason
    assert report.exit_status == 1


async def test_no_features_at_all(tmp_path: Path) -> None:
    def nothing_offered(backend: ScriptedBackend) -> None:
        backend.features = 0

    with listening(tmp_path / "x", nothing_offered):
        report = await judged(tmp_path / "x", everything(), each=AMPLE)
    every_case_ended(report, everything())
    (version_1,) = [r for r in report.results if r.case.name == "version-1-is-offered"]
    assert version_1.verdict is Verdict.FAILED


async def test_more_queues_than_there_can_be(tmp_path: Path) -> None:
    def countless(backend: ScriptedBackend) -> None:
        backend.config = type(backend.config)(mac=b"\2plain", max_virtqueue_pairs=0xFFFF)
        backend.answers[17] = lambda _: struct.pack("=IIIQ", 17, 5, 8, EVERY_BIT)

    with listening(tmp_path / "x", countless):
        report = await judged(tmp_path / "x", everything(), each=0.02)
        every_case_ended(report, everything())
        cases = select(["the-number-of-pairs-is-possible"])
        report = await judged(tmp_path / "x", cases, each=AMPLE)
    (pairs,) = report.results
    assert (pairs.verdict, pairs.reason) == (Verdict.FAILED, "max_virtqueue_pairs is 65535")


# --- rings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("element", "idx", "words"),
    [
        pytest.param((0xFFFF, 64), 1, "names id 65535", id="id-out-of-range"),
        pytest.param((0, 0xFFFFFF), 1, "writable bytes", id="length-beyond-the-buffer"),
        pytest.param((0, 64), 0x8000, "used.idx moved to 32768", id="idx-out-of-range"),
    ],
)
async def test_used_rings_that_lie(
    tmp_path: Path, element: tuple[int, int], idx: int, words: str
) -> None:
    """The command's answer is one nobody could give: the case says so."""
    cases = select(["commands-are-acknowledged", "failures-are-answered-with-1"])
    controlq = 4

    def lie(backend: ScriptedBackend) -> None:
        RingWriter(backend, element, idx, controlq)

    with listening(tmp_path / "x", lie):
        async with asyncio.timeout(WITHIN):
            runner = Runner(VhostUser(tmp_path / "x"), timeout=AMPLE, control_queue="yes")
            report = await runner.run(cases)
    every_case_ended(report, cases)
    for result in by_verdict(report, Verdict.FAILED):
        assert words in result.reason
    assert by_verdict(report, Verdict.FAILED)


async def test_a_control_queue_nobody_serves_is_found_out_once(tmp_path: Path) -> None:
    """The back-end offers it and never looks at it: those cases are not the back-end's to pass."""
    cases = select(["control", "version-1-is-offered"])
    path, each, report = tmp_path / "x", BRIEF, Report("none yet")
    with listening(path, lambda _: None):
        async with asyncio.timeout(WITHIN):
            while report.facts is None or report.control:
                each *= 2  # it was not even heard, or not negotiated with, in so little time
                report = await Runner(VhostUser(path), timeout=each).run(cases)
    assert not report.control
    for result in report.results:
        if result.case.control:
            assert result.verdict is Verdict.NOT_APPLICABLE
            assert "serves no control queue" in result.reason or "not offered" in result.reason


# --- descriptors --------------------------------------------------------------------------


async def test_descriptors_nobody_asked_for_are_closed(tmp_path: Path) -> None:
    """The leak check finds those that are not."""
    fds = [os.memfd_create("pyvnet-surplus") for _ in range(8)]

    def send_them(backend: ScriptedBackend) -> None:
        backend.fds_with[1] = fds

    with listening(tmp_path / "x", send_them):
        report = await judged(tmp_path / "x", each=AMPLE)
    for fd in fds:
        os.close(fd)
    every_case_ended(report)
    assert any("8 file descriptors came" in result.reason for result in report.results)


async def test_a_flood_on_the_channel_of_the_back_ends_requests(tmp_path: Path) -> None:
    """Configuration changes without end: cases end all the same."""

    def flood(backend: ScriptedBackend) -> None:
        def take(message: object) -> bytes | None:
            answer = backend._answer(message)  # type: ignore[arg-type]
            if backend.request_fd is not None:
                backend.request_fd.setblocking(False)
                backend.request_fd.send(struct.pack("=III", 2, 1, 0) * 5000)
            return answer

        backend.answers[21] = take

    with listening(tmp_path / "x", flood):
        report = await judged(tmp_path / "x")
    every_case_ended(report)
