# SPDX-License-Identifier: MIT
"""Rings started, stopped and switched one by one, as a front-end does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyvnet.device.effects import (
    Activate,
    ConfigChanged,
    EnableQueue,
    SetPolicy,
    StartQueue,
    StopQueue,
)
from pyvnet.errors import FrontendError, UsageError
from pyvnet.spec.features import Feature
from tests.device.support import (
    OK,
    PAIRS,
    commit,
    device,
    new_policy,
    ring,
    rss,
    send,
    vq_pairs,
    without,
)

if TYPE_CHECKING:
    from pyvnet.device.device import VirtioNetDevice

MQ_ALONE = int(Feature.VERSION_1 | Feature.MQ)
CONTROLQ = 2 * PAIRS


def negotiated(features: int | None = None) -> VirtioNetDevice:
    target = device(relaxed=True)
    commit(target, target.negotiate(without() if features is None else features))
    return target


def serving(features: int | None = None, *, enabled: bool = True) -> VirtioNetDevice:
    """A device all of whose rings were started by a front-end."""
    target = negotiated(features)
    for index in range(target.queue_count):
        commit(target, target.start_queue(ring(index), enabled=enabled))
    return target


@pytest.mark.requirement("VIO-STAT-01")
def test_first_ring_sets_driver_ok() -> None:
    target = negotiated()
    assert target.status == 11
    for index in (3, 0):
        commit(target, target.start_queue(ring(index), enabled=True))
        assert target.status == 15
    assert [queue.index for queue in target.state.queues] == [0, 3]


@pytest.mark.parametrize("index", range(CONTROLQ + 1))
@pytest.mark.parametrize("enabled", [True, False])
def test_ring_starts_by_itself(index: int, enabled: bool) -> None:
    """As it was set up, under the negotiated features, and nothing else is touched."""
    target = negotiated()
    setup = ring(index, kick_fd=7, call_fd=8, err_fd=9, avail_base=5, used_base=4)
    (start,) = target.start_queue(setup, enabled=enabled).effects
    assert isinstance(start, StartQueue)
    assert start.queue.setup(index) == setup
    assert (start.features, start.controlq_index) == (target.features, CONTROLQ)
    assert start.enabled is start.queue.enabled is enabled


def test_control_queue_that_a_front_end_keeps() -> None:
    target = negotiated(MQ_ALONE)
    *_, start = target.start_queue(ring(0), enabled=True).effects
    assert isinstance(start, StartQueue)
    assert start.controlq_index is None
    with pytest.raises(FrontendError, match="does not exist"):
        target.start_queue(ring(CONTROLQ), enabled=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"index": CONTROLQ + 1},
        {"index": 0x10000},
        {"index": -1},
        {"size": 0},
        {"size": 3},
        {"size": 2048},
        {"size": 2**40},
        {"desc_table": 8},
        {"avail_ring": 1},
        {"used_ring": 2},
        {"used_ring": 2**64 - 4},
        {"desc_table": 2**64},
        {"avail_base": 0x10000},
        {"used_base": -1},
    ],
)
@pytest.mark.requirement("CVE-2020-10723", "PF-A-11")
def test_ring_that_cannot_run_is_the_front_ends_fault(changes: dict[str, int]) -> None:
    target = negotiated()
    before = target.state
    with pytest.raises(FrontendError):
        target.start_queue(ring(**{"index": 0, **changes}), enabled=True)
    assert target.state is before


@pytest.mark.requirement("VIO-STAT-01")
def test_no_ring_starts_before_features_are_negotiated() -> None:
    with pytest.raises(FrontendError, match="before features"):
        device().start_queue(ring(0), enabled=True)


def test_ring_that_runs_is_not_started_again() -> None:
    target = serving()
    with pytest.raises(UsageError, match="runs already"):
        target.start_queue(ring(0), enabled=True)


def test_ring_stops_by_itself_and_starts_again_elsewhere() -> None:
    target = serving()
    assert commit(target, target.stop_queue(2)).effects == (StopQueue(2),)
    assert 2 not in {queue.index for queue in target.state.queues}
    assert commit(target, target.stop_queue(2)).effects == ()
    again = ring(2, size=64, avail_base=9)
    (start,) = commit(target, target.start_queue(again, enabled=True)).effects
    assert isinstance(start, StartQueue)
    assert start.queue.setup(2) == again
    assert target.status == 15


def test_what_commands_set_outlives_the_rings() -> None:
    """A front-end stops all of them to pause, and starts them again to go on."""
    target = serving()
    send(target, rss((0, 1)))
    before = target.state.control
    for index in range(CONTROLQ + 1):
        assert commit(target, target.stop_queue(index)).effects == (StopQueue(index),)
    assert target.status == 15
    for index in range(CONTROLQ + 1):
        commit(target, target.start_queue(ring(index), enabled=True))
    assert target.state.control == before
    assert target.policy.mode == "rss"


@pytest.mark.requirement("PF-D-04")
@pytest.mark.parametrize("index", [-1, CONTROLQ + 1, 0xFFFF, 2**32])
def test_switching_or_stopping_what_does_not_run_is_harmless(index: int) -> None:
    target = serving()
    before = target.state
    for transition in (
        target.enable_queue(index, enabled=True),
        target.enable_queue(index, enabled=False),
        target.stop_queue(index),
    ):
        assert transition.effects == ()
        assert transition.state == before


@pytest.mark.requirement("U-42")
def test_ring_is_switched_and_remembers_it() -> None:
    target = serving()
    for enabled in (False, True):
        switch = commit(target, target.enable_queue(3, enabled=enabled))
        assert switch.effects == (EnableQueue(3, enabled),)
        assert target.state.queues[3].enabled is enabled
        assert commit(target, target.enable_queue(3, enabled=enabled)).effects == ()


@pytest.mark.requirement("U-60", "U-12")
def test_with_a_control_queue_rings_do_not_decide_the_policy() -> None:
    """Commands do; a queue they name whose ring is off gets nothing (U-11)."""
    target = serving()
    send(target, vq_pairs(3))
    before = target.policy
    switched = commit(target, target.enable_queue(2, enabled=False))
    assert switched.effects == (EnableQueue(2, enabled=False),)
    assert commit(target, target.stop_queue(0)).effects == (StopQueue(0),)
    assert target.policy == before


@pytest.mark.requirement("U-60")
def test_without_a_control_queue_enabled_rings_are_in_force() -> None:
    """Those whose receiveq runs and is enabled; receiveq1 as long as there is none."""
    target = negotiated(MQ_ALONE)
    assert target.policy.queues_in_force == {0}
    for pair in range(PAIRS):
        commit(target, target.start_queue(ring(2 * pair), enabled=False))
        commit(target, target.start_queue(ring(2 * pair + 1), enabled=True))
    assert target.policy.queues_in_force == {0}
    policy = new_policy(commit(target, target.enable_queue(2, enabled=True)))
    assert policy.queues_in_force == {1}
    policy = new_policy(commit(target, target.enable_queue(0, enabled=True)))
    assert policy.queues_in_force == {0, 1}
    assert policy.port_queues == 2
    policy = new_policy(commit(target, target.stop_queue(2)))
    assert policy.queues_in_force == {0}
    transition = commit(target, target.start_queue(ring(2), enabled=True))
    assert new_policy(transition).queues_in_force == {0, 1}
    for index in (0, 2):
        commit(target, target.enable_queue(index, enabled=False))
    assert target.policy.queues_in_force == {0}


@pytest.mark.requirement("U-60", "U-41")
def test_nothing_is_steered_to_a_ring_while_it_is_off() -> None:
    """The ring first when it comes, the policy first when it goes."""
    target = serving(MQ_ALONE, enabled=False)
    on = commit(target, target.enable_queue(2, enabled=True)).effects
    assert [type(effect) for effect in on] == [EnableQueue, SetPolicy]
    off = commit(target, target.enable_queue(2, enabled=False)).effects
    assert [type(effect) for effect in off] == [SetPolicy, EnableQueue]


@pytest.mark.requirement("VIO-STAT-02", "VIO-STAT-03")
def test_ring_that_breaks_costs_a_reset_and_no_other_ring() -> None:
    target = serving()
    assert commit(target, target.ring_broken(1)).effects == (ConfigChanged(),)
    assert target.status == 15 | 64
    assert commit(target, target.stop_queue(1)).effects == (StopQueue(1),)
    commit(target, target.start_queue(ring(1), enabled=True))
    assert send(target, vq_pairs(2)).answer == OK
    assert target.status == 15 | 64


def test_rings_off_and_on_travel_with_the_state() -> None:
    source = serving(MQ_ALONE)
    commit(source, source.enable_queue(0, enabled=False))
    target = device(relaxed=True)
    *_, activate = commit(target, target.restore(source.state)).effects
    assert isinstance(activate, Activate)
    assert [queue.enabled for queue in activate.queues] == [False, *[True] * (2 * PAIRS - 1)]
    assert target.policy == source.policy
