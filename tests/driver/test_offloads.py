# SPDX-License-Identifier: MIT
"""Headers of received frames, judged; frames made ready for the device to finish."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from pyvnet.driver import CommandError, DeviceViolation, Driver
from pyvnet.driver.header_rules import HeaderRules, ip_version
from pyvnet.driver.offload import offload
from pyvnet.errors import UsageError
from pyvnet.spec.ctrl import Ack
from pyvnet.spec.features import NO_FEATURES, Feature, features_from_names
from pyvnet.spec.net_hdr import GsoType, HdrFlag, NetHdr
from pyvnet.testing.frames import Ipv4, Ipv6, Vlan, build, fragment_header, icmp, tcp, udp
from tests.driver.ways import WITHIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.driver.plain_device import PlainDevice

CSUM = Feature.GUEST_CSUM
TSO4 = Feature.GUEST_TSO4
SWITCH = Feature.CTRL_VQ | Feature.CTRL_GUEST_OFFLOADS
TCP4 = bytes(build(Ipv4(), tcp(payload=bytes(3000))))
TCP6 = bytes(build(Ipv6(), tcp(payload=bytes(3000))))
UDP4 = bytes(build(Ipv4(), udp(payload=bytes(3000))))
UDP6 = bytes(build(Ipv6(), udp(payload=bytes(3000))))
BURST4 = offload(TCP4, gso_size=1000)
BURST4_HEADER = BURST4.header.pack()[:10] + b"\1\0"


# --- what a device may hand over --------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "frame", "header", "match"),
    [
        pytest.param(CSUM, TCP4, NetHdr(1, csum_start=34, csum_offset=16), None, id="csum"),
        pytest.param(CSUM, TCP4, NetHdr(2), None, id="data-valid"),
        pytest.param(CSUM, b"x" * 52, NetHdr(1, 0, 0, 0, 34, 16), None, id="csum-at-the-end"),
        pytest.param(CSUM, b"x" * 51, NetHdr(1, 0, 0, 0, 34, 16), "NET-RX-11", id="csum-beyond"),
        pytest.param(CSUM, TCP4, NetHdr(1, 0, 0, 0, 0xFFFF, 0xFFFF), "NET-RX-11", id="csum-far"),
        pytest.param(CSUM | TSO4, TCP4, NetHdr(1, 1, 54, 1000, 34, 16), None, id="tso4"),
        pytest.param(CSUM | TSO4, TCP4, NetHdr(1, 1, 34, 1000, 34, 16), "NET-RX-14", id="short"),
        pytest.param(CSUM | TSO4, TCP4, NetHdr(1, 1, 3055, 1000, 34, 16), "NET-RX-14", id="long"),
        pytest.param(CSUM | TSO4, TCP6, NetHdr(1, 1, 74, 1000, 54, 16), "on IPv6", id="v4-on-v6"),
        pytest.param(
            CSUM | Feature.GUEST_USO6, UDP6, NetHdr(1, 5, 62, 1000, 54, 6), None, id="uso6"
        ),
        pytest.param(
            CSUM | Feature.GUEST_USO6, UDP4, NetHdr(1, 5, 42, 1000, 34, 6), "on IPv4", id="uso4-off"
        ),
    ],
)
def test_a_header_and_its_frame(
    features: Feature, frame: bytes, header: NetHdr, match: str | None
) -> None:
    verdict = HeaderRules(features).check(header, frame)
    assert verdict is None if match is None else verdict is not None and match in verdict


@given(
    st.builds(
        NetHdr,
        *(st.integers(0, 255) for _ in range(2)),
        *(st.integers(0, 0xFFFF) for _ in range(4)),
    )
)
def test_what_passes_points_into_the_frame_and_was_negotiated(header: NetHdr) -> None:
    """Invariant: whoever acts on a header that passed stays inside the frame."""
    if HeaderRules(CSUM | TSO4).check(header, TCP4) is None:
        assert header.flags in {0, 1, 2, 3}
        assert header.gso_type in {GsoType.NONE, GsoType.TCPV4}
        if header.flags & HdrFlag.NEEDS_CSUM:
            assert header.csum_start + header.csum_offset + 2 <= len(TCP4)
        if header.gso_type:
            assert header.gso_size
            assert header.csum_start < header.hdr_len <= len(TCP4)


@given(st.binary(max_size=64))
def test_any_bytes_have_an_ip_version_or_none(frame: bytes) -> None:
    assert ip_version(frame) in {0, 4, 6}


# --- what is on just now ----------------------------------------------------------------


@pytest.fixture
def on(plain: PlainDevice) -> PlainDevice:
    plain.offer |= features_from_names("ctrl_guest_offloads,guest_uso4")
    return plain


async def bursts(plain: PlainDevice, drv: Driver, number: int = 1) -> AsyncIterator[bool]:
    """Inject bursts; for each, whether the driver takes it for good."""
    for _ in range(number):
        plain.inject(BURST4.frame, header=BURST4_HEADER)
        try:
            await drv.receive(WITHIN)
        except DeviceViolation:
            yield False
        else:
            yield True


async def test_an_offload_that_was_turned_off_is_a_violation(on: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(CSUM | TSO4 | SWITCH)
    assert [ok async for ok in bursts(on, drv)] == [True]
    await drv.ctrl.guest_offloads_set(int(CSUM))
    assert on.commands[-1] == b"\5\0" + int(CSUM).to_bytes(8, "little")
    assert [ok async for ok in bursts(on, drv)] == [False]
    await drv.ctrl.guest_offloads_set(int(CSUM | TSO4))
    assert [ok async for ok in bursts(on, drv, 3)] == [True] * 3
    await drv.ctrl.guest_offloads_set(0)
    on.inject(TCP4, header=NetHdr(2, num_buffers=1).pack())
    with pytest.raises(DeviceViolation, match=r"flags 0x2 are not on \(NET-RX-05\)"):
        await drv.receive(WITHIN)


async def test_a_refused_command_changes_nothing(on: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(CSUM | TSO4 | SWITCH)
    on.command = lambda _: b"\1"
    with pytest.raises(CommandError, match="GUEST_OFFLOADS_SET"):
        await drv.ctrl.guest_offloads_set(0)
    assert [ok async for ok in bursts(on, drv)] == [True]


async def test_frames_from_before_the_answer_are_judged_by_what_held_then(
    on: PlainDevice, drv: Driver
) -> None:
    """Three bursts lie in the ring when the command is answered, a fourth is placed after it."""
    await drv.negotiate(CSUM | TSO4 | SWITCH, queue_size=16)
    ring = on.rings[0]
    ring.publish = lambda: False  # type: ignore[method-assign]

    def show() -> None:
        on.rings[0].memory.write(
            ring.setup.used_ring + 2, (ring.used & 0xFFFF).to_bytes(2, "little")
        )

    for _ in range(3):
        on.inject(BURST4.frame, header=BURST4_HEADER)
    show()
    await drv.ctrl.guest_offloads_set(int(CSUM))
    on.inject(BURST4.frame, header=BURST4_HEADER)
    show()
    for _ in range(3):
        assert drv.receive_nowait() is not None
    with pytest.raises(DeviceViolation, match="NET-RX-07"):
        drv.receive_nowait()


async def test_an_offload_may_show_as_soon_as_it_was_asked_for(
    on: PlainDevice, drv: Driver
) -> None:
    await drv.negotiate(CSUM | TSO4 | SWITCH)
    await drv.ctrl.guest_offloads_set(0)
    on.command = lambda _: (on.inject(BURST4.frame, header=BURST4_HEADER), b"\0")[1]
    await drv.ctrl.guest_offloads_set(int(CSUM | TSO4))
    assert (await drv.receive(WITHIN)).header.gso_size == 1000


# --- named commands ---------------------------------------------------------------------


async def test_the_named_commands_send_what_the_standard_says(
    plain: PlainDevice, drv: Driver
) -> None:
    await drv.negotiate(Feature.CTRL_VQ)
    ctrl = drv.ctrl
    await ctrl.rx_promisc(on=False)
    await ctrl.rx_allmulti(on=True)
    await ctrl.rx_alluni(on=True)
    await ctrl.rx_nomulti(on=True)
    await ctrl.rx_nouni(on=True)
    await ctrl.rx_nobcast(on=False)
    await ctrl.mac_table_set([b"\2AAAAA", b"\2BBBBB"], [b"\3CCCCC"])
    await ctrl.mac_addr_set(b"\2DDDDD")
    await ctrl.vlan_add(0x123)
    await ctrl.vlan_del(1)
    await ctrl.announce_ack()
    assert plain.commands == [
        b"\0\0\0", b"\0\1\1", b"\0\2\1", b"\0\3\1", b"\0\4\1", b"\0\5\0",
        b"\1\0\2\0\0\0\2AAAAA\2BBBBB\1\0\0\0\3CCCCC",
        b"\1\1\2DDDDD",
        b"\2\0\x23\1", b"\2\1\1\0",
        b"\3\0",
    ]  # fmt: skip
    plain.command = lambda _: b"\1"
    with pytest.raises(CommandError, match="RX_NOUNI"):
        await ctrl.rx_nouni(on=True)
    with pytest.raises(CommandError, match="VLAN_ADD"):
        await ctrl.vlan_add(9)
    assert await ctrl.announce_ack(check=False) is Ack.ERR


# --- frames for the device to finish ------------------------------------------------------


def finish(header: NetHdr, frame: bytes) -> bytes:
    """What the device does with NEEDS_CSUM, by the words of the standard."""
    at, total = header.csum_start, 0
    data = frame[at:] + bytes(len(frame[at:]) % 2)
    for i in range(0, len(data), 2):
        total += data[i] << 8 | data[i + 1]
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    place = at + header.csum_offset
    return frame[:place] + (total ^ 0xFFFF).to_bytes(2, "big") + frame[place + 2 :]


@pytest.mark.parametrize("size", [0, 1, 2, 999, 9_000])
@pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
@pytest.mark.parametrize(
    "packet",
    [
        IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=1000, dport=80),
        IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1000, dport=53),
        IPv6(src="2001:db8::1", dst="2001:db8::2")
        / TCP(sport=1000, dport=80, options=[("NOP", 0)]),
        IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1000, dport=53),
    ],
    ids=["tcp4", "udp4", "tcp6", "udp6"],
)
def test_a_checksum_left_to_the_device(packet: IP | IPv6, tags: tuple[int, ...], size: int) -> None:
    """Completed as the standard says, it is the checksum scapy computes."""
    plain = bytes(Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / packet / bytes(size))
    tagged = b"".join(b"\x81\x00" + tag.to_bytes(2, "big") for tag in tags)
    frame = plain[:12] + tagged + plain[12:]
    ready = offload(frame)
    assert ready.header.flags == HdrFlag.NEEDS_CSUM
    assert ready.needs == Feature.CSUM
    assert finish(ready.header, ready.frame) == frame
    assert finish(ready.header, offload(ready.frame).frame) == frame, "whatever was there before"


@pytest.mark.parametrize(
    ("frame", "kind", "needs", "hdr_len"),
    [
        (TCP4, 1, Feature.HOST_TSO4, 54),
        (TCP6, 4, Feature.HOST_TSO6, 74),
        (UDP4, 5, Feature.HOST_USO, 42),
        (UDP6, 5, Feature.HOST_USO, 62),
    ],
)
def test_a_burst(frame: bytes, kind: int, needs: Feature, hdr_len: int) -> None:
    ready = offload(frame, gso_size=1000)
    header = ready.header
    assert (header.flags, header.gso_type, header.gso_size, header.hdr_len) == (
        1, kind, 1000, hdr_len,
    )  # fmt: skip
    assert ready.needs == needs | Feature.CSUM
    assert finish(header, ready.frame) == frame
    ecn = offload(frame, gso_size=1000, ecn=True)
    assert ecn.header.gso_type == kind | 0x80
    assert ecn.needs & Feature.HOST_ECN


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(TCP4[:50], id="cut"),
        pytest.param(bytes(build(Ipv4(), icmp())), id="icmp"),
        pytest.param(bytes(build(Ipv4(more_fragments=True), udp())), id="fragment"),
        pytest.param(bytes(build(Ipv6(extensions=(fragment_header(),)), udp())), id="fragment6"),
        pytest.param(b"\xff" * 12 + b"\x08\x06" + bytes(46), id="arp"),
        pytest.param(bytes(build(Ipv4(), udp(), vlans=[Vlan(1)]))[:16], id="tag-only"),
    ],
)
def test_frames_without_a_checksum_to_leave(frame: bytes) -> None:
    with pytest.raises(UsageError):
        offload(frame)


async def test_a_burst_takes_its_feature(plain: PlainDevice, drv: Driver) -> None:
    plain.offer |= Feature.CSUM
    await drv.negotiate(Feature.CSUM)
    await drv.send_offloaded(TCP4)
    with pytest.raises(UsageError, match="not negotiated: host_tso4"):
        await drv.send_offloaded(TCP4, gso_size=1000)
    await drv.negotiate(NO_FEATURES)
    with pytest.raises(UsageError, match="not negotiated: csum"):
        await drv.send_offloaded(TCP4)
