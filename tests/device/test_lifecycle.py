# SPDX-License-Identifier: MIT
"""The status ladder, written out by hand as the set of legal climbs."""

from __future__ import annotations

import pytest

from pyvnet.device.lifecycle import Judgement, StatusWrite, Verdict, is_reachable
from pyvnet.spec.features import Feature
from pyvnet.spec.status import DeviceStatus
from tests.device.support import commit, device, negotiate, running, start, without

RUNGS = (0, 1, 3, 11, 15)
NEEDS_RESET = 64
FAILED = 128


def judge(current: int, value: int, *, acceptable: bool = True) -> Judgement:
    return StatusWrite(DeviceStatus(current), value).judge(features_acceptable=acceptable)


@pytest.mark.parametrize("current", RUNGS)
def test_every_write_on_every_rung(current: int) -> None:
    """A legal write names a rung at or above the current one, with or without FAILED."""
    ignored = NEEDS_RESET | DeviceStatus.SUSPEND
    for value in range(1, 256):
        wanted = value & ~ignored
        legal = value & 32 == 0 and wanted & ~FAILED in RUNGS and wanted & ~FAILED >= current
        expected = (Verdict.ACCEPTED, wanted) if legal else (Verdict.ILLEGAL, current)
        assert judge(current, value) == expected, value


@pytest.mark.requirement("VIO-RST-01")
@pytest.mark.parametrize("current", [*RUNGS, 15 | NEEDS_RESET, 3 | FAILED, 255])
def test_writing_zero_is_a_reset_from_anywhere(current: int) -> None:
    assert judge(current, 0) == (Verdict.RESET, 0)


@pytest.mark.requirement("VIO-FEAT-02")
def test_features_ok_stays_off_when_features_are_not_acceptable() -> None:
    """If not able to work with the set, leave FEATURES_OK cleared."""
    assert judge(3, 11, acceptable=False) == (Verdict.FEATURES_REFUSED, 3)
    assert judge(0, 11, acceptable=False) == (Verdict.FEATURES_REFUSED, 3)


def test_driver_ok_is_not_reached_over_refused_features() -> None:
    assert judge(3, 15, acceptable=False) == (Verdict.ILLEGAL, 3)


@pytest.mark.parametrize("dead_end", [FAILED, NEEDS_RESET])
@pytest.mark.parametrize("current", RUNGS[:-1])
def test_no_rung_is_granted_after_a_dead_end(dead_end: int, current: int) -> None:
    here = current | dead_end
    above = RUNGS[RUNGS.index(current) + 1]
    assert judge(here, above | dead_end) == (Verdict.ILLEGAL, here)
    assert judge(here, here | FAILED) == (Verdict.ACCEPTED, here | FAILED)


@pytest.mark.parametrize("value", [15, 15 | NEEDS_RESET])
def test_needs_reset_belongs_to_the_device(value: int) -> None:
    """A driver neither clears nor sets it, whatever it writes back."""
    assert judge(15 | NEEDS_RESET, value) == (Verdict.ACCEPTED, 15 | NEEDS_RESET)
    assert judge(15, value) == (Verdict.ACCEPTED, 15)


@pytest.mark.requirement("VIO-SUS-01")
@pytest.mark.parametrize("current", RUNGS[1:])
def test_suspend_is_ignored(current: int) -> None:
    """Ignore SUSPEND until initialisation finished; here it is not offered at all."""
    assert judge(current, current | DeviceStatus.SUSPEND) == (Verdict.ACCEPTED, current)


def test_suspend_alone_is_not_a_reset() -> None:
    assert judge(15, DeviceStatus.SUSPEND) == (Verdict.ILLEGAL, 15)


@pytest.mark.parametrize("value", [-1, 32, 47, 256, 256 | 15, 2**64])
def test_undefined_bits_make_a_write_illegal(value: int) -> None:
    assert judge(3, value) == (Verdict.ILLEGAL, 3)


def test_reachable_statuses() -> None:
    marks = (0, NEEDS_RESET, FAILED, NEEDS_RESET | FAILED)
    expected = {rung | mark for rung in RUNGS for mark in marks} - {NEEDS_RESET}
    assert {status for status in range(256) if is_reachable(status)} == expected


def test_illegal_write_changes_nothing_but_its_counter() -> None:
    target = running()
    before = target.state
    transition = commit(target, target.write_status(3))
    assert not transition.effects
    assert target.status == 15
    assert target.state.counters.status_illegal_writes == 1
    assert target.state.steering == before.steering
    assert target.state.queues == before.queues


def test_features_are_frozen_by_features_ok() -> None:
    target = device()
    negotiate(target, without(Feature.RSS))
    frozen = target.features
    commit(target, target.write_driver_features(int(target.offered)))
    assert target.features == frozen
    assert target.state.counters.feature_writes_ignored == 1


def test_driver_may_try_another_set_after_a_refusal() -> None:
    target = device()
    negotiate(target, without(Feature.VERSION_1))
    assert target.status == 3
    assert target.state.counters.features_refused == 1
    commit(target, target.write_driver_features(int(target.offered)))
    commit(target, target.write_status(11))
    assert target.status == 11
    assert target.features == target.offered


def test_failed_is_kept_until_reset() -> None:
    target = device()
    start(target)
    commit(target, target.write_status(15 | FAILED))
    assert target.status == 15 | FAILED
    commit(target, target.write_status(0))
    assert target.status == 0
