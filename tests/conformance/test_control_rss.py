# SPDX-License-Identifier: MIT
"""MQ_RSS_CONFIG: what is taken, what is refused, what follows."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from pyvnet.spec.features import Feature
from tests.device.support import (
    ERR,
    KEY,
    OK,
    PAIRS,
    hash_config,
    new_policy,
    rss,
    running,
    send,
    vq_pairs,
    without,
)

if TYPE_CHECKING:
    from pyvnet.device.device import VirtioNetDevice


def refused(target: VirtioNetDevice, request: bytes) -> bool:
    """Whether it is answered ERR; if so, nothing but counters may have changed."""
    before = target.state
    transition = send(target, request)
    if transition.answer == OK:
        return False
    assert (transition.answer, transition.effects) == (ERR, ())
    assert transition.note
    assert target.state.steering == before.steering
    assert target.state.queues == before.queues
    assert target.status == before.status
    return True


def configured() -> VirtioNetDevice:
    """RSS is active with a table, key and types that a leak would disturb."""
    target = running()
    send(target, rss((2, 3), types=0x05, unclassified=1, key=b"\xaa" * 40))
    return target


@pytest.mark.requirement("NET-RSS-02", "NET-HASH-01", "U-12", "U-57")
def test_configuration_reaches_the_policy_as_sent() -> None:
    target = running()
    table = tuple(i % PAIRS for i in range(128))
    request = rss(table, types=0x1FF, unclassified=2, max_tx_vq=3)
    policy = new_policy(send(target, request))
    assert policy.mode == "rss"
    assert policy.indirection_table == table
    assert policy.unclassified_queue == 2
    assert (policy.hash_types, policy.key) == (0x1FF, KEY)
    assert policy.queues_in_force == {0, 1, 2, 3}
    assert target.state.steering.max_tx_vq == 3
    assert new_policy(send(target, request)) == policy


@pytest.mark.requirement("NET-RSS-05", "U-09")
@pytest.mark.parametrize("length", [1, 2, 4, 8, 16, 32, 64, 128])
def test_every_table_length_that_is_a_power_of_two(length: int) -> None:
    assert not refused(running(), rss((1,) * length))


@pytest.mark.requirement("NET-RSS-05", "U-09", "PF-C-08")
@pytest.mark.parametrize("length", [*(n for n in range(1, 129) if n & (n - 1)), 129, 255, 256, 512])
def test_table_length_that_is_not(length: int) -> None:
    """The mask + 1 must be a power of two and not above the advertised 128."""
    assert refused(configured(), rss((0,) * length))


@pytest.mark.requirement("NET-RSS-05", "U-09", "PF-C-08", "OUR-CVQ-10")
@pytest.mark.parametrize("mask", [0x80, 0xFF, 0x7FFE, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF])
@pytest.mark.parametrize("present", [0, 1, 128, 32768])
def test_large_mask_does_not_wrap(mask: int, present: int) -> None:
    """One peer computed 0xffff + 1 in 16 bits and got a table of none (qemu:cd76e8fcbe)."""
    assert refused(configured(), rss((0,) * present, mask=mask))
    assert refused(configured(), rss((0,) * present, mask=mask, key=b"", key_length=0, types=0))


@pytest.mark.requirement("U-09", "PF-C-08")
def test_mask_0xffff_with_every_entry_present() -> None:
    assert refused(configured(), rss((0,) * 0x10000, mask=0xFFFF))


@pytest.mark.requirement("NET-RSS-04", "U-10", "U-11", "CVE-2024-6505")
@pytest.mark.parametrize("queue", [0, PAIRS - 1])
def test_queue_within_the_device_is_taken_even_if_not_in_force(queue: int) -> None:
    """It may be off just now: frames for it are dropped then, never folded onto another."""
    target = running()
    send(target, vq_pairs(1))
    policy = new_policy(send(target, rss((queue,), unclassified=queue, max_tx_vq=1)))
    assert policy.queues_in_force == {queue}
    assert policy.port_queues == queue + 1


@pytest.mark.requirement("NET-RSS-04", "U-10", "CVE-2024-6505")
@pytest.mark.parametrize("queue", [PAIRS, PAIRS + 1, 0x7FFF, 0x8000, 0x8000 | 1, 0xFFFF])
@pytest.mark.parametrize("position", [0, 1, 127])
def test_queue_beyond_the_device(queue: int, position: int) -> None:
    """Peers checked the unclassified queue only, or folded entries (CVE-2024-6505)."""
    table = [0] * 128
    table[position] = queue
    assert refused(configured(), rss(tuple(table)))
    assert refused(configured(), rss(unclassified=queue))


@pytest.mark.requirement("U-12")
@pytest.mark.parametrize("max_tx_vq", range(1, PAIRS + 1))
def test_max_tx_vq_never_limits(max_tx_vq: int) -> None:
    """Recorded and shown; receive queues are those of the table whatever it says."""
    target = running()
    policy = new_policy(send(target, rss((0, 1, 2, 3), max_tx_vq=max_tx_vq)))
    assert policy.queues_in_force == {0, 1, 2, 3}
    assert target.state.steering.max_tx_vq == max_tx_vq


@pytest.mark.requirement("U-12")
@pytest.mark.parametrize("max_tx_vq", [0, PAIRS + 1, 0x7FFF, 0x8000, 0xFFFF])
def test_max_tx_vq_out_of_range(max_tx_vq: int) -> None:
    assert refused(configured(), rss(max_tx_vq=max_tx_vq))


@pytest.mark.requirement("U-13")
@pytest.mark.parametrize("length", range(1, 41))
def test_key_is_extended_by_zeros(length: int) -> None:
    """Nothing of an earlier key shows through behind a shorter one."""
    target = configured()
    policy = new_policy(send(target, rss(key=KEY[:length])))
    assert policy.key == KEY[:length] + bytes(40 - length)


@pytest.mark.requirement("U-13")
@pytest.mark.parametrize(
    ("types", "needed"), [(0x01, 12), (0x06, 16), (0x08, 36), (0x40, 36), (0x10, 40), (0x1FF, 40)]
)
def test_key_shorter_than_the_types_need_is_remarked(types: int, needed: int) -> None:
    target = running()
    assert send(target, rss(types=types, key=KEY[:needed])).note is None
    assert f"use {needed}" in str(send(target, rss(types=types, key=KEY[: needed - 1])).note)


@pytest.mark.requirement("U-13")
@pytest.mark.parametrize("length", [41, 64, 254, 255])
def test_key_longer_than_advertised(length: int) -> None:
    assert refused(configured(), rss(key=bytes(length)))
    assert refused(configured(), rss(key=bytes(length), types=0))


@pytest.mark.requirement("U-13", "U-14")
def test_no_key_is_taken_only_without_types() -> None:
    assert refused(configured(), rss(key=b"", types=1))
    policy = new_policy(send(configured(), rss(key=b"", types=0)))
    assert (policy.mode, policy.hash_types, policy.key) == ("rss", 0, bytes(40))


@pytest.mark.requirement("U-14", "NET-RSS-01")
@pytest.mark.parametrize("key", [b"", KEY])
def test_no_types_leave_rss_active(key: bytes) -> None:
    """Everything then goes to the unclassified queue; a key makes no difference."""
    policy = new_policy(send(running(), rss((0, 1), types=0, unclassified=3, key=key)))
    assert policy.mode == "rss"
    assert policy.hash_types == 0
    assert policy.unclassified_queue == 3
    assert policy.queues_in_force == {0, 1, 3}


@pytest.mark.requirement("NET-RSS-06", "U-08")
@pytest.mark.parametrize("position", range(9, 32))
def test_unsupported_hash_type(position: int) -> None:
    assert refused(configured(), rss(types=0x3F | 1 << position))
    assert refused(running(), hash_config(types=1 << position))


@pytest.mark.requirement("U-08")
def test_unsupported_hash_types_are_masked_on_request() -> None:
    target = running(compat="lenient-hash-types")
    transition = send(target, rss(types=0xFFFFFFFF))
    assert new_policy(transition).hash_types == 0x1FF
    assert "0xfffffe00" in str(transition.note)
    assert send(target, rss(types=0x200, key=b"")).answer == OK
    assert target.policy.hash_types == 0


@pytest.mark.requirement("NET-RSS-06")
def test_every_combination_of_supported_types() -> None:
    target = running()
    for types in range(0x200):
        assert not refused(target, rss((0,), types=types))
        assert target.policy.hash_types == types


@pytest.mark.requirement("NET-RSS-07", "OUR-CVQ-04")
def test_rss_config_without_rss() -> None:
    assert refused(running(without(Feature.RSS)), rss())


@pytest.mark.requirement("NET-HASH-01")
def test_single_pair_device_takes_rss() -> None:
    target = running(pairs=1)
    assert not refused(target, rss((0, 0), max_tx_vq=1))
    assert refused(target, rss((0, 1), max_tx_vq=1))


@pytest.mark.requirement("OUR-CVQ-06", "U-07")
def test_two_wrong_things_leave_as_little_behind_as_one() -> None:
    """Good parts of a refused command do not stick, in whatever order they stand."""
    bad = {
        "types": 0x200,
        "unclassified": PAIRS,
        "max_tx_vq": 0,
        "key": bytes(41),
        "table": (PAIRS, 0),
    }
    for count in range(1, len(bad) + 1):
        for names in itertools.combinations(bad, count):
            changes = {name: bad[name] for name in names}
            assert refused(configured(), rss(**changes)), names  # type: ignore[arg-type]
