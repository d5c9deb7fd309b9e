# SPDX-License-Identifier: MIT
"""What a driver may ask of the host port, and what the host port is told."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import pytest

from pyvnet.datapath.policy import Policy
from pyvnet.driver.ring_split import Buffer
from pyvnet.errors import HostError
from pyvnet.reference.offload import sent
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import NetHdr
from tests.datapath import offload_cases as cases
from tests.datapath.offload_cases import FRAMES, HOST, NEEDS_CSUM, TCPV4, UDP_L4, fitting
from tests.datapath.rig import Rig, frame_of

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

BATCH = 16


def transmit(rig: Rig, header: NetHdr, frame: bytes, cuts: Sequence[int] = ()) -> None:
    """Stage one frame, its chain cut at ``cuts``."""
    data = header.pack(rig.header_length) + frame
    gpa = rig.memory.alloc(len(data))
    rig.memory.write(gpa, data)
    pieces = [Buffer(gpa + low, high - low) for low, high in pairwise([0, *cuts, len(data)])]
    rig.transmitq(0).ring.add(pieces, Buffer(gpa, len(data)))


def assert_as_reference(
    rig: Rig, negotiated: Feature, pairs: Iterable[tuple[NetHdr, bytes]]
) -> int:
    """Send them all; on the wire is what the slow reading says.  Returns how many passed."""
    passed = 0
    rest = iter(pairs)
    while batch := list(islice(rest, BATCH)):
        before = rig.stats(0).tx_drop_malformed
        for header, frame in batch:
            transmit(rig, header, frame)
        rig.transmitq(0).publish()
        rig.wait_sent(0, len(batch))
        for header, frame in batch:
            expected = sent(header, frame, negotiated)
            if expected is None:
                continue
            passed += 1
            wired = rig.port.wire(0).recv()
            assert wired.data == frame
            assert NetHdr.unpack(wired.header) == expected, (header, frame[:80].hex())
        refused = sum(sent(header, frame, negotiated) is None for header, frame in batch)
        assert rig.stats(0).tx_drop_malformed - before == refused
    return passed


@pytest.mark.requirement(
    "OUR-TX-12", "NET-TX-01", "NET-TX-02", "NET-TX-05", "NET-TX-06", "NET-TX-10", "CVE-2024-11614",
    "CVE-2024-43817", "CVE-2024-3567",
)  # fmt: skip
@pytest.mark.parametrize("name", FRAMES)
def test_every_corner_of_every_field_is_judged_as_the_reference_says(name: str) -> None:
    frame = FRAMES[name]
    with Rig(pairs=1) as rig:
        rig.policy(host_offloads=HOST)
        assert assert_as_reference(rig, HOST, ((h, frame) for h in cases.headers(frame)))


@pytest.mark.requirement("OUR-TX-12", "NET-TX-06")
def test_random_headers_over_random_negotiations(vnet_random: random.Random) -> None:
    rng = vnet_random
    passed = 0
    names = [name for name in FRAMES if "KiB" not in name]
    with Rig(pairs=1) as rig:
        for _ in range(200):
            negotiated = cases.random_features(rng, HOST)
            rig.policy(host_offloads=negotiated)
            chosen = [FRAMES[rng.choice(names)] for _ in range(100)]
            pairs = [(cases.random_header(rng, frame), frame) for frame in chosen]
            passed += assert_as_reference(rig, negotiated, pairs)
    assert passed > 2000


@pytest.mark.requirement("OUR-TX-12")
@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("tcp4", Feature.CSUM | Feature.HOST_TSO4),
        ("tcp6", Feature.CSUM | Feature.HOST_TSO6),
        ("tcp6 chain", Feature.CSUM | Feature.HOST_TSO6),
        ("udp4", Feature.CSUM | Feature.HOST_USO),
        ("udp6", Feature.CSUM | Feature.HOST_USO),
        ("tcp4 tag", Feature.CSUM | Feature.HOST_TSO4),
    ],
)
def test_each_type_takes_its_own_feature_and_the_checksum(name: str, needs: Feature) -> None:
    """What the host port is told is spelled out here: nothing of it comes from the reference."""
    frame, asked = FRAMES[name], fitting(FRAMES[name])
    told = NetHdr(
        NEEDS_CSUM,
        asked.gso_type,
        asked.csum_start + (8 if asked.gso_type == UDP_L4 else 20),
        asked.gso_size,
        asked.csum_start,
        asked.csum_offset,
    )
    with Rig(pairs=1) as rig:
        for features in (needs, HOST):
            rig.policy(host_offloads=features)
            transmit(rig, asked, frame)
            rig.transmitq(0).publish()
            rig.wait_sent(0, 1)
            wired = rig.port.wire(0).recv()
            assert (NetHdr.unpack(wired.header), wired.data) == (told, frame)
        for missing in needs:
            rig.policy(host_offloads=HOST & ~missing)
            transmit(rig, asked, frame)
            rig.transmitq(0).publish()
            rig.wait_sent(0, 1)
        assert rig.stats(0).tx_drop_malformed == 2
        with pytest.raises(BlockingIOError):
            rig.port.wire(0).recv()


@pytest.mark.requirement("U-63", "VIO-SPL-01", "OUR-TX-12")
@pytest.mark.parametrize("header", [12, 20])
def test_a_frame_to_be_segmented_may_be_cut_anywhere(header: int) -> None:
    """The bytes looked at (256) and those behind them go out once each, wherever the cuts are."""
    frame = FRAMES["tcp4 of 64 KiB"][:1000]
    asked = fitting(frame)
    near = [header + at for at in (0, 1, 13, 14, 33, 34, 255, 256, 257, 999)]
    with Rig(pairs=1, queue_size=128) as rig:
        rig.policy(header_length=header, host_offloads=HOST)
        layouts = [(), *((at,) for at in near), tuple(near), tuple(range(1, 60))]
        for cuts in layouts:
            transmit(rig, asked, frame, cuts)
            rig.transmitq(0).publish()
            rig.wait_sent(0, 1)
            assert rig.port.wire(0).recv().data == frame
        assert rig.stats(0).tx_bytes == len(layouts) * len(frame)


@pytest.mark.requirement("VIO-SPL-01")
@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("sizes", ["even", "large first", "large last"])
def test_a_frame_in_as_many_pieces_as_a_chain_may_have_is_sent(sizes: str, segmented: bool) -> None:
    """1024 of them, the first holding the header too, and one of ours in front: IOV_MAX and one."""
    frame = bytearray(FRAMES["tcp4 of 64 KiB"])
    frame[100:] = bytes(i % 251 for i in range(len(frame) - 100))
    asked = fitting(bytes(frame)) if segmented else NetHdr()
    total = len(frame) + 20
    step = total // 1024
    cuts = {
        "even": [step * i for i in range(1, 1024)],
        "large first": [total - 1024 + i for i in range(1, 1024)],
        "large last": [20 + i for i in range(1, 1024)],
    }[sizes]
    with Rig(pairs=1, queue_size=1024, buffer_size=64, indirect=True) as rig:
        rig.policy(host_offloads=HOST)
        transmit(rig, asked, bytes(frame), cuts)
        rig.transmitq(0).publish()
        rig.wait_sent(0, 1)
        assert rig.stats(0).tx_drops == 0
        assert rig.port.wire(0).recv().data == bytes(frame)


@pytest.mark.requirement("OUR-TX-12", "PF-C-15")
def test_a_checksum_asked_for_is_asked_of_the_host_port_as_it_is() -> None:
    frame = cases.unfinished(FRAMES["udp4"])
    with Rig(pairs=1) as rig:
        rig.policy(host_offloads=Feature.CSUM)
        transmit(rig, NetHdr(0xFF, 0, 7, 7, 34, 6, 7, 7, 7, 7), frame)
        rig.transmitq(0).publish()
        rig.wait_sent(0, 1)
        wired = rig.port.wire(0).recv()
        assert NetHdr.unpack(wired.header) == NetHdr(NEEDS_CSUM, csum_start=34, csum_offset=6)
        assert wired.data == frame


@pytest.mark.requirement("NET-TX-04", "OUR-TX-12")
@pytest.mark.parametrize("hdr_len", [0, 1, 53, 55, 0xFFFF])
def test_the_header_length_a_driver_gives_is_not_believed(hdr_len: int) -> None:
    """Without GUEST_HDRLEN it is a hint; the host port is told what the frame says."""
    frame, asked = FRAMES["tcp4"], fitting(FRAMES["tcp4"])
    with Rig(pairs=1) as rig:
        rig.policy(host_offloads=HOST)
        transmit(rig, replace(asked, hdr_len=hdr_len), frame)
        rig.transmitq(0).publish()
        rig.wait_sent(0, 1)
        wired = rig.port.wire(0).recv()
        assert NetHdr.unpack(wired.header).hdr_len == asked.csum_start + 20
        assert wired.data == frame


def test_segmentation_without_the_checksum_is_none() -> None:
    with Rig(pairs=1) as rig:
        rig.policy(host_offloads=HOST & ~Feature.CSUM)
        for header in (fitting(FRAMES["tcp4"]), NetHdr(0, TCPV4, 0, 20, 34, 16)):
            transmit(rig, header, FRAMES["tcp4"])
        rig.transmitq(0).publish()
        rig.wait_sent(0, 2)
        assert rig.stats(0).tx_drop_malformed == 2


@pytest.mark.parametrize(
    "bits",
    [{"guest_offloads": 1}, {"guest_offloads": 1 << 10}, {"host_offloads": 1 << 14}],
)
def test_offloads_no_device_offers_are_refused(bits: dict[str, int]) -> None:
    with pytest.raises(HostError):
        Policy.create(mode="automatic", hash_types=0, key=b"", **bits)  # type: ignore[arg-type]


def test_plain_frames_go_on_beside_those_with_offloads() -> None:
    with Rig(pairs=1) as rig:
        rig.policy(host_offloads=HOST)
        for serial in range(20):
            rig.send(0, frame_of(0, serial))
            transmit(rig, fitting(FRAMES["tcp4"]), FRAMES["tcp4"])
            rig.transmitq(0).publish()
            assert rig.from_wire(0, 2) == [frame_of(0, serial), FRAMES["tcp4"]]
            rig.wait_sent(0, 2)
