# SPDX-License-Identifier: MIT
"""Class GUEST_OFFLOADS: which offloads may be used towards the driver."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvnet.spec.features import Feature
from tests.device.support import (
    ERR,
    OK,
    begin_anew,
    commit,
    device,
    guest_offloads,
    negotiate,
    new_policy,
    running,
    send,
    start,
    without,
)

CSUM, TSO4, TSO6, ECN, USO4, USO6 = (1 << bit for bit in (1, 7, 8, 9, 54, 55))
BITS = (CSUM, TSO4, TSO6, ECN, USO4, USO6)
ALL = sum(BITS)
BARE = int(Feature.VERSION_1 | Feature.CTRL_VQ | Feature.CTRL_GUEST_OFFLOADS)
masks = st.sets(st.sampled_from(BITS)).map(sum)


def usable(mask: int) -> int:
    """What of a mask can be delivered: segmentation needs the checksum, ECN a TCP offload."""
    if not mask & CSUM:
        return 0
    return mask if mask & (TSO4 | TSO6) else mask & ~ECN


@pytest.mark.requirement("NET-OFL-01")
@pytest.mark.parametrize(
    "features", [without(), BARE, BARE | CSUM, BARE | CSUM | TSO4 | ECN, CSUM | USO6 | 1 << 32]
)
def test_negotiated_offloads_start_enabled(features: int) -> None:
    """Also where no command could switch them; before negotiation none is on."""
    target = device()
    assert target.policy.guest_offloads == 0
    negotiate(target, features)
    assert target.status == 11
    commit(target, target.write_status(15))
    assert target.policy.guest_offloads == features & ALL


@pytest.mark.requirement("NET-OFL-02")
@given(wanted=st.lists(masks, max_size=4))
def test_each_command_replaces_the_mask(wanted: list[int]) -> None:
    target = running()
    before = target.policy
    for mask in wanted:
        transition = send(target, guest_offloads(mask))
        assert transition.answer == OK
        assert target.state.control.guest_offloads == mask
        assert new_policy(transition) == replace(before, guest_offloads=usable(mask))


@pytest.mark.requirement("NET-RX-05", "NET-RX-12")
def test_segmentation_goes_with_the_checksum_and_comes_back_with_it() -> None:
    """Each segmentation offload needs NEEDS_CSUM in the header, so it is of no use without."""
    target = running()
    send(target, guest_offloads(ALL & ~CSUM))
    assert target.policy.guest_offloads == 0
    send(target, guest_offloads(ALL))
    assert target.policy.guest_offloads == ALL


@pytest.mark.requirement("NET-OFL-03", "U-39")
@pytest.mark.parametrize("bit", range(64))
def test_bit_that_was_not_negotiated(bit: int) -> None:
    """ERR and the mask stays: reserved bits, RSC_EXT (61) and the tunnels (46, 47) among them."""
    features = without(Feature.GUEST_USO6)
    target = running(features)
    send(target, guest_offloads(CSUM | TSO6))
    transition = send(target, guest_offloads(CSUM | 1 << bit))
    if features & ALL & 1 << bit:
        assert transition.answer == OK
        return
    assert (transition.answer, transition.effects) == (ERR, ())
    assert target.policy.guest_offloads == CSUM | TSO6


@pytest.mark.requirement("OUR-CVQ-04")
def test_command_takes_its_feature_and_the_offloads_stay_on() -> None:
    target = running(without(Feature.CTRL_GUEST_OFFLOADS))
    assert send(target, guest_offloads(0)).answer == ERR
    assert target.policy.guest_offloads == ALL


@pytest.mark.requirement("NET-OFL-01", "U-59")
def test_choice_does_not_outlive_the_driver() -> None:
    target = running()
    send(target, guest_offloads(0))
    assert new_policy(begin_anew(target)).guest_offloads == ALL
    send(target, guest_offloads(0))
    assert new_policy(commit(target, target.reset())).guest_offloads == 0
    start(target)
    assert target.policy.guest_offloads == ALL


@pytest.mark.requirement("OUR-TX-12")
def test_driver_may_ask_for_what_it_negotiated() -> None:
    asked = Feature.CSUM | Feature.HOST_TSO4 | Feature.HOST_TSO6 | Feature.HOST_ECN
    asked |= Feature.HOST_USO
    assert running().policy.host_offloads == asked
    assert running(1 << 32).policy.host_offloads == 0
    target = running(without(Feature.HOST_USO, Feature.HOST_ECN))
    assert target.policy.host_offloads == Feature.CSUM | Feature.HOST_TSO4 | Feature.HOST_TSO6
    send(target, guest_offloads(0))
    assert target.policy.host_offloads == Feature.CSUM | Feature.HOST_TSO4 | Feature.HOST_TSO6
