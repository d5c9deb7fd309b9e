# SPDX-License-Identifier: MIT
"""Feature bits by name, and what they require of one another."""

from __future__ import annotations

import pytest

from pyvnet.spec.features import (
    NO_FEATURES,
    REQUIREMENTS,
    Feature,
    feature_names,
    features_from_names,
    missing_dependencies,
)


def test_names_go_there_and_back() -> None:
    assert feature_names(Feature.RSS | Feature.MAC) == ["mac", "rss"]
    assert features_from_names("mac, rss") == Feature.RSS | Feature.MAC
    every = NO_FEATURES
    for bit in Feature:
        every |= bit
    assert features_from_names(",".join(feature_names(every))) == every


def test_a_bit_without_a_name_is_called_by_its_number() -> None:
    Feature(1 << 99)  # the enum remembers it from now on, as a member without a name

    assert feature_names(1 << 99 | 1 << 58 | Feature.MAC) == ["mac", "bit58", "bit99"]


def test_an_unknown_name_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        features_from_names("rss,nonsense")


@pytest.mark.requirement("VIO-FEAT-01")
@pytest.mark.parametrize("bit", REQUIREMENTS, ids=lambda bit: str(bit.name))
def test_a_bit_alone_lacks_what_it_requires_and_with_it_lacks_nothing(bit: Feature) -> None:
    assert bit in missing_dependencies(bit)

    complete = bit
    while missing := missing_dependencies(complete):
        for lacking in missing.values():
            complete |= lacking
    assert complete & bit


def test_one_of_two_alternatives_is_enough() -> None:
    ecn = Feature.GUEST_ECN | Feature.GUEST_CSUM
    assert missing_dependencies(ecn) == {Feature.GUEST_ECN: Feature.GUEST_TSO4 | Feature.GUEST_TSO6}
    assert not missing_dependencies(ecn | Feature.GUEST_TSO6)
