# SPDX-License-Identifier: MIT
"""The policy worked out from commands and negotiated features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pyvnet.device._checks import StateError
from pyvnet.device.control import ControlState
from pyvnet.device.device import SteeringOwner
from pyvnet.device.steering import Policy, SteeringMode, SteeringState, make_policy
from pyvnet.errors import HostError
from pyvnet.spec.features import Feature
from pyvnet.spec.rss import HashType
from tests.device.support import (
    ERR,
    KEY,
    MAC,
    OK,
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

PLAIN = Feature.VERSION_1 | Feature.CTRL_VQ | Feature.MQ | Feature.RSS
RSS_STATE = SteeringState(SteeringMode.RSS, HashType.TCPV4, KEY, (1, 2), 3, 4)


def policy_of(
    steering: SteeringState,
    features: Feature = PLAIN,
    receiveqs: frozenset[int] = frozenset(),
    *,
    ex_types_always: bool = False,
) -> Policy:
    return make_policy(
        ControlState(MAC, steering=steering),
        features,
        receiveqs=receiveqs,
        ex_types_always=ex_types_always,
        mtu=0,
    )


def test_reset_policy() -> None:
    """Automatic, one pair, no hash, everything received: what a Policy is by default."""
    assert policy_of(SteeringState(), Feature(0)) == Policy(mac=MAC)
    assert device().policy == Policy(mac=MAC)


@pytest.mark.parametrize(
    ("bits", "header", "merge"),
    [
        (Feature(0), 12, False),
        (Feature.MRG_RXBUF, 12, True),
        (Feature.HASH_REPORT, 20, False),
        (Feature.HASH_REPORT | Feature.MRG_RXBUF, 20, True),
    ],
)
def test_header_follows_the_features(bits: Feature, header: int, merge: bool) -> None:
    policy = policy_of(SteeringState(), PLAIN | bits)
    assert (policy.header_length, policy.merge_rx) == (header, merge)


@pytest.mark.requirement("U-12", "U-60", "U-62")
def test_rss_puts_every_named_queue_in_force() -> None:
    policy = policy_of(RSS_STATE)
    assert policy.mode == "rss"
    assert policy.queues_in_force == {1, 2, 3}
    assert (policy.pairs, policy.port_queues) == (4, 4)
    assert policy.indirection_table == (1, 2)
    assert policy.unclassified_queue == 3


@pytest.mark.requirement("U-60", "U-62")
def test_automatic_mode_puts_the_first_pairs_in_force() -> None:
    policy = policy_of(SteeringState(pairs=3))
    assert policy.queues_in_force == {0, 1, 2}
    assert (policy.pairs, policy.port_queues) == (3, 3)


@pytest.mark.requirement("U-15")
def test_hash_is_not_computed_where_nobody_looks_at_it() -> None:
    """Automatic steering needs no hash; with HASH_REPORT the report does."""
    hashing = SteeringState(hash_types=HashType.UDPV6, key=KEY)
    assert policy_of(hashing).hash_types == 0
    assert policy_of(hashing, PLAIN | Feature.HASH_REPORT).hash_types == HashType.UDPV6


@pytest.mark.requirement("U-60")
@pytest.mark.parametrize(
    ("indexes", "in_force"),
    [((0, 1), {0}), ((0, 1, 2, 3, 4, 5), {0, 1, 2}), ((0, 6), {0, 3}), ((1, 3), {0}), ((), {0})],
)
def test_without_control_queue_the_rings_set_up_are_in_force(
    indexes: tuple[int, ...], in_force: set[int]
) -> None:
    target = device(relaxed=True)
    negotiate(target, int(Feature.VERSION_1 | Feature.MQ))
    for index in indexes:
        commit(target, target.configure_queue(ring(index)))
    policy = new_policy(commit(target, target.write_status(15)))
    assert policy.queues_in_force == in_force
    assert policy.port_queues == max(in_force) + 1


@pytest.mark.requirement("NET-MQ-02", "U-60")
def test_with_control_queue_the_rings_set_up_do_not_count() -> None:
    assert new_policy(start(device())).queues_in_force == {0}


@pytest.mark.requirement("U-19")
@pytest.mark.parametrize(("compat", "always"), [("", False), ("ex-types-always", True)])
def test_ex_types_switch_reaches_the_policy(compat: str, always: bool) -> None:
    target = running(compat=compat)
    assert target.policy.ex_types_always is always
    assert new_policy(send(target, rss())).ex_types_always is always
    assert new_policy(commit(target, target.reset())).ex_types_always is always


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "rss"},
        {"hash_types": 0x200},
        {"hash_types": -1},
        {"key": KEY[:-1]},
        {"key": bytearray(40)},
        {"indirection_table": ()},
        {"indirection_table": (0, 1, 2)},
        {"indirection_table": (0,) * 256},
        {"indirection_table": [0, 1]},
        {"indirection_table": (0x8000,)},
        {"indirection_table": (-1,)},
        {"indirection_table": (True,)},
        {"unclassified_queue": 0x8000},
        {"max_tx_vq": 0},
        {"max_tx_vq": 0x8001},
        {"pairs": 0},
        {"pairs": 0x8001},
        {"mode": SteeringMode.AUTOMATIC},
    ],
)
def test_state_holds_nothing_a_command_could_not_set(changes: dict[str, Any]) -> None:
    with pytest.raises(StateError):
        replace(RSS_STATE, **changes)


@pytest.mark.parametrize(
    "changes",
    [{"indirection_table": (0, 4)}, {"unclassified_queue": 4}, {"max_tx_vq": 5}, {"pairs": 5}],
)
def test_bounds_of_the_device_apply(changes: dict[str, Any]) -> None:
    RSS_STATE.check_within(4)
    with pytest.raises(StateError, match="outside"):
        replace(RSS_STATE, **changes).check_within(4)


@pytest.mark.requirement("U-45")
def test_operators_program_keeps_rss_away() -> None:
    """While it is attached RSS_CONFIG is answered ERR; the other commands are not its business."""
    target = running()
    assert target.steering_owner == "device"
    commit(target, target.set_steering_owner(SteeringOwner.USER_PROGRAM))
    before = target.state.steering
    assert send(target, rss()).answer == ERR
    assert target.state.steering == before
    assert send(target, vq_pairs(2)).answer == OK
    assert send(target, hash_config()).answer == OK
    commit(target, target.set_steering_owner(SteeringOwner.DEVICE))
    assert send(target, rss()).answer == OK


@pytest.mark.requirement("U-45")
def test_operators_program_is_refused_while_rss_is_active() -> None:
    target = running()
    send(target, rss())
    with pytest.raises(HostError, match="busy"):
        target.set_steering_owner(SteeringOwner.USER_PROGRAM)
    send(target, vq_pairs(2))
    commit(target, target.set_steering_owner(SteeringOwner.USER_PROGRAM))
    assert target.steering_owner == "user-program"


@pytest.mark.requirement("U-45")
def test_operators_program_survives_reset_and_restore() -> None:
    target = running()
    rss_active = send(target, rss()).state
    commit(target, target.reset())
    commit(target, target.set_steering_owner(SteeringOwner.USER_PROGRAM))
    commit(target, target.reset())
    assert target.steering_owner == "user-program"
    with pytest.raises(StateError, match="steering program"):
        target.restore(rss_active)
    commit(target, target.restore(device().state))
    assert target.steering_owner == "user-program"


def test_header_stays_plain_without_hash_report() -> None:
    target = running(without(Feature.HASH_REPORT))
    assert new_policy(send(target, rss())).header_length == 12
