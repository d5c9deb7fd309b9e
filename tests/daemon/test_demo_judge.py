# SPDX-License-Identifier: MIT
"""The demo's judge: strict about every frame, fair to those that came before the command."""

from __future__ import annotations

import pytest

from pyvnet.daemon.demo import Judge, Result
from pyvnet.daemon.spread import Spread
from pyvnet.driver.receive import Frame
from pyvnet.reference import classify, steer
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY, RssConfig
from pyvnet.testing.frames import Ipv4, build, udp

CONFIG = RssConfig(int(ALL_HASH_TYPES), (0, 0, 0, 1), VERIFICATION_KEY)
DATA = bytes(build(Ipv4("198.18.0.1", "198.18.0.2"), udp(1, 2)))
HASHED = classify(DATA, CONFIG.hash_types, VERIFICATION_KEY)
QUEUE = steer(HASHED, CONFIG.indirection_table, 0)


def frame(queue: int, value: int, report: int) -> Frame:
    return Frame(DATA, queue, NetHdr(hash_value=value, hash_report=report, num_buffers=1), (0,))


PLAIN = frame(0, 0, 0)
STEERED = frame(QUEUE, HASHED.value, HASHED.report)


@pytest.fixture
def result() -> Result:
    return Result("pair", "software", Spread((0, 1), 2, by_flow=True), queues=[0, 0])


@pytest.fixture
def judge(result: Result) -> Judge:
    return Judge(CONFIG, VERIFICATION_KEY, result)


@pytest.mark.requirement("U-01", "U-41")
def test_a_frame_from_before_the_command_is_unhashed_on_the_first_queue(
    judge: Judge, result: Result
) -> None:
    assert QUEUE == 0
    judge.take_early(PLAIN)
    judge.take_early(STEERED)
    assert (result.verified, result.mismatches) == (2, 0)


@pytest.mark.requirement("U-41")
def test_after_the_first_steered_frame_nothing_unsteered_may_come(
    judge: Judge, result: Result
) -> None:
    judge.take_early(STEERED)
    judge.take_early(PLAIN)
    judge.take(PLAIN)
    assert (result.verified, result.mismatches) == (1, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        frame(1, 0, 0),
        frame(1 - QUEUE, HASHED.value, HASHED.report),
        frame(QUEUE, HASHED.value ^ 1, HASHED.report),
        frame(QUEUE, HASHED.value, HASHED.report ^ 1),
    ],
    ids=["queue before", "queue", "hash", "report"],
)
def test_any_difference_is_a_mismatch(judge: Judge, result: Result, wrong: Frame) -> None:
    judge.take_early(wrong)
    assert (result.verified, result.mismatches) == (0, 1)
    assert result.failures
