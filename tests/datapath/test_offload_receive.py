# SPDX-License-Identifier: MIT
"""What the host port may ask of a driver, what the driver is told, and what is done for it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether

from pyvnet.reference import classify
from pyvnet.reference.offload import received
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.testing import frames as build
from tests.datapath import offload_cases as cases
from tests.datapath.offload_cases import (
    DATA_VALID,
    FRAMES,
    GUEST,
    NEEDS_CSUM,
    TCPV4,
    TCPV6,
    UDP_L4,
    fitting,
    unfinished,
)
from tests.datapath.rig import ALL_TYPES, KEY, Received, Rig, frame_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence

BATCH = 8
NOTHING = Feature(0)
Pairs = tuple[NetHdr, bytes]


def exchange(rig: Rig, *pairs: Pairs, port_queue: int = 0) -> list[Received]:
    """Put frames behind headers on the wire; returns what the driver sees of them."""
    before = rig.totals()
    for header, frame in pairs:
        rig.port.wire(port_queue).send(frame, header=header.pack())
    read, ended = (
        before.rx_port_frames + len(pairs),
        before.rx_packets + before.rx_drops + len(pairs),
    )
    rig.rounds(lambda: rig.totals().rx_port_frames == read)
    rig.rounds(lambda: rig.totals().rx_packets + rig.totals().rx_drops == ended)
    return rig.take_all()


def shown(frame: Received) -> NetHdr:
    """The header without what is ours: hash and number of buffers."""
    h = frame.header
    return NetHdr(h.flags, h.gso_type, h.hdr_len, h.gso_size, h.csum_start, h.csum_offset)


def assert_as_reference(rig: Rig, on: Feature, pairs: Iterable[Pairs]) -> int:
    """Whatever comes, the driver sees what the slow reading says.  Returns how many it saw."""
    seen = 0
    rest = iter(pairs)
    while batch := list(islice(rest, BATCH)):
        before = rig.totals()
        got = exchange(rig, *batch)
        expected = [found for h, frame in batch if (found := received(h, frame, on))]
        assert [(shown(frame), frame.data) for frame in got] == expected
        after = rig.totals()
        assert after.rx_drop_offload - before.rx_drop_offload == len(batch) - len(expected)
        done = sum(
            not on & Feature.GUEST_CSUM and h.flags & NEEDS_CSUM and received(h, f, on) is not None
            for h, f in batch
        )
        assert after.rx_csum_completed - before.rx_csum_completed == done
        seen += len(got)
    rig.assert_counters_add_up()
    return seen


@pytest.mark.requirement(
    "NET-RX-05", "NET-RX-06", "NET-RX-07", "NET-RX-08", "NET-RX-09", "NET-RX-10", "NET-RX-11",
    "NET-RX-12", "NET-RX-14", "NET-RX-15", "OUR-OFL-05", "CVE-2024-11614",
)  # fmt: skip
@pytest.mark.parametrize("on", [NOTHING, Feature.GUEST_CSUM, GUEST], ids=["off", "csum", "all"])
@pytest.mark.parametrize("name", [name for name in FRAMES if "KiB" not in name])
def test_every_corner_of_every_field_is_read_as_the_reference_says(name: str, on: Feature) -> None:
    frame = FRAMES[name]
    with Rig(pairs=1, buffers=32) as rig:
        rig.policy(guest_offloads=on)
        assert assert_as_reference(rig, on, ((h, frame) for h in cases.headers(frame)))


@pytest.mark.requirement("NET-RX-05", "NET-RX-07", "NET-RX-12", "OUR-OFL-05")
def test_random_headers_over_random_offloads(vnet_random: random.Random) -> None:
    rng = vnet_random
    names = [name for name in FRAMES if "KiB" not in name]
    seen = 0
    with Rig(pairs=1, buffers=32) as rig:
        for _ in range(150):
            on = cases.random_features(rng, GUEST)
            rig.policy(guest_offloads=on)
            chosen = [FRAMES[rng.choice(names)] for _ in range(100)]
            seen += assert_as_reference(rig, on, [(cases.random_header(rng, f), f) for f in chosen])
    assert seen > 2000


@pytest.mark.requirement("NET-RX-10", "NET-RX-12", "NET-RX-14", "U-28")
@pytest.mark.parametrize("workers", [4, 1])
def test_a_frame_of_64_kib_arrives_whole_with_its_header_and_one_hash(workers: int) -> None:
    frame = FRAMES["tcp4 of 64 KiB"]
    told = NetHdr(NEEDS_CSUM, TCPV4 | 0x80, 54, 1448, 34, 16)
    with Rig(workers=workers, queue_size=128, buffers=40) as rig:
        rig.policy(guest_offloads=GUEST)
        for port_queue in range(4):
            header = NetHdr(NEEDS_CSUM, TCPV4 | 0x80, 0xFFFF, 1448, 34, 16, 77)
            (got,) = exchange(rig, (header, frame), port_queue=port_queue)
            assert (shown(got), got.data) == (told, frame)
            assert got.header.num_buffers == got.buffers == -(-(len(frame) + 20) // 2048)
            hashed = classify(frame, ALL_TYPES, KEY)
            assert (got.header.hash_value, got.header.hash_report) == (hashed.value, hashed.report)


@pytest.mark.requirement("NET-RX-07", "NET-RX-08", "NET-RX-10", "NET-RX-12")
@pytest.mark.parametrize(
    ("name", "kind", "headers", "bit"),
    [
        ("tcp4", TCPV4, 54, Feature.GUEST_TSO4),
        ("tcp6", TCPV6, 74, Feature.GUEST_TSO6),
        ("udp4", UDP_L4, 42, Feature.GUEST_USO4),
        ("udp6", UDP_L4, 62, Feature.GUEST_USO6),
        ("tcp4 tag", TCPV4, 58, Feature.GUEST_TSO4),
    ],
)
def test_each_type_is_delivered_only_with_its_own_offload_and_the_checksum(
    name: str, kind: int, headers: int, bit: Feature
) -> None:
    frame, asked = FRAMES[name], fitting(FRAMES[name])
    told = NetHdr(NEEDS_CSUM, kind, headers, 20, asked.csum_start, asked.csum_offset)
    with Rig(pairs=1, buffers=16) as rig:
        for on in (bit | Feature.GUEST_CSUM, GUEST):
            rig.policy(guest_offloads=on)
            (got,) = exchange(rig, (asked, frame))
            assert (shown(got), got.data) == (told, frame)
        for off in (bit, GUEST & ~bit, GUEST & ~Feature.GUEST_CSUM, NOTHING):
            rig.policy(guest_offloads=off)
            assert exchange(rig, (asked, frame)) == []
        assert rig.stats(0).rx_drop_offload == 4


@pytest.mark.requirement("NET-RX-15", "NET-RX-05")
def test_data_valid_goes_on_only_to_a_driver_that_agreed_to_checksums() -> None:
    frame = FRAMES["udp4"]
    with Rig(pairs=1, buffers=16) as rig:
        rig.policy(guest_offloads=Feature.GUEST_CSUM)
        (got,) = exchange(rig, (NetHdr(0xFE, 0, 9, 9, 9, 9), frame))
        assert shown(got) == NetHdr(DATA_VALID)
        rig.policy()
        (got,) = exchange(rig, (NetHdr(0xFE, 0, 9, 9, 9, 9), frame))
        assert shown(got) == NetHdr()


def random_finished(rng: random.Random) -> bytes:
    """A TCP or UDP frame whose checksum is right."""
    ip: build.Ipv4 | build.Ipv6 = rng.choice(
        (
            build.Ipv4(rng.randbytes(4), rng.randbytes(4)),
            build.Ipv6(rng.randbytes(16), rng.randbytes(16)),
        )
    )
    size = rng.choice((0, 1, 2, 3, 7, 8, 1000, 1399, rng.randrange(1400)))
    payload = rng.choice((rng.randbytes(size), bytes(size), b"\xff" * size))
    make: Callable[..., build.L4] = rng.choice((build.tcp, build.udp))
    ports = rng.randrange(65536), rng.randrange(65536)
    tags = [build.Vlan()] * rng.choice((0, 0, 1, 2))
    return bytes(build.build(ip, make(*ports, payload=payload), vlans=tags))


@pytest.mark.requirement("PF-C-14", "NET-RX-06", "NET-RX-05")
@pytest.mark.parametrize("workers", [2, 1])
def test_checksums_completed_here_are_those_the_sender_would_have_computed(
    workers: int, vnet_random: random.Random
) -> None:
    rng = vnet_random
    count = 1500
    with Rig(pairs=2, workers=workers, buffers=40) as rig:
        rig.policy("automatic")
        for serial in range(count // 10):
            whole = [random_finished(rng) for _ in range(10)]
            asked = [
                (NetHdr(NEEDS_CSUM | DATA_VALID, 0, 54, 0, h.csum_start, h.csum_offset), f)
                for f in map(unfinished, whole)
                for h in (fitting(f),)
            ]
            got = exchange(rig, *asked, port_queue=serial % 2)
            assert [frame.data for frame in got] == whole
            assert {shown(frame) for frame in got} == {NetHdr()}
            _assert_scapy_agrees(got[0].data)
        assert rig.totals().rx_csum_completed == count
        assert rig.totals().rx_drops == 0


def _assert_scapy_agrees(frame: bytes) -> None:
    packet = Ether(frame)
    layer = packet[TCP] if TCP in packet else packet[UDP]
    claimed = layer.chksum
    del layer.chksum
    again = Ether(bytes(packet))
    assert (again[TCP] if TCP in again else again[UDP]).chksum == claimed


@pytest.mark.requirement("NET-RX-06", "PF-C-14")
def test_a_udp_checksum_that_comes_to_0_is_ffff_and_a_tcp_one_stays_0() -> None:
    udp, tcp = (bytearray(unfinished(FRAMES[name])) for name in ("udp4", "tcp4"))
    for frame, at in ((udp, 40), (tcp, 50)):
        # The sum of all is 0xffff when the field makes up for the rest.
        frame[at : at + 2] = bytes(2)
        words = bytes(frame[34:]) + bytes(len(frame) % 2)
        rest = sum(int.from_bytes(words[i : i + 2], "big") for i in range(0, len(words), 2))
        while rest > 0xFFFF:
            rest = (rest >> 16) + (rest & 0xFFFF)
        frame[at : at + 2] = (0xFFFF - rest).to_bytes(2, "big")
    with Rig(pairs=1, buffers=4) as rig:
        rig.policy()
        got = exchange(
            rig,
            (NetHdr(NEEDS_CSUM, csum_start=34, csum_offset=6), bytes(udp)),
            (NetHdr(NEEDS_CSUM, csum_start=34, csum_offset=16), bytes(tcp)),
        )
        assert got[0].data[40:42] == b"\xff\xff"
        assert got[1].data[50:52] == b"\0\0"


@pytest.mark.requirement("OUR-OFL-05", "U-41", "U-43")
@pytest.mark.parametrize("first", [NOTHING, Feature.GUEST_CSUM])
@pytest.mark.parametrize("then", [NOTHING, Feature.GUEST_CSUM])
def test_a_frame_held_is_told_by_what_holds_when_it_is_placed(
    first: Feature, then: Feature
) -> None:
    """However often it is judged, its checksum is completed once."""
    whole = FRAMES["udp4"]
    asked = NetHdr(NEEDS_CSUM, csum_start=34, csum_offset=6)
    with Rig(pairs=1) as rig:
        rig.policy("automatic", guest_offloads=first)
        rig.port.wire(0).send(unfinished(whole), header=asked.pack())
        rig.rounds(lambda: rig.stats(0).rx_port_frames == 1)
        rig.policy("automatic", guest_offloads=then)
        rig.barrier()
        rig.policy("automatic", guest_offloads=then)
        rig.fill(0, 4)
        (got,) = rig.receive(1)
        if first and then:
            assert (shown(got), got.data) == (asked, unfinished(whole))
        else:
            assert (shown(got), got.data) == (NetHdr(), whole)
        assert rig.stats(0).rx_csum_completed == (not (first and then))


@pytest.mark.requirement("OUR-OFL-05", "NET-RX-07", "U-41")
def test_a_frame_held_whose_segmentation_is_off_now_is_dropped_and_counted() -> None:
    with Rig(pairs=1) as rig:
        rig.policy("automatic", guest_offloads=GUEST)
        rig.port.wire(0).send(FRAMES["tcp4"], header=fitting(FRAMES["tcp4"]).pack())
        rig.rounds(lambda: rig.stats(0).rx_port_frames == 1)
        rig.policy("automatic", guest_offloads=GUEST & ~Feature.GUEST_TSO4)
        rig.rounds(lambda: rig.stats(0).rx_drop_offload == 1)
        rig.fill(0, 4)
        rig.inject(0, frame_of(1))
        (got,) = rig.receive(1)
        assert got.data == frame_of(1)
        rig.assert_counters_add_up()


def tagged(size: int, tags: Sequence[build.Vlan]) -> bytes:
    return bytes(build.build(build.Ipv4(), build.udp(payload=bytes(size)), vlans=list(tags)))


@pytest.mark.requirement("NET-CFG-05", "NET-CFG-06", "U-51")
@pytest.mark.parametrize("mtu", [68, 1280, 1500, 9000])
@pytest.mark.parametrize("tags", [(), (0x8100,), (0x88A8, 0x8100)])
def test_a_frame_longer_than_the_mtu_is_dropped_and_one_as_long_arrives(
    mtu: int, tags: tuple[int, ...]
) -> None:
    stack = [build.Vlan(tpid=tpid) for tpid in tags]
    fits, long = (tagged(mtu - 28 + more, stack) for more in (0, 1))
    assert len(fits) == mtu + 14 + 4 * len(tags)
    with Rig(pairs=1, buffers=32) as rig:
        rig.policy(mtu=mtu, guest_offloads=Feature.GUEST_CSUM)
        got = exchange(rig, (NetHdr(), fits), (NetHdr(), long), (NetHdr(DATA_VALID), long))
        assert [frame.data for frame in got] == [fits]
        assert rig.stats(0).rx_drop_mtu == 2
        rig.policy(mtu=0)
        assert [frame.data for frame in exchange(rig, (NetHdr(), long))] == [long]
        rig.assert_counters_add_up()


@pytest.mark.requirement("NET-CFG-05", "U-51")
def test_the_mtu_is_no_limit_for_a_frame_to_be_segmented() -> None:
    frame = FRAMES["tcp4 of 64 KiB"]
    with Rig(pairs=1, buffers=40) as rig:
        rig.policy(mtu=1500, guest_offloads=GUEST)
        (got,) = exchange(rig, (fitting(frame), frame))
        assert got.data == frame
        plain = NetHdr(NEEDS_CSUM, csum_start=34, csum_offset=16)
        assert exchange(rig, (plain, frame)) == []
        assert rig.stats(0).rx_drop_mtu == 1


@pytest.mark.requirement("PF-C-15", "NET-RX-11")
def test_from_driver_to_driver_the_pseudo_header_sum_arrives_and_is_asked_for() -> None:
    """What one device put on its wire, header and all, goes into another's."""
    frame = unfinished(FRAMES["udp6"])
    asked = NetHdr(NEEDS_CSUM, csum_start=54, csum_offset=6)
    with Rig(pairs=1, buffers=4) as one, Rig(pairs=1, buffers=4) as other:
        for rig in (one, other):
            rig.policy(
                header_length=12, guest_offloads=Feature.GUEST_CSUM, host_offloads=Feature.CSUM
            )
        for here, there in ((one, other), (other, one)):
            here.send(0, frame, header=asked.pack())
            here.wait_sent(0, 1)
            wired = here.port.wire(0).recv()
            there.port.wire(0).send(wired.data, header=wired.header)
            (got,) = there.receive(1)
            assert (shown(got), got.data) == (asked, frame)
