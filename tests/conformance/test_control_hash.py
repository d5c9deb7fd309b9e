# SPDX-License-Identifier: MIT
"""MQ_HASH_CONFIG: reports without RSS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyvnet.spec.features import Feature
from tests.device.support import (
    ERR,
    KEY,
    OK,
    commit,
    hash_config,
    new_policy,
    rss,
    running,
    send,
    start,
    vq_pairs,
    without,
)

if TYPE_CHECKING:
    from pyvnet.device.device import VirtioNetDevice

HASH_ONLY = without(Feature.RSS, Feature.MQ)


def refused(target: VirtioNetDevice, request: bytes) -> bool:
    before = target.state.steering
    transition = send(target, request)
    if transition.answer == OK:
        return False
    assert (transition.answer, transition.effects) == (ERR, ())
    assert target.state.steering == before
    return True


@pytest.mark.requirement("NET-HASH-01", "NET-HASH-03")
@pytest.mark.parametrize("pairs", [1, 4])
@pytest.mark.parametrize("features", [HASH_ONLY, without(Feature.RSS), without()])
def test_hash_config_works_wherever_hash_report_is_negotiated(pairs: int, features: int) -> None:
    """Alone, also with a single pair, and together with RSS before RSS is configured."""
    policy = new_policy(send(running(features, pairs), hash_config(0x3F)))
    assert policy.mode == "automatic"
    assert (policy.hash_types, policy.key) == (0x3F, KEY)
    assert policy.header_length == 20
    assert policy.queues_in_force == {0}


@pytest.mark.requirement("U-17", "NET-HASH-02")
def test_rss_alone_governs_while_it_is_the_mode() -> None:
    """ERR while RSS is active; taken again once VQ_PAIRS_SET made steering automatic."""
    target = running()
    assert not refused(target, hash_config(0x01))
    send(target, rss(types=0x02))
    assert refused(target, hash_config(0x04))
    assert target.policy.hash_types == 0x02
    send(target, vq_pairs(2))
    assert not refused(target, hash_config(0x04))
    assert target.policy.hash_types == 0x04


@pytest.mark.requirement("NET-HASH-02")
def test_rss_config_replaces_types_and_key_of_hash_config() -> None:
    target = running()
    send(target, hash_config(0x01, b"\x55" * 40))
    policy = new_policy(send(target, rss(types=0x1F, key=KEY[:12])))
    assert (policy.hash_types, policy.key) == (0x1F, KEY[:12] + bytes(28))


@pytest.mark.requirement("NET-HASH-04", "U-02")
def test_types_are_off_after_reset() -> None:
    target = running()
    send(target, hash_config())
    assert new_policy(commit(target, target.reset())).hash_types == 0
    assert new_policy(start(target)).hash_types == 0


@pytest.mark.requirement("U-18")
@pytest.mark.parametrize("reserved", [(0, 0, 0, 4), (1, 2, 3, 4), (0xFFFF,) * 4])
def test_reserved_fields_are_not_looked_at(reserved: tuple[int, int, int, int]) -> None:
    """Linux puts its pair count there."""
    plain, odd = running(), running()
    send(plain, hash_config())
    assert send(odd, hash_config(reserved=reserved)).answer == OK
    assert odd.state == plain.state


@pytest.mark.requirement("U-13")
@pytest.mark.parametrize(
    ("types", "length", "good"),
    [
        (0, 0, True),
        (0x3F, 0, False),
        (0x3F, 1, True),
        (0x3F, 39, True),
        (0x3F, 40, True),
        (0x3F, 41, False),
        (0x3F, 255, False),
        (0, 40, True),
        (0, 41, False),
    ],
)
def test_key_length(types: int, length: int, good: bool) -> None:
    target = running()
    send(target, hash_config(0x08, b"\xaa" * 40))
    key = bytes(range(1, length + 1))
    assert refused(target, hash_config(types, key)) is not good
    if good:
        assert target.policy.key == key.ljust(40, b"\0")


@pytest.mark.requirement("U-13")
def test_key_shorter_than_the_types_need_is_remarked() -> None:
    target = running()
    assert send(target, hash_config(0x01, KEY[:12])).note is None
    assert "use 40" in str(send(target, hash_config(0x3F, KEY[:12])).note)


@pytest.mark.requirement("NET-RSS-06", "U-08")
@pytest.mark.parametrize("types", [0x200, 0x3F | 1 << 31, 0xFFFFFFFF])
def test_unsupported_types(types: int) -> None:
    assert refused(running(), hash_config(types))
    lenient = running(compat="lenient-hash-types")
    transition = send(lenient, hash_config(types))
    assert new_policy(transition).hash_types == types & 0x1FF
    assert "masked" in str(transition.note)


@pytest.mark.requirement("OUR-CVQ-04", "NET-HASH-03")
def test_hash_config_without_hash_report() -> None:
    assert refused(running(without(Feature.HASH_REPORT)), hash_config())


@pytest.mark.requirement("U-57")
def test_same_command_twice_is_the_same_as_once() -> None:
    target = running()
    first = new_policy(send(target, hash_config()))
    assert new_policy(send(target, hash_config())) == first
