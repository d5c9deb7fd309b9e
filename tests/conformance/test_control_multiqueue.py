# SPDX-License-Identifier: MIT
"""MQ_VQ_PAIRS_SET: automatic receive steering."""

from __future__ import annotations

import pytest

from pyvnet.spec.features import Feature
from pyvnet.spec.rss import HashType
from tests.device.support import (
    ERR,
    KEY,
    OK,
    PAIRS,
    commit,
    device,
    hash_config,
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


@pytest.mark.requirement("NET-MQ-02", "U-01", "U-02", "NET-HASH-04")
@pytest.mark.parametrize(
    "features", [without(), without(Feature.HASH_REPORT), without(Feature.RSS)]
)
def test_only_receiveq1_after_initialisation(features: int) -> None:
    """Until a command comes, receiveq1 alone gets packets, and no hash is computed or reported."""
    policy = new_policy(start(device(), features))
    assert policy.mode == "automatic"
    assert policy.queues_in_force == {0}
    assert policy.port_queues == 1
    assert policy.hash_types == HashType.NONE


@pytest.mark.requirement("NET-MQ-02")
def test_only_receiveq1_after_reset() -> None:
    target = running()
    send(target, vq_pairs(PAIRS))
    assert new_policy(commit(target, target.reset())).queues_in_force == {0}
    start(target)
    assert target.policy.queues_in_force == {0}


@pytest.mark.requirement("NET-MQ-03", "NET-MQ-04")
@pytest.mark.parametrize("pairs", range(1, PAIRS + 1))
def test_pairs_set_puts_the_first_pairs_in_force(pairs: int) -> None:
    """No packet goes to a higher receive queue once the command is completed."""
    target = running()
    send(target, vq_pairs(PAIRS))
    policy = new_policy(send(target, vq_pairs(pairs)))
    assert policy.mode == "automatic"
    assert policy.queues_in_force == set(range(pairs))
    assert (policy.pairs, policy.port_queues) == (pairs, pairs)


@pytest.mark.requirement("NET-MQ-09", "OUR-CVQ-06")
@pytest.mark.parametrize("pairs", [0, PAIRS + 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_pairs_out_of_range(pairs: int) -> None:
    """0 and numbers above the maximum are never sent; ERR if they are."""
    target = running()
    send(target, vq_pairs(3))
    before = target.state.steering
    transition = send(target, vq_pairs(pairs))
    assert (transition.answer, transition.effects) == (ERR, ())
    assert target.state.steering == before


@pytest.mark.requirement("NET-MQ-09", "NET-CFG-01")
def test_largest_device() -> None:
    target = device(pairs=0x8000)
    negotiate(target, without())
    assert target.controlq_index == 0x10000
    commit(target, target.configure_queue(ring(0x10000)))
    commit(target, target.write_status(15))
    assert send(target, vq_pairs(0x8000)).answer == OK
    assert send(target, vq_pairs(0x8001)).answer == ERR


@pytest.mark.requirement("U-16")
def test_pairs_set_when_only_rss_was_negotiated() -> None:
    target = running(without(Feature.MQ))
    assert send(target, vq_pairs(1)).answer == ERR
    send(target, rss())
    assert send(target, vq_pairs(1)).answer == ERR
    assert target.policy.mode == "rss"


@pytest.mark.requirement("NET-MQ-01", "NET-MQ-04", "U-15", "NET-HASH-02")
def test_last_command_decides_the_mode_and_reports_go_on() -> None:
    """VQ_PAIRS_SET ends RSS but not the reports: last types and key stay."""
    target = running()
    send(target, rss((3, 2), types=0x12, unclassified=1))
    transition = send(target, vq_pairs(2))
    policy = new_policy(transition)
    assert policy.mode == "automatic"
    assert policy.queues_in_force == {0, 1}
    assert (policy.hash_types, policy.key) == (0x12, KEY)
    assert "automatic" in str(transition.note)
    assert new_policy(send(target, rss())).mode == "rss"


@pytest.mark.requirement("U-15")
def test_nothing_is_logged_where_no_rss_ends() -> None:
    assert send(running(), vq_pairs(2)).note is None


@pytest.mark.requirement("U-15")
def test_rss_survives_pairs_set_on_request() -> None:
    """What one driver expects after `ethtool -L`: its own table stays in force."""
    target = running(compat="rss-survives-vq-pairs")
    send(target, rss((1, 0), unclassified=1))
    before = target.policy
    transition = send(target, vq_pairs(2))
    assert new_policy(transition) == before
    assert "stay" in str(transition.note)
    assert target.state.steering.pairs == 2


@pytest.mark.requirement("U-15", "NET-MQ-03")
@pytest.mark.parametrize("request_", [rss((0, 2)), rss((0, 1), unclassified=2)])
def test_rss_does_not_survive_when_it_names_a_queue_beyond_the_pairs(request_: bytes) -> None:
    target = running(compat="rss-survives-vq-pairs")
    send(target, request_)
    assert new_policy(send(target, vq_pairs(2))).mode == "automatic"
    assert target.policy.queues_in_force == {0, 1}


@pytest.mark.requirement("NET-MQ-01")
def test_hash_config_is_not_a_mode() -> None:
    target = running()
    send(target, vq_pairs(3))
    policy = new_policy(send(target, hash_config()))
    assert (policy.mode, policy.pairs) == ("automatic", 3)
