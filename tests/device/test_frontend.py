# SPDX-License-Identifier: MIT
"""What a front-end, the link and the operator change, and what they do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pyvnet.device.control import ControlState
from pyvnet.device.effects import ConfigChanged, Deactivate, SetPolicy
from pyvnet.errors import FrontendError
from pyvnet.spec.features import Feature
from tests.device.support import (
    COMMANDS,
    MAC,
    OFFER,
    begin_anew,
    commit,
    device,
    mac_address,
    negotiate,
    new_policy,
    ring,
    running,
    send,
    start,
    station,
    touched,
    vq_pairs,
    without,
)

# Features as a set.


@pytest.mark.parametrize("features", [without(), 1 << 32, without(Feature.HASH_REPORT)])
def test_front_end_hands_over_the_features(features: int) -> None:
    """Status follows as far as FEATURES_OK; the policy is that of the new set."""
    target = device()
    transition = commit(target, target.negotiate(features))
    assert transition.effects == (Deactivate(), SetPolicy(target.policy))
    assert target.status == 11
    assert target.features == features
    climbed = device()
    negotiate(climbed, features)
    assert target.state == climbed.state


def test_same_set_again_changes_nothing() -> None:
    """Front-ends send it at every start: rings run on, commands hold."""
    target = touched()
    before = target.state
    transition = commit(target, target.negotiate(int(target.features)))
    assert transition.effects == ()
    assert target.state == before


@pytest.mark.requirement("U-59", "VIO-FEAT-04")
def test_another_set_begins_from_nothing() -> None:
    target = touched()
    commit(target, target.ring_broken(0))
    before = target.state
    other = without(Feature.MQ)
    transition = commit(target, target.negotiate(other))
    assert transition.effects == (Deactivate(), SetPolicy(target.policy))
    fresh = device()
    commit(fresh, fresh.negotiate(other))
    assert replace(target.state, counters=fresh.state.counters) == fresh.state
    assert target.state.counters.control_commands == before.counters.control_commands


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (without(Feature.VERSION_1), "version_1"),
        (without() | 1 << 34, "ring_packed"),
        (without() | 1 << 30, "bit30"),
        (without(Feature.CTRL_VQ), "without ctrl_vq"),
        (without() | 1 << 127, "bit127"),
        (1 << 128, "bits"),
        (-1, "bits"),
    ],
)
@pytest.mark.requirement("VIO-FEAT-02", "VIO-FEAT-06", "VIO-FEAT-10")
def test_set_the_device_cannot_run_with(features: int, reason: str) -> None:
    target = touched()
    before = target.state
    with pytest.raises(FrontendError, match=reason):
        target.negotiate(features)
    assert target.state is before


# A driver that began anew.


@pytest.mark.requirement("U-59", "NET-FLT-09", "NET-MQ-02", "NET-OFL-01")
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_commanded_outlives_a_driver_that_began_anew(name: str) -> None:
    """Whatever the command, the policy is again that of a device just started."""
    target = touched()
    send(target, COMMANDS[name][0])
    before = target.state
    assert new_policy(begin_anew(target)) == running().policy
    assert target.state.control == ControlState.initial(MAC, target.features)
    assert target.state.queues == before.queues
    assert (target.features, target.status) == (before.features, 15)


@pytest.mark.requirement("U-59")
def test_driver_that_began_anew_needs_no_other_reset() -> None:
    target = running()
    commit(target, target.ring_broken(1))
    begin_anew(target)
    assert target.status == 15
    assert commit(target, target.ring_broken(1)).effects == (ConfigChanged(),)


@pytest.mark.requirement("U-59")
def test_driver_that_began_anew_is_told_only_of_what_it_can_read() -> None:
    target = running()
    send(target, vq_pairs(3))
    generation = target.config_generation
    assert begin_anew(target).effects == (SetPolicy(target.policy),)
    assert target.config_generation == generation
    send(target, mac_address(station(1)))
    assert begin_anew(target).effects == (SetPolicy(target.policy), ConfigChanged())
    assert target.config_generation == generation + 2


def test_beginning_anew_before_anything_began() -> None:
    target = device()
    assert begin_anew(target).effects == (SetPolicy(target.policy),)
    assert target.status == 0


# The MTU.


@pytest.mark.requirement("NET-CFG-02", "NET-CFG-05", "U-51")
def test_smaller_of_both_mtus_is_in_force() -> None:
    target = running(without() | Feature.MTU, mtu=4000)
    assert target.policy.mtu == 4000
    for mtu in (68, 1500, 4000):
        transition = commit(target, target.set_frontend_mtu(mtu))
        assert target.policy.mtu == mtu
        assert new_policy(transition).mtu == mtu
    assert commit(target, target.set_frontend_mtu(4000)).effects == ()
    commit(target, target.set_frontend_mtu(1500))
    assert new_policy(commit(target, target.set_frontend_mtu(None))).mtu == 4000


@pytest.mark.requirement("NET-CFG-02")
@pytest.mark.parametrize("mtu", [-1, 0, 67, 4001, 9000, 65535, 65536, 2**64])
def test_mtu_that_cannot_be_kept_is_refused(mtu: int) -> None:
    """Below what IPv4 needs, beyond 16 bits, or beyond what this device promised."""
    target = running(without() | Feature.MTU, mtu=4000)
    with pytest.raises(FrontendError, match="68…4000"):
        target.set_frontend_mtu(mtu)


def test_mtu_without_one_of_our_own() -> None:
    """Nothing to compare with, and nothing negotiated that it would hold for."""
    target = running()
    assert commit(target, target.set_frontend_mtu(65535)).effects == ()
    assert target.policy.mtu == 0
    for mtu in (67, 65536):
        with pytest.raises(FrontendError, match="68…65535"):
            target.set_frontend_mtu(mtu)


@pytest.mark.requirement("NET-CFG-04")
def test_mtu_of_the_front_end_shows_nowhere_and_outlives_the_driver() -> None:
    """Front-ends tell it before they hand over features; configuration space never changes."""
    target = device(mtu=4000)
    commit(target, target.set_frontend_mtu(1500))
    generation = target.config_generation
    commit(target, target.negotiate(without() | Feature.MTU))
    commit(target, target.start_queue(ring(0), enabled=True))
    begin_anew(target)
    assert target.policy.mtu == 1500
    commit(target, target.reset())
    assert target.policy.mtu == 0
    start(target, without() | Feature.MTU)
    assert target.policy.mtu == 1500
    assert target.read_config(10, 2) == (4000).to_bytes(2, "little")
    assert target.config_generation == generation


def test_mtu_that_was_not_negotiated_is_not_in_force() -> None:
    assert running(mtu=1500).policy.mtu == 0


# The link.


def link_status(config: bytes) -> int:
    return int.from_bytes(config, "little")


@pytest.mark.requirement("NET-LNK-01", "NET-CFG-15")
def test_link_shows_and_its_change_is_announced() -> None:
    target = running()
    assert link_status(target.read_config(6, 2)) == 1
    for up in (False, True):
        generation = target.config_generation
        assert commit(target, target.set_link(up=up)).effects == (ConfigChanged(),)
        assert link_status(target.read_config(6, 2)) == up
        assert target.config_generation == generation + 1
        assert commit(target, target.set_link(up=up)).effects == ()
        assert target.config_generation == generation + 1


@pytest.mark.requirement("NET-CFG-11")
def test_link_changes_neither_speed_nor_duplex() -> None:
    target = running()
    before = target.read_config(8, 20)
    commit(target, target.set_link(up=False))
    assert target.read_config(8, 20) == before


@pytest.mark.requirement("NET-CFG-15")
def test_link_is_invisible_where_status_is_not_offered() -> None:
    offered = Feature(without(Feature.STATUS))
    target = running(int(offered), offered=offered)
    before, generation = target.read_config(0, 28), target.config_generation
    for up in (False, True):
        assert commit(target, target.set_link(up=up)).effects == ()
        assert target.read_config(0, 28) == before
    assert target.config_generation == generation


@pytest.mark.requirement("NET-CFG-15", "VIO-STAT-01")
def test_driver_that_does_not_look_is_not_told() -> None:
    """Neither one without STATUS nor one that does not run yet; what it reads is true."""
    target = running(without(Feature.STATUS))
    assert commit(target, target.set_link(up=False)).effects == ()
    assert link_status(target.read_config(6, 2)) == 0
    target = device()
    negotiate(target, without())
    generation = target.config_generation
    assert commit(target, target.set_link(up=False)).effects == ()
    assert link_status(target.read_config(6, 2)) == 0
    assert target.config_generation == generation + 1


@pytest.mark.requirement("NET-LNK-01")
def test_link_outlives_reset_negotiation_and_a_state_put_back() -> None:
    """It is the host's, not the driver's."""
    target = running()
    taken = target.state
    commit(target, target.set_link(up=False))
    commit(target, target.reset())
    commit(target, target.negotiate(int(OFFER)))
    begin_anew(target)
    commit(target, target.restore(taken))
    assert link_status(target.read_config(6, 2)) == 0


def test_announcement_and_link_share_the_field() -> None:
    target = running()
    commit(target, target.announce())
    commit(target, target.set_link(up=False))
    assert link_status(target.read_config(6, 2)) == 2
    commit(target, target.set_link(up=True))
    assert link_status(target.read_config(6, 2)) == 3


# Configuration space as a whole.


@pytest.mark.parametrize("settings", [{}, {"mtu": 1500, "speed": 0xFFFFFFFF, "duplex": 0xFF}])
def test_generation_changes_with_every_change_of_a_byte(settings: dict[str, Any]) -> None:
    """So a driver that reads in pieces can tell that it read one state."""
    target = touched(**settings)
    steps = (
        lambda: target.control(mac_address(station(2)), 1),
        lambda: target.control(mac_address(station(2)), 1),
        lambda: target.control(vq_pairs(2), 1),
        target.announce,
        lambda: target.set_link(up=False),
        target.begin_anew,
        lambda: target.control(mac_address(station(3)), 1),
        lambda: target.negotiate(1 << 32),
        lambda: target.set_link(up=True),
        target.reset,
    )
    for step in steps:
        before = target.config_generation, target.read_config(0, 28)
        transition = commit(target, step())
        after = target.config_generation, target.read_config(0, 28)
        told = ConfigChanged() in transition.effects
        assert (after[0] != before[0]) == (after[1] != before[1] or told)
