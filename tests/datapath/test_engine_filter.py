# SPDX-License-Identifier: MIT
"""The filter on the receive line: before steering, counted, in force when its policy is."""

from __future__ import annotations

import errno
from functools import partial

import pytest

from pyvnet.datapath.filter import Filter, FilterMode
from pyvnet.datapath.policy import Policy
from pyvnet.errors import HostError
from tests.datapath.rig import Rig, frame_of

MAC = bytes.fromhex("02000000aa01")
FRIEND = bytes.fromhex("02000000aa02")
STRANGER = bytes.fromhex("02000000aa03")
GROUP = bytes.fromhex("01005e000001")
OTHER_GROUP = bytes.fromhex("3333000000fb")
BROADCAST = b"\xff" * 6
ALL = (MAC, FRIEND, STRANGER, GROUP, OTHER_GROUP, BROADCAST)
_M = FilterMode


def to(destination: bytes, *tags: tuple[int, int], serial: int = 0) -> bytes:
    frame = frame_of(1, serial)
    stack = b"".join(tpid.to_bytes(2, "big") + tci.to_bytes(2, "big") for tpid, tci in tags)
    return destination + frame[6:12] + stack + frame[12:]


def seen(rig: Rig, *frames: bytes) -> list[bytes]:
    """Which of the frames the driver sees; every other one is counted as filtered."""
    before = rig.totals()
    rig.inject(0, *frames)
    rig.rounds(lambda: rig.totals().rx_port_frames == before.rx_port_frames + len(frames))
    rig.rounds(
        lambda: (
            rig.totals().rx_packets + rig.totals().rx_drops
            == before.rx_packets + before.rx_drops + len(frames)
        )
    )
    got = [received.data for received in rig.take_all()]
    after = rig.totals()
    assert after.rx_drop_filtered - before.rx_drop_filtered == len(frames) - len(got)
    assert after.rx_drops - before.rx_drops == len(frames) - len(got)
    rig.assert_counters_add_up()
    return got


@pytest.mark.requirement(
    "NET-FLT-02", "NET-FLT-03", "NET-FLT-05", "NET-FLT-06", "NET-FLT-07", "NET-FLT-08",
    "NET-FLT-10", "NET-FLT-12", "NET-FLT-13", "U-34", "U-36",
)  # fmt: skip
@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (0, (MAC, FRIEND, GROUP, BROADCAST)),
        (_M.PROMISC, ALL),
        (_M.PROMISC | _M.NOMULTI | _M.NOUNI | _M.NOBCAST, ALL),
        (_M.ALLMULTI, (MAC, FRIEND, GROUP, OTHER_GROUP, BROADCAST)),
        (_M.ALLUNI, (MAC, FRIEND, STRANGER, GROUP, BROADCAST)),
        (_M.UNI_OVERFLOW, (MAC, FRIEND, STRANGER, GROUP, BROADCAST)),
        (_M.MULTI_OVERFLOW, (MAC, FRIEND, GROUP, OTHER_GROUP, BROADCAST)),
        (_M.NOMULTI, (MAC, FRIEND, BROADCAST)),
        (_M.NOMULTI | _M.ALLMULTI | _M.MULTI_OVERFLOW, (MAC, FRIEND, BROADCAST)),
        (_M.NOUNI, (GROUP, BROADCAST)),
        (_M.NOUNI | _M.ALLUNI | _M.UNI_OVERFLOW, (GROUP, BROADCAST)),
        (_M.NOBCAST, (MAC, FRIEND, GROUP)),
        (_M.NOBCAST | _M.ALLMULTI, (MAC, FRIEND, GROUP, OTHER_GROUP)),
        (_M.NOMULTI | _M.NOUNI | _M.NOBCAST, ()),
    ],
)
def test_modes_and_tables_decide_by_destination(modes: int, expected: tuple[bytes, ...]) -> None:
    with Rig(pairs=1, buffers=16) as rig:
        rig.policy(rx_filter=Filter(modes, (FRIEND,), (GROUP,), frozenset(), MAC))
        assert seen(rig, *(to(mac) for mac in ALL)) == [to(mac) for mac in expected]


TAGGED = (
    ((0x8100, 7),),
    ((0x88A8, 7),),
    ((0x8100, 0xF007), (0x8100, 9)),
    ((0x8100, 0),),  # priority only
    ((0x8100, 0xE000), (0x8100, 9)),
    ((0x9100, 9),),  # no tag of the standards: no decision
    (),
)
NOT_JOINED = (((0x8100, 9),), ((0x88A8, 9),), ((0x8100, 9), (0x8100, 7)), ((0x8100, 4095),))


@pytest.mark.requirement("NET-VLAN-01", "NET-VLAN-02", "NET-VLAN-03", "U-35", "U-34")
def test_the_outermost_tag_decides_where_vlans_are_filtered() -> None:
    frames = [to(MAC, *tags) for tags in (*TAGGED, *NOT_JOINED)]
    with Rig(pairs=1, buffers=32) as rig:
        for modes, expected in (
            (_M.VLAN, frames[: len(TAGGED)]),
            (_M.VLAN | _M.ALLUNI, frames[: len(TAGGED)]),
            (0, frames),
            (_M.VLAN | _M.PROMISC, frames),
        ):
            rig.policy(rx_filter=Filter(modes, vlans=frozenset({7}), mac=MAC))
            assert seen(rig, *frames) == expected


@pytest.mark.requirement("NET-VLAN-03")
def test_a_vlan_not_joined_is_not_seen_by_broadcast_either() -> None:
    with Rig(pairs=1, buffers=16) as rig:
        rig.policy(rx_filter=Filter(_M.VLAN | _M.ALLMULTI, vlans=frozenset({7}), mac=MAC))
        frames = [to(mac, (0x8100, vid)) for mac in (MAC, GROUP, BROADCAST) for vid in (7, 8)]
        assert seen(rig, *frames) == frames[::2]


@pytest.mark.requirement("OUR-RX-21")
@pytest.mark.parametrize("size", [0, 5, 6, 13])
def test_a_runt_without_a_destination_is_for_promiscuous_eyes_only(size: int) -> None:
    with Rig(pairs=1, buffers=8) as rig:
        rig.policy(rx_filter=Filter(_M.VLAN | _M.ALLUNI | _M.ALLMULTI, mac=MAC))
        assert seen(rig, to(MAC)[:size]) == [to(MAC)[:size]] * (size >= 6)
        rig.policy()
        assert seen(rig, to(MAC)[:size]) == [to(MAC)[:size]]


def filtered(rig: Rig, count: int) -> bool:
    return rig.stats(0).rx_drop_filtered == count


@pytest.mark.requirement("U-44")
@pytest.mark.parametrize("workers", [2, 1])
def test_the_filter_comes_before_steering_and_before_buffers(workers: int) -> None:
    """A frame nobody wants takes no buffer, is not held, and is counted where it was read."""
    with Rig(pairs=2, workers=workers) as rig:
        total = 0
        for mode in ("automatic", "rss"):
            rig.policy(mode, rx_filter=Filter(0, mac=MAC))
            total += 50
            rig.inject(0, *(to(STRANGER, serial=i) for i in range(50)))  # no buffer anywhere
            rig.rounds(partial(filtered, rig, total))
        assert rig.totals().rx_drops == 100
        rig.assert_counters_add_up()


@pytest.mark.requirement("NET-FLT-10", "U-41")
def test_a_frame_held_is_judged_by_the_filter_that_came_meanwhile() -> None:
    with Rig(pairs=1) as rig:
        rig.policy("automatic")
        rig.inject(0, to(STRANGER))
        rig.rounds(lambda: rig.stats(0).rx_port_frames == 1)
        rig.policy("automatic", rx_filter=Filter(0, mac=MAC))
        rig.rounds(lambda: rig.stats(0).rx_drop_filtered == 1)
        rig.fill(0, 4)
        rig.inject(0, to(MAC))
        (received,) = rig.receive(1)
        assert received.data == to(MAC)


@pytest.mark.requirement("U-36")
def test_what_no_device_may_hold_is_refused() -> None:
    table = tuple(i.to_bytes(6, "big") for i in range(4097))
    for rx_filter in (Filter(512), Filter(0, table), Filter(0, (), table)):
        with pytest.raises(HostError) as raised:
            Policy.create(mode="automatic", hash_types=0, key=b"", rx_filter=rx_filter)
        assert raised.value.errno == errno.EINVAL
