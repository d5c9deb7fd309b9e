# SPDX-License-Identifier: MIT
"""Settings and the configuration space that follows from them."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from pyvnet.device.settings import DeviceSettings
from pyvnet.errors import UsageError
from pyvnet.spec.features import Feature, missing_dependencies
from tests.device.support import MAC, OFFER, device

BARE = Feature.VERSION_1 | Feature.CTRL_VQ


def settings(**changes: Any) -> DeviceSettings:
    return DeviceSettings(**{"max_virtqueue_pairs": 4, "mac": MAC, **changes})


@pytest.mark.requirement("VIO-FEAT-01", "VIO-FEAT-05", "NET-CFG-12")
def test_default_offer_is_consistent_and_modern() -> None:
    """Never offer a bit without what it requires; VERSION_1 is offered."""
    assert not missing_dependencies(OFFER)
    assert settings().offered & Feature.VERSION_1


@pytest.mark.requirement("VIO-FEAT-01", "NET-CFG-12", "NET-CFG-13")
@pytest.mark.parametrize(
    "bit", [Feature.MQ, Feature.RSS, Feature.HASH_REPORT, Feature.CTRL_RX, Feature.CTRL_RX_EXTRA]
)
def test_bit_is_not_offered_without_what_it_requires(bit: Feature) -> None:
    """Never offer a feature without also offering what it requires."""
    with pytest.raises(UsageError, match="ctrl_vq"):
        settings(offered=Feature.VERSION_1 | bit)


@pytest.mark.requirement("VIO-FEAT-03", "VIO-FEAT-09")
@pytest.mark.parametrize(
    "bit", [Feature.SR_IOV, Feature.RING_PACKED, Feature.SUSPEND, 1 << 30, 1 << 58, 1 << 90]
)
def test_bit_that_would_not_work_is_not_offered(bit: int) -> None:
    """Undefined, reserved and unimplemented bits are never offered."""
    with pytest.raises(UsageError, match="not implemented"):
        settings(offered=Feature(int(OFFER) | bit))


@pytest.mark.requirement("VIO-FEAT-05")
def test_offer_without_version_1_is_refused() -> None:
    with pytest.raises(UsageError, match="version_1"):
        settings(offered=Feature.MRG_RXBUF)


@pytest.mark.requirement("NET-CFG-01")
@pytest.mark.parametrize("pairs", [-1, 0, 0x8001, 0x10000])
def test_pairs_out_of_range_are_refused(pairs: int) -> None:
    with pytest.raises(UsageError, match="queue pairs"):
        settings(max_virtqueue_pairs=pairs)


@pytest.mark.parametrize(
    "changes",
    [
        {"mac": b""},
        {"mac": bytes(6)},
        {"mac": b"\1" + MAC[1:]},
        {"mac": MAC + b"\0"},
        {"max_queue_size": 0},
        {"max_queue_size": 1000},
        {"max_queue_size": 65536},
        {"max_macs": 0},
        {"max_macs": 4097},
        {"compat": frozenset({"rss-survives-everything"})},
    ],
)
def test_what_no_device_can_have_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        settings(**changes)


@pytest.mark.requirement("VIO-CFG-01", "NET-CFG-01", "NET-CFG-07", "NET-CFG-08", "U-09", "U-13")
def test_every_field_of_an_offered_feature_reads_before_features_ok() -> None:
    """Key size exactly 40 and table length exactly 128, both at least the minimum."""
    target = device(pairs=7, mtu=9000, speed=2500)
    expected = MAC + struct.pack("<HHHIBBHII", 1, 7, 9000, 2500, 1, 40, 128, 0x1FF, 0)
    assert target.status == 0
    assert target.read_config(0, 28) == expected
    for offset in range(28):
        for length in range(28 - offset + 1):
            assert target.read_config(offset, length) == expected[offset : offset + length]


@pytest.mark.parametrize(
    ("offered", "offset", "expected"),
    [
        (BARE, 0, bytes(28)),
        (BARE | Feature.MAC, 0, MAC + bytes(22)),
        (BARE | Feature.MQ, 8, b"\4\0" + bytes(18)),
        (BARE | Feature.RSS, 8, b"\4\0" + bytes(7) + b"\x28\x80\0\xff\1" + bytes(6)),
        (BARE | Feature.STATUS, 6, b"\1\0" + bytes(20)),
        (BARE | Feature.SPEED_DUPLEX, 6, bytes(6) + b"\x10\x27\0\0\1" + bytes(11)),
        (BARE | Feature.HASH_REPORT, 8, bytes(9) + b"\x28\0\0\xff\1" + bytes(6)),
    ],
)
@pytest.mark.requirement("VIO-CFG-01")
def test_fields_follow_the_offer(offered: Feature, offset: int, expected: bytes) -> None:
    assert device(offered=offered).read_config(offset, len(expected)) == expected


def test_bytes_beyond_the_configuration_space_read_as_zero() -> None:
    target = device()
    assert target.read_config(20, 16) == b"\xff\1" + bytes(14)
    assert target.read_config(28, 4) == bytes(4)
    assert target.read_config(2**40, 8) == bytes(8)


@pytest.mark.parametrize(("offset", "length"), [(-1, 4), (0, -1), (0, 4097)])
def test_impossible_read_is_the_callers_error(offset: int, length: int) -> None:
    with pytest.raises(UsageError):
        device().read_config(offset, length)


@pytest.mark.requirement("NET-CFG-02", "NET-CFG-03")
@pytest.mark.parametrize(
    ("mtu", "good"),
    [
        (0, False),
        (67, False),
        (68, False),
        (1279, False),
        (1280, True),
        (1500, True),
        (9000, True),
        (65535, True),
        (65536, False),
        (-1, False),
    ],
)
def test_mtu_that_is_offered(mtu: int, good: bool) -> None:
    """In 68…65535, and at least the 1280 a device should offer."""
    if not good:
        with pytest.raises(UsageError, match="MTU"):
            settings(mtu=mtu)
        return
    target = device(mtu=mtu)
    assert target.offered & Feature.MTU
    assert target.read_config(10, 2) == struct.pack("<H", mtu)


@pytest.mark.requirement("NET-CFG-02", "VIO-FEAT-03")
def test_mtu_is_offered_where_one_is_named_and_nowhere_else() -> None:
    assert not device().offered & Feature.MTU
    assert device().read_config(10, 2) == bytes(2)
    with pytest.raises(UsageError, match="mtu"):
        settings(offered=OFFER | Feature.MTU)


@pytest.mark.requirement("NET-CFG-09", "NET-CFG-10", "U-50")
@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({"speed": 0}, True),
        ({"speed": 0x7FFFFFFF}, True),
        ({"speed": 0xFFFFFFFF}, True),
        ({"speed": 0x80000000}, False),
        ({"speed": 0xFFFFFFFE}, False),
        ({"speed": 0x7FFFFFFFF}, False),
        ({"speed": -1}, False),
        ({"duplex": 0}, True),
        ({"duplex": 1}, True),
        ({"duplex": 0xFF}, True),
        ({"duplex": 2}, False),
        ({"duplex": -1}, False),
        ({"duplex": 0x100}, False),
    ],
)
def test_speed_and_duplex(changes: dict[str, Any], good: bool) -> None:
    """Megabits per second or unknown; half, full or unknown."""
    if not good:
        with pytest.raises(UsageError, match=r"speed|duplex"):
            settings(**changes)
        return
    wanted = {"speed": 10000, "duplex": 1} | changes
    expected = struct.pack("<IB", wanted["speed"], wanted["duplex"])
    assert device(**changes).read_config(12, 5) == expected
