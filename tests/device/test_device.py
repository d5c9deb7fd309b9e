# SPDX-License-Identifier: MIT
"""Reset, broken rings and notifications as the runtime sees them."""

from __future__ import annotations

import pytest

from pyvnet.device.control import ControlState
from pyvnet.device.effects import Activate, ConfigChanged, Deactivate, SetPolicy
from pyvnet.device.state import DeviceState
from pyvnet.device.steering import Policy
from pyvnet.spec.features import Feature
from tests.device.support import (
    MAC,
    PAIRS,
    commit,
    device,
    negotiate,
    new_policy,
    ring,
    rss,
    running,
    send,
    start,
    vq_pairs,
    without,
)


def initial(target: DeviceState) -> DeviceState:
    control = ControlState(target.mac)
    return DeviceState(target.max_virtqueue_pairs, target.mac, control, counters=target.counters)


def test_driver_ok_sets_the_policy_and_then_starts_the_rings() -> None:
    policy, activate = start(device()).effects
    assert isinstance(policy, SetPolicy)
    assert isinstance(activate, Activate)
    assert policy.policy.header_length == 20


def test_driver_ok_twice_starts_once() -> None:
    target = running()
    assert commit(target, target.write_status(15)).effects == ()


@pytest.mark.requirement("VIO-RST-01", "VIO-RST-02")
def test_reset_stops_the_rings_first_and_leaves_nothing() -> None:
    """Status reads 0; no queue access after it; rings stop before the policy changes."""
    target = running()
    send(target, rss())
    transition = commit(target, target.write_status(0))
    assert transition.effects == (Deactivate(), SetPolicy(Policy(mac=MAC)))
    assert target.status == 0
    assert target.state == initial(target.state)
    assert target.state.counters.resets == 1


@pytest.mark.requirement("VIO-RST-01", "VIO-RST-04")
def test_reset_is_possible_at_any_time() -> None:
    """A device reset resets its queues too: their avail and used progress is gone."""
    target = device()
    for _ in range(2):
        commit(target, target.reset())
        negotiate(target, without())
        commit(target, target.configure_queue(ring(0, avail_base=9, used_base=9)))
        commit(target, target.reset())
        assert target.state == initial(target.state)


@pytest.mark.requirement("PF-D-03", "NET-MQ-02")
@pytest.mark.parametrize("command", [vq_pairs(PAIRS), rss((0, 1, 2, 3)), rss((3,), unclassified=3)])
@pytest.mark.parametrize("second", [without(), without(Feature.MQ, Feature.RSS)])
def test_extra_queues_are_gone_after_reset(command: bytes, second: int) -> None:
    """Peers kept them (qemu:0caed25cd1)."""
    target = running()
    assert new_policy(send(target, command)).port_queues == PAIRS
    transition = commit(target, target.reset())
    assert new_policy(transition).port_queues == 1
    assert target.state.queues == ()
    negotiate(target, second)
    for index in (0, 1):
        commit(target, target.configure_queue(ring(index)))
    policy, activate = commit(target, target.write_status(15)).effects
    assert isinstance(policy, SetPolicy)
    assert isinstance(activate, Activate)
    assert policy.policy.queues_in_force == {0}
    assert policy.policy.port_queues == 1
    assert [queue.index for queue in activate.queues] == [0, 1]


@pytest.mark.requirement("VIO-STAT-02", "VIO-STAT-03")
def test_broken_ring_needs_a_reset_and_the_driver_is_told_once() -> None:
    """NEEDS_RESET, and a configuration change notification while DRIVER_OK is on."""
    target = running()
    generation = target.config_generation
    assert commit(target, target.ring_broken(1)).effects == (ConfigChanged(),)
    assert target.status == 15 | 64
    assert target.config_generation == generation + 1
    assert commit(target, target.ring_broken(0)).effects == ()
    assert target.state.counters.rings_broken == 2
    assert send(target, vq_pairs(2)).answer == b"\0"
    commit(target, target.write_status(0))
    assert target.status == 0


@pytest.mark.requirement("VIO-STAT-02")
def test_broken_ring_before_driver_ok_is_not_announced() -> None:
    target = device()
    negotiate(target, without())
    commit(target, target.configure_queue(ring(0)))
    assert commit(target, target.ring_broken(0)).effects == ()
    assert target.status == 11 | 64
    commit(target, target.write_status(15))
    assert target.status == 11 | 64


@pytest.mark.requirement("VIO-RST-01")
@pytest.mark.parametrize("index", [0, 8, 9, -1, 2**20])
def test_news_of_a_ring_that_was_reset_away_is_dropped(index: int) -> None:
    """Status stays 0 after a reset even if the engine's event comes late."""
    target = running()
    commit(target, target.reset())
    assert commit(target, target.ring_broken(index)).effects == ()
    assert target.status == 0
    assert target.state.counters.ring_events_stale == 1


@pytest.mark.requirement("VIO-RST-01")
def test_no_ring_breaks_before_a_driver_is_there() -> None:
    target = device()
    commit(target, target.configure_queue(ring(0)))
    commit(target, target.ring_broken(0))
    assert target.status == 0
    assert target.state.counters.ring_events_stale == 1


@pytest.mark.requirement("VIO-FEAT-04")
def test_second_life_is_like_the_first() -> None:
    target = device()
    lives = []
    for _ in range(3):
        lives.append((start(target).effects, target.features, target.policy))
        send(target, rss())
        commit(target, target.reset())
    assert lives[0] == lives[1] == lives[2]
