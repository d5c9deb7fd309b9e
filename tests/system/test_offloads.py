# SPDX-License-Identifier: MIT
"""Offloads between the kernel's stack and a driver, through a real tap."""

from __future__ import annotations

import random
import socket
import struct
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pyvnet.netdev import rtnl
from pyvnet.reference import parse
from pyvnet.reference.offload import complete, received
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.testing import frames as build
from tests.datapath.offload_cases import DATA_VALID, GUEST, HOST, NEEDS_CSUM, UDP_L4, unfinished
from tests.datapath.rig import Received, Rig
from tests.system.support import DRIVER_MAC, tap_in, tap_mac
from tests.system.tcp_peer import FAMILY, HOSTS, MSS, PEERS, TcpPeer, set_up
from tests.system.test_checksums import sums_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.netdev.netns import NetNamespace

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.needs_tap]

NOTHING = Feature(0)
CSUM = Feature.GUEST_CSUM
VERSIONS = pytest.mark.parametrize("version", [4, 6])
TYPES = {4: 1, 6: 4}
TSO = {4: Feature.GUEST_TSO4, 6: Feature.GUEST_TSO6}
UDP_SEGMENT = 103  # linux/udp.h


@pytest.fixture
def rig(netns: NetNamespace) -> Iterator[Rig]:
    """One pair on a tap with addresses; the driver agreed to nothing yet, and gave no buffers."""
    with Rig(pairs=1, port=tap_in(netns, queues=1), queue_size=256, buffer_size=4096) as made:
        set_up(netns)
        made.policy("automatic")
        yield made


def frames(rig: Rig) -> Iterator[Received]:
    """Whatever comes, as it comes."""
    while True:
        found: list[Received] = []
        rig.wait(lambda found=found: found.extend(rig.take(0)) or bool(found))  # type: ignore[misc]
        yield from found


def agree(rig: Rig, on: Feature) -> None:
    rig.policy("automatic", guest_offloads=on, host_offloads=HOST)


def assert_allowed(on: Feature, header: NetHdr, frame: bytes) -> None:
    """The driver may be told this, and nothing of it needs changing."""
    said = NetHdr(*header.pack()[:2], *struct.unpack("<4H", header.pack()[2:10]))
    assert received(said, frame, on) == (said, frame)
    flow = parse(frame)
    if not flow.l4:
        return
    if said.flags & NEEDS_CSUM:
        assert frame == unfinished(frame)
        frame = complete(frame, said.csum_start, said.csum_offset)
    if not said.gso_type and not said.flags & DATA_VALID:
        assert sums_up(frame)


def assert_allowed_by_one(sets: tuple[Feature, ...], header: NetHdr, frame: bytes) -> None:
    for on in sets[:-1]:
        with suppress(AssertionError):
            assert_allowed(on, header, frame)
            return
    assert_allowed(sets[-1], header, frame)


@VERSIONS
@pytest.mark.requirement("NET-RX-11", "NET-RX-12", "NET-RX-14", "NET-RX-07", "NET-RX-05")
@pytest.mark.parametrize("offloads", ["nothing", "checksum", "all"])
def test_what_the_kernel_sends_is_cut_by_whoever_agreed_to_cut_it(
    rig: Rig, netns: NetNamespace, version: int, offloads: str
) -> None:
    on = {"nothing": NOTHING, "checksum": CSUM, "all": GUEST}[offloads]
    agree(rig, on)
    rig.fill(0, 120)
    data = random.Random(version).randbytes(300_000)
    peer = TcpPeer(rig, netns, version)
    peer.check = lambda header, frame: assert_allowed(on, header, frame)
    with peer.accept() as kernel:
        peer.take_stream(kernel, data, len(data))
    assert peer.stream == data
    whole = [segment for segment in peer.segments if segment.header.gso_type]
    largest = max(len(segment.payload) for segment in peer.segments)
    if offloads == "all":
        assert largest > MSS[version]  # how much larger is the kernel's choice, by its pace
        headers = 14 + {4: 20, 6: 40}[version] + 20
        for segment in whole:
            assert segment.header.gso_type == TYPES[version]
            assert segment.header.gso_size == MSS[version]
            assert segment.header.hdr_len == headers
            assert segment.header.csum_start == headers - 20
            assert segment.header.csum_offset == 16
    else:
        assert whole == []
        assert largest <= MSS[version]
        flags = {segment.header.flags for segment in peer.segments}
        assert flags == ({NEEDS_CSUM} if on else {0})
    assert rig.stats(0).rx_drop_offload == 0


@VERSIONS
@pytest.mark.requirement("OUR-OFL-05", "U-41", "NET-RX-07")
def test_offloads_switched_while_a_connection_is_busy(
    rig: Rig, netns: NetNamespace, version: int
) -> None:
    """From the switch on no frame comes that is not allowed, and the stream loses nothing."""
    agree(rig, GUEST)
    rig.fill(0, 120)
    rng = random.Random(7)
    on = GUEST
    sent = b""
    peer = TcpPeer(rig, netns, version)
    with peer.accept() as kernel:
        for turn in range(12):
            peer.check = lambda header, frame, on=on: assert_allowed(on, header, frame)  # type: ignore[misc]
            data = rng.randbytes(60_000)
            sent += data
            # Some of it is under way, in the ring and in the tap, when the switch comes.
            peer.take_stream(kernel, data, len(peer.stream) + 20_000)
            new = (CSUM, NOTHING, GUEST, GUEST & ~TSO[version], GUEST)[turn % 5]
            agree(rig, new)
            # Placed before, by what held then; or since: the kernel sends again what takes long.
            peer.check = partial(assert_allowed_by_one, (on, new))
            peer.look()
            on = new
        peer.check = lambda header, frame: assert_allowed(on, header, frame)
        peer.take_stream(kernel, b"", len(sent))
    assert peer.stream == sent
    rig.assert_counters_add_up()


@VERSIONS
@pytest.mark.requirement("OUR-OFL-05", "NET-RX-06")
def test_checksums_left_undone_in_the_tap_are_completed_once_nobody_else_may(
    rig: Rig, netns: NetNamespace, version: int
) -> None:
    count = 20
    agree(rig, CSUM)
    made = netns.call(lambda: socket.socket(FAMILY[version], socket.SOCK_DGRAM))
    with made:
        for serial in range(count):
            made.sendto(serial.to_bytes(4, "big") * (serial + 1), (PEERS[version], 9))
        # One is read and held, there being no buffer; the others stay with the kernel.
        rig.rounds(lambda: rig.stats(0).rx_port_frames >= 1)
        agree(rig, NOTHING)
        rig.fill(0, 120)
        serials: list[int] = []
        for got in frames(rig):
            assert (got.header.flags, got.header.gso_type) == (0, 0)
            if parse(got.data).dport == 9:
                assert sums_up(got.data)
                serials.append(int.from_bytes(got.data[-4:], "big"))
            if len(serials) == count:
                break
    assert serials == list(range(count))
    assert rig.stats(0).rx_csum_completed >= count - 1
    assert rig.stats(0).rx_drop_offload == 0


@VERSIONS
@pytest.mark.requirement("OUR-OFL-05", "NET-RX-07")
def test_datagrams_to_be_cut_arrive_whole_or_are_dropped_once_that_is_off(
    rig: Rig, netns: NetNamespace, version: int
) -> None:
    agree(rig, GUEST)
    with netns.call(lambda: socket.socket(FAMILY[version], socket.SOCK_DGRAM)) as made:
        made.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
        made.sendto(bytes(450), (PEERS[version], 9))
        rig.fill(0, 32)
        got = next(got for got in frames(rig) if parse(got.data).dport == 9)
        headers = {4: 42, 6: 62}[version]
        assert (got.header.gso_type, got.header.gso_size) == (UDP_L4, 100)
        assert (got.header.hdr_len, len(got.data)) == (headers, headers + 450)
        # All buffers taken away: what is sent now waits in the tap.
        while rig.receiveq(0).ring.outstanding:
            made.sendto(bytes(450), (PEERS[version], 8))
            rig.wait(lambda: bool(rig.take(0, refill=False)))
        before = rig.stats(0)
        for _ in range(10):
            made.sendto(bytes(450), (PEERS[version], 9))
        rig.rounds(lambda: rig.stats(0).rx_port_frames > before.rx_port_frames)
        agree(rig, CSUM)
        rig.fill(0, 32)
        made.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
        made.sendto(b"last", (PEERS[version], 9))
        for got in frames(rig):
            assert got.header.gso_type == 0
            if got.data.endswith(b"last"):
                break
    assert rig.stats(0).rx_drop_offload - before.rx_drop_offload >= 10
    rig.assert_counters_add_up()


@VERSIONS
@pytest.mark.requirement("OUR-TX-12")
def test_a_segment_of_the_drivers_is_cut_by_the_kernel(
    rig: Rig, netns: NetNamespace, version: int
) -> None:
    agree(rig, NOTHING)
    rig.fill(0, 120)
    data = random.Random(version).randbytes(60_000)
    peer = TcpPeer(rig, netns, version)
    with peer.connect() as kernel:
        taken = b""
        for start in range(0, len(data), 20_000):
            peer.send_data(data[start : start + 20_000], gso_size=1000)
            peer.acknowledged()
            taken += kernel.recv(20_000)
    assert taken == data
    assert rig.stats(0).tx_drops == 0


@VERSIONS
@pytest.mark.requirement("OUR-TX-12", "PF-C-15")
def test_datagrams_of_the_drivers_are_cut_and_their_checksums_finished(
    rig: Rig, netns: NetNamespace, version: int
) -> None:
    agree(rig, NOTHING)
    ip: build.Ipv4 | build.Ipv6 = (
        build.Ipv4(PEERS[4], HOSTS[4]) if version == 4 else build.Ipv6(PEERS[6], HOSTS[6])
    )
    payload = random.Random(version).randbytes(950)
    with netns.call(lambda: socket.socket(FAMILY[version], socket.SOCK_DGRAM)) as made:
        made.setblocking(False)
        made.bind((HOSTS[version], 0))
        port = made.getsockname()[1]
        frame = bytes(build.build(ip, build.udp(9, port, payload)))
        frame = unfinished(tap_mac(netns) + DRIVER_MAC + frame[12:])
        start = parse(frame).l4_offset
        for header in (NetHdr(1, UDP_L4, 0, 300, start, 6), NetHdr(1, 0, 0, 0, start, 6)):
            rig.send(0, frame, header=header.pack(rig.header_length))
            rig.wait_sent(0, 1)
        taken = [made.recv(2000) for _ in range(5)]
    assert taken == [*(payload[i : i + 300] for i in range(0, 950, 300)), payload]
    assert rig.stats(0).tx_drops == 0


@pytest.mark.requirement("OUR-OFL-05")
def test_the_tap_is_told_what_may_be_delivered_and_forgets_it_at_the_end(
    netns: NetNamespace,
) -> None:
    tso4, tso6, ecn = "tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation"
    csum, uso = "tx-checksum-ip-generic", "tx-udp-segmentation"
    f = Feature
    table = {
        NOTHING: set(),
        CSUM: {csum},
        CSUM | f.GUEST_TSO4: {csum, tso4},
        CSUM | f.GUEST_TSO6: {csum, tso6},
        CSUM | f.GUEST_TSO4 | f.GUEST_ECN: {csum, tso4, ecn},
        CSUM | f.GUEST_USO4 | f.GUEST_USO6: {csum, uso},
        # One alone the kernel refuses (EINVAL), so neither is asked for.
        CSUM | f.GUEST_USO4: {csum},
        CSUM | f.GUEST_TSO6 | f.GUEST_USO6: {csum, tso6},
        # What stands on an offload that is off is off.
        GUEST & ~CSUM: set(),
        CSUM | f.GUEST_ECN: {csum},
        GUEST: {csum, tso4, tso6, ecn, uso},
    }
    with Rig(pairs=1, port=tap_in(netns, queues=1)) as rig:
        for on in (*table, NOTHING, GUEST, *reversed(table)):
            rig.policy("automatic", guest_offloads=on)
            names = netns.call(lambda: rtnl.offload_names("vnet0"))
            assert names & {csum, tso4, tso6, ecn, uso} == table[on]


def test_a_tap_that_is_gone_refuses_no_policy(netns: NetNamespace) -> None:
    with Rig(pairs=1, port=tap_in(netns, queues=1)) as rig:
        netns.run(["ip", "link", "del", "vnet0"])
        rig.policy("automatic", guest_offloads=GUEST)
        rig.policy("automatic")
