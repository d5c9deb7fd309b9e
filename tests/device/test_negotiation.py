# SPDX-License-Identifier: MIT
"""Which sets FEATURES_OK is granted for, and what queue layout follows."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvnet.device import negotiation
from pyvnet.device.effects import Activate
from pyvnet.device.settings import IMPLEMENTED
from pyvnet.spec.features import NO_FEATURES, REQUIREMENTS, Feature
from tests.device.support import OFFER, PAIRS, commit, device, negotiate, ring, running, without

if TYPE_CHECKING:
    from pyvnet.device.device import VirtioNetDevice

# Positions, as the standard lists them: a bit and those of which it needs one.
NEEDS: dict[int, set[int]] = {
    9: {7, 8},
    13: {11, 12},
}
for bits, needed in (
    ((2, 18, 19, 20, 21, 22, 23, 57, 60), 17),
    ((7, 8, 54, 55), 1),
    ((11, 12, 56), 0),
):
    NEEDS |= {bit: {needed} for bit in bits}
OFFERED = [bit for bit in range(128) if int(OFFER) >> bit & 1]


def consistent(chosen: set[int]) -> bool:
    return 32 in chosen and all(NEEDS[bit] & chosen for bit in chosen if bit in NEEDS)


def judged(target: VirtioNetDevice, chosen: set[int]) -> bool:
    """Whether a set is accepted, the first time and after a reset."""
    features = sum(1 << bit for bit in chosen)
    verdicts = set()
    for _ in range(2):
        negotiate(target, features)
        verdicts.add(bool(target.status & 8))
        assert target.features == (features if target.status & 8 else 0)
        commit(target, target.write_status(0))
    (verdict,) = verdicts
    return verdict


@pytest.mark.requirement("VIO-FEAT-02", "VIO-FEAT-04", "VIO-FEAT-06")
@given(chosen=st.sets(st.sampled_from(OFFERED)), base=st.booleans())
def test_any_subset_of_the_offer(chosen: set[int], base: bool) -> None:
    """Each consistent subset is accepted, each other one leaves FEATURES_OK off; twice alike."""
    chosen |= {0, 1, 17, 32} if base else set()
    assert judged(device(), chosen) == consistent(chosen)


@pytest.mark.requirement("VIO-FEAT-02")
def test_offer_less_any_two_bits() -> None:
    target = device()
    for dropped in itertools.combinations(OFFERED, 2):
        chosen = set(OFFERED) - set(dropped)
        assert judged(target, chosen) == consistent(chosen), dropped


@pytest.mark.requirement("VIO-FEAT-02", "VIO-FEAT-10")
@pytest.mark.parametrize("position", [3, 4, 6, 10, 14, 26, 30, 34, 43, 58, 61, 64, 71, 100, 127])
def test_bit_that_was_not_offered_is_refused(position: int) -> None:
    target = device()
    negotiate(target, int(target.offered) | 1 << position)
    assert target.status == 3
    assert target.features == NO_FEATURES


@pytest.mark.parametrize("bits", [-1, 1 << 128])
def test_write_wider_than_any_feature_field_is_ignored(bits: int) -> None:
    target = device()
    commit(target, target.write_driver_features(bits))
    assert target.state.driver_features == 0
    assert target.state.counters.feature_writes_ignored == 1


NEEDS_CONTROLQ = [bit for bit, groups in REQUIREMENTS.items() if groups == (Feature.CTRL_VQ,)]
# What a DPDK front-end acks that executes control commands itself, less the protocol's bit 30.
DPDK = 0x110CC8000


@pytest.mark.requirement("U-60")
@pytest.mark.parametrize(
    "bits", [*(bit for bit in NEEDS_CONTROLQ if bit & IMPLEMENTED), Feature(DPDK)]
)
def test_relaxed_dependencies_let_features_come_without_the_control_queue(bits: Feature) -> None:
    """A front-end that keeps the control queue acks what depends on it, but not the queue."""
    for relaxed in (False, True):
        target = device(relaxed=relaxed)
        negotiate(target, int(Feature.VERSION_1 | bits))
        assert bool(target.status & 8) == relaxed
        assert target.controlq_index is None or not relaxed


@pytest.mark.parametrize(
    "bits", [Feature.GUEST_TSO4, Feature.HOST_ECN | Feature.CSUM, Feature.HOST_USO, Feature.MTU]
)
def test_relaxed_dependencies_relax_no_other(bits: Feature) -> None:
    target = device(relaxed=True)
    negotiate(target, int(Feature.VERSION_1 | bits))
    assert target.status == 3


@pytest.mark.parametrize(
    ("features", "count", "controlq"),
    [
        (without(), 2 * PAIRS + 1, 2 * PAIRS),
        (without(Feature.MQ), 2 * PAIRS + 1, 2 * PAIRS),
        (without(Feature.RSS), 2 * PAIRS + 1, 2 * PAIRS),
        (without(Feature.MQ, Feature.RSS), 3, 2),
        (int(Feature.VERSION_1 | Feature.MAC), 2, None),
    ],
)
def test_queue_layout_follows_what_was_negotiated(
    features: int, count: int, controlq: int | None
) -> None:
    """N counts when MQ *or* RSS was negotiated, else 1; the controlq is queue 2N."""
    target = device()
    assert (target.queue_count, target.controlq_index) == (2 * PAIRS + 1, 2 * PAIRS)
    negotiate(target, features)
    assert (target.queue_count, target.controlq_index) == (count, controlq)


@pytest.mark.parametrize(
    ("features", "controlq"),
    [
        (without(), 2 * PAIRS),
        (without(Feature.MQ, Feature.RSS), 2),
        (int(Feature.VERSION_1), None),
    ],
)
def test_start_names_the_control_queue_of_its_own_layout(
    features: int, controlq: int | None
) -> None:
    """Also where the layout is news to the device: one write to DRIVER_OK, a state put back."""
    target = device()
    commit(target, target.write_driver_features(features))
    commit(target, target.configure_queue(ring(0)))
    *_, activate = commit(target, target.write_status(15)).effects
    assert isinstance(activate, Activate)
    assert activate.controlq_index == controlq
    *_, activate = device().restore(target.state).effects
    assert isinstance(activate, Activate)
    assert activate.controlq_index == controlq


def test_layout_without_control_queue() -> None:
    assert negotiation.queue_count(4, Feature.MQ) == 8
    assert negotiation.controlq_index(4, Feature.MQ) is None


def test_refusal_says_why() -> None:
    settings = device().settings
    assert negotiation.refusal(settings, 1 << 58 | 1 << 34) == "not offered: ring_packed, bit58"
    assert negotiation.refusal(settings, 0) == "version_1 not accepted"
    written = int(Feature.VERSION_1 | Feature.HASH_REPORT)
    assert negotiation.refusal(settings, written) == "hash_report without ctrl_vq"


def test_negotiated_features_are_gone_after_reset() -> None:
    target = running()
    commit(target, target.reset())
    assert target.features == NO_FEATURES
