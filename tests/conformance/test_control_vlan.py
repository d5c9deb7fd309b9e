# SPDX-License-Identifier: MIT
"""Class VLAN: the table of tags to receive."""

from __future__ import annotations

import pytest

from pyvnet.spec.features import Feature
from tests.device.support import (
    ERR,
    OK,
    begin_anew,
    commit,
    device,
    new_policy,
    running,
    send,
    start,
    vlan_add,
    vlan_delete,
    without,
)


@pytest.mark.requirement("NET-VLAN-01", "NET-VLAN-02", "NET-VLAN-03")
def test_tags_are_filtered_once_ctrl_vlan_is_negotiated() -> None:
    """Without it all tags pass; with it those of the table, which begins empty."""
    assert not running(without(Feature.CTRL_VLAN)).policy.vlan_filter
    target = running()
    assert target.policy.vlan_filter
    assert target.policy.rx_filter.vlans == frozenset()


@pytest.mark.requirement("NET-VLAN-01", "U-60")
def test_tags_pass_where_the_front_end_keeps_the_control_queue() -> None:
    """It keeps the table too: nothing could ever be added to ours."""
    target = device(relaxed=True)
    start(target, int(Feature.VERSION_1 | Feature.CTRL_VLAN))
    assert not target.policy.vlan_filter


@pytest.mark.requirement("NET-VLAN-02", "OUR-VLAN-04")
def test_add_and_delete_are_idempotent() -> None:
    target = running()
    steps = (
        (vlan_add(7), {7}),
        (vlan_add(7), {7}),
        (vlan_add(4095), {7, 4095}),
        (vlan_delete(100), {7, 4095}),
        (vlan_delete(7), {4095}),
        (vlan_delete(7), {4095}),
        (vlan_add(0), {0, 4095}),
        (vlan_add(1), {0, 1, 4095}),
    )
    for request, expected in steps:
        transition = send(target, request)
        assert transition.answer == OK
        assert new_policy(transition).rx_filter.vlans == expected


@pytest.mark.requirement("OUR-VLAN-04", "U-35")
@pytest.mark.parametrize("vid", [4096, 4097, 0x2000, 0x8000, 0xFFFF])
def test_id_beyond_twelve_bits(vid: int) -> None:
    target = running()
    send(target, vlan_add(7))
    for request in (vlan_add(vid), vlan_delete(vid)):
        transition = send(target, request)
        assert (transition.answer, transition.effects) == (ERR, ())
        assert target.policy.rx_filter.vlans == {7}


@pytest.mark.requirement("NET-VLAN-02")
def test_every_id_at_once() -> None:
    target = running()
    for vid in range(4096):
        assert send(target, vlan_add(vid)).answer == OK
    assert target.policy.rx_filter.vlans == set(range(4096))


@pytest.mark.requirement("OUR-VLAN-04", "PF-D-02")
def test_table_does_not_outlive_a_negotiation() -> None:
    """Peers kept it over a negotiation without CTRL_VLAN (qemu:6071d13c6a)."""
    target = running()
    for features in (without(), without(Feature.CTRL_VLAN)):
        send(target, vlan_add(7))
        assert target.policy.rx_filter.vlans == {7}
        commit(target, target.reset())
        assert target.policy.rx_filter.vlans == frozenset()
        start(target, features)
        assert target.policy.rx_filter.vlans == frozenset()
        commit(target, target.reset())
        start(target)
        assert target.policy.rx_filter.vlans == frozenset()


@pytest.mark.requirement("OUR-VLAN-04", "PF-D-02", "U-59")
def test_table_does_not_outlive_the_driver_behind_a_front_end() -> None:
    target = running()
    send(target, vlan_add(7))
    commit(target, target.negotiate(without(Feature.CTRL_VLAN)))
    commit(target, target.negotiate(without()))
    assert target.policy.rx_filter.vlans == frozenset()
    target = running()
    send(target, vlan_add(7))
    assert new_policy(begin_anew(target)).rx_filter.vlans == frozenset()
