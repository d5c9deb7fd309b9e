# SPDX-License-Identifier: MIT
"""One row per decision and clause: frame and enabled types → hash type and the very bytes hashed.

Expectations are written down by hand; nothing in them comes from the code under test.
"""

from __future__ import annotations

import pytest

from pyvnet.reference import Hash, classify, hash_input, parse, select, steer, toeplitz
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY, HashReport, HashType
from tests.reference import frames as f

T = HashType
V4 = f.SRC4 + f.DST4
V6 = f.SRC6 + f.DST6
NOT_HASHED = (T.NONE, b"")
IPV4 = (T.IPV4, V4)
IPV6 = (T.IPV6, V6)
IP_EX = (T.IP_EX, V6)
TCPV4 = (T.TCPV4, V4 + f.PORTS)
UDPV4 = (T.UDPV4, V4 + f.PORTS)
TCPV6 = (T.TCPV6, V6 + f.PORTS)
UDPV6 = (T.UDPV6, V6 + f.PORTS)
TCP_EX = (T.TCP_EX, V6 + f.PORTS)
UDP_EX = (T.UDP_EX, V6 + f.PORTS)

TCP4_FRAME = f.ipv4(f.TCP, f.L4)
TCP6_FRAME = f.ipv6(f.TCP, f.L4)
UDP6_FRAME = f.ipv6(f.UDP, f.L4)
TCP6_HBH = f.ipv6(f.HBH, f.options(f.TCP) + f.L4)
UDP6_HBH = f.ipv6(f.HBH, f.options(f.UDP) + f.L4)


def row(name: str, frame: bytes, types: int, expected: tuple[HashType, bytes], *ids: str) -> object:
    return pytest.param(frame, types, expected, marks=pytest.mark.requirement(*ids), id=name)


ALL = int(ALL_HASH_TYPES)
PLAIN6 = T.IPV6 | T.TCPV6 | T.UDPV6

TYPES = [
    # IPv4: TCP type, else UDP type, else IP type, else nothing.
    row("v4 tcp", TCP4_FRAME, ALL, TCPV4, "NET-HASH-05"),
    row("v4 udp", f.ipv4(f.UDP, f.L4), ALL, UDPV4, "NET-HASH-05"),
    row("v4 tcp, only ip on", TCP4_FRAME, T.IPV4, IPV4, "NET-HASH-05", "NET-HASH-08"),
    row("v4 tcp, udp+ip on", TCP4_FRAME, T.UDPV4 | T.IPV4, IPV4, "NET-HASH-08"),
    row("v4 udp, tcp+ip on", f.ipv4(f.UDP, f.L4), T.TCPV4 | T.IPV4, IPV4, "NET-HASH-08"),
    row("v4 tcp, only udp on", TCP4_FRAME, T.UDPV4, NOT_HASHED, "NET-HASH-05", "NET-REP-02"),
    row("v4 tcp, only v6 types on", TCP4_FRAME, ALL & ~7, NOT_HASHED, "NET-HASH-05"),
    row("v4 tcp, nothing on", TCP4_FRAME, 0, NOT_HASHED, "U-14", "NET-HASH-04"),
    # IPv6 without extension headers: the same order; EX types do not apply.
    row("v6 tcp", TCP6_FRAME, ALL, TCPV6, "NET-HASH-06", "U-19"),
    row("v6 udp", UDP6_FRAME, ALL, UDPV6, "NET-HASH-06", "U-19"),
    row("v6 icmp", f.ipv6(f.ICMPV6, f.L4), ALL, IPV6, "NET-HASH-06", "U-19", "U-27"),
    row("v6 tcp, only ip on", TCP6_FRAME, T.IPV6, IPV6, "NET-HASH-06", "NET-HASH-08"),
    row("v6 tcp, udp+ip on", TCP6_FRAME, T.UDPV6 | T.IPV6, IPV6, "NET-HASH-08"),
    row("v6 tcp, only udp on", TCP6_FRAME, T.UDPV6, NOT_HASHED, "NET-HASH-06"),
    row("v6 tcp, only EX on", TCP6_FRAME, T.TCP_EX | T.IP_EX, NOT_HASHED, "U-19"),
    row("v6 tcp, EX+ip on", TCP6_FRAME, T.TCP_EX | T.IP_EX | T.IPV6, IPV6, "U-19"),
    # IPv6 with extension headers: TCP_EX, UDP_EX, IP_EX, and only then the plain ones.
    row("v6 ext tcp", TCP6_HBH, ALL, TCP_EX, "NET-HASH-07"),
    row("v6 ext udp", UDP6_HBH, ALL, UDP_EX, "NET-HASH-07"),
    row("v6 ext icmp", f.ipv6(f.HBH, f.options(f.ICMPV6) + f.L4), ALL, IP_EX, "NET-HASH-07"),
    row("v6 ext tcp, plain on", TCP6_HBH, PLAIN6, TCPV6, "NET-HASH-07"),
    row("v6 ext udp, plain on", UDP6_HBH, PLAIN6, UDPV6, "NET-HASH-07"),
    row("v6 ext tcp, only ip on", TCP6_HBH, T.IPV6, IPV6, "NET-HASH-07"),
    row("v6 ext tcp, tcp+ip_ex on", TCP6_HBH, T.TCPV6 | T.IP_EX, IP_EX, "U-58"),
    row("v6 ext udp, udp+ip_ex on", UDP6_HBH, T.UDPV6 | T.IP_EX, IP_EX, "U-58"),
    row("v6 ext tcp, udp_ex+ip on", TCP6_HBH, T.UDP_EX | T.IPV6, IPV6, "NET-HASH-07"),
    row("v6 ext tcp, udp_ex+ip_ex on", TCP6_HBH, T.UDP_EX | T.IP_EX, IP_EX, "NET-HASH-07"),
    row("v6 ext tcp, nothing on", TCP6_HBH, 0, NOT_HASHED, "U-14"),
    # What is no TCP or UDP has the IP type; what is no IP has none.
    row("v4 sctp", f.ipv4(f.SCTP, f.L4), ALL, IPV4, "U-27"),
    row("v4 icmp", f.ipv4(f.ICMP, f.L4), ALL, IPV4, "U-27"),
    row("v4 gre", f.ipv4(f.GRE, f.L4), ALL, IPV4, "U-27"),
    row("v4 esp", f.ipv4(f.ESP, f.L4), ALL, IPV4, "U-27"),
    row("v4 ah", f.ipv4(f.AH, f.L4), ALL, IPV4, "U-27"),
    row("v6 sctp", f.ipv6(f.SCTP, f.L4), ALL, IPV6, "U-27"),
    row("v6 gre", f.ipv6(f.GRE, f.L4), ALL, IPV6, "U-27"),
    row("v6 esp", f.ipv6(f.ESP, f.L4), ALL, IPV6, "U-20", "U-27"),
    row("v6 no next header", f.ipv6(f.NONE, f.L4), ALL, IPV6, "U-20"),
    row("arp", f.ethernet(0x0806, bytes(28)), ALL, NOT_HASHED, "U-26"),
    row("pppoe", f.ethernet(0x8864, TCP4_FRAME[14:]), ALL, NOT_HASHED, "U-26"),
    row("mpls", f.ethernet(0x8847, TCP4_FRAME[14:]), ALL, NOT_HASHED, "U-26"),
    row("802.3 length, llc", f.ethernet(0x0040, TCP4_FRAME[14:]), ALL, NOT_HASHED, "U-26"),
    row("unknown ethertype", f.ethernet(0x88B5, TCP4_FRAME[14:]), ALL, NOT_HASHED, "U-26"),
    # Fragments have no L4, in either version, whichever part they are.
    row("v4 first fragment", f.ipv4(f.TCP, f.L4, flags_and_offset=0x2000), ALL, IPV4, "U-23"),
    row("v4 later fragment", f.ipv4(f.TCP, f.L4, flags_and_offset=0x2001), ALL, IPV4, "U-23"),
    row("v4 last fragment", f.ipv4(f.TCP, f.L4, flags_and_offset=0x00B9), ALL, IPV4, "U-23"),
    row("v4 highest offset bit", f.ipv4(f.TCP, f.L4, flags_and_offset=0x1000), ALL, IPV4, "U-23"),
    row("v4 don't fragment", f.ipv4(f.TCP, f.L4, flags_and_offset=0x4000), ALL, TCPV4, "U-23"),
    row("v4 reserved flag", f.ipv4(f.TCP, f.L4, flags_and_offset=0x8000), ALL, TCPV4, "U-23"),
    row("v6 atomic", f.ipv6(f.FRAG, f.fragment(f.TCP) + f.L4), ALL, IP_EX, "U-23", "U-20"),
    row("v6 first", f.ipv6(f.FRAG, f.fragment(f.UDP, 1) + f.L4), ALL, IP_EX, "U-23"),
    row("v6 later", f.ipv6(f.FRAG, f.fragment(f.TCP, 8) + f.L4), ALL, IP_EX, "U-23"),
    row("v6 fragment, plain on", f.ipv6(f.FRAG, f.fragment(f.TCP) + f.L4), PLAIN6, IPV6, "U-23"),
    # The ports must be in the frame; nothing behind them need be.
    row("v4 three bytes of tcp", f.ipv4(f.TCP, f.L4[:3]), ALL, IPV4, "U-24"),
    row("v4 four bytes of tcp", f.ipv4(f.TCP, f.PORTS), ALL, TCPV4, "U-24"),
    row("v4 four bytes of udp", f.ipv4(f.UDP, f.PORTS), ALL, UDPV4, "U-24"),
    row("v4 no byte of udp", f.ipv4(f.UDP, b""), ALL, IPV4, "U-24"),
    row("v6 three bytes of udp", f.ipv6(f.UDP, f.L4[:3]), ALL, IPV6, "U-24"),
    row("v6 four bytes of udp", f.ipv6(f.UDP, f.PORTS), ALL, UDPV6, "U-24"),
    row("v6 ext, cut tcp", f.ipv6(f.HBH, f.options(f.TCP) + f.L4[:3]), ALL, IP_EX, "U-24"),
    row("v6 ext, cut tcp, plain on", TCP6_HBH[: 14 + 48 + 3], PLAIN6, IPV6, "U-24"),
    row("total length too short", f.ipv4(f.TCP, f.L4, total_length=20), ALL, TCPV4, "U-24"),
    # VLAN tags: up to two, of three TPIDs, in any mixture.
    *(
        row(f"tag {tpid:#06x}", f.ipv4(f.TCP, f.L4, tpid), ALL, TCPV4, "U-25")
        for tpid in (0x8100, 0x88A8, 0x9100)
    ),
    row("two c-tags", f.ipv4(f.TCP, f.L4, 0x8100, 0x8100), ALL, TCPV4, "U-25"),
    row("s-tag, c-tag", f.ipv6(f.UDP, f.L4, 0x88A8, 0x8100), ALL, UDPV6, "U-25"),
    row("0x9100, c-tag", f.ipv6(f.TCP, f.L4, 0x9100, 0x8100), ALL, TCPV6, "U-25"),
    row("three tags", f.ipv4(f.TCP, f.L4, 0x88A8, 0x8100, 0x8100), ALL, NOT_HASHED, "U-25"),
    row("tpid 0x9200", f.ipv4(f.TCP, f.L4, 0x9200), ALL, NOT_HASHED, "U-25", "U-26"),
    row("tag cut short", f.ipv4(f.TCP, f.L4, 0x8100)[:17], ALL, NOT_HASHED, "U-25"),
    row("tag, arp", f.ethernet(0x0806, bytes(28), 0x8100), ALL, NOT_HASHED, "U-25", "U-26"),
    # IPv4 header length and version.
    row("v4 options", f.ipv4(f.TCP, f.L4, ihl=15), ALL, TCPV4, "U-29"),
    row("v4 options beyond frame", f.ipv4(f.TCP, b"", ihl=15)[:-1], ALL, NOT_HASHED, "U-29"),
    row("v4 options, no l4", f.ipv4(f.TCP, b"", ihl=15), ALL, IPV4, "U-29", "U-24"),
    row("v4 ihl 4", f.ipv4(f.TCP, f.L4, ihl=4), ALL, NOT_HASHED, "U-29"),
    row("v4 ihl 0", f.ipv4(f.TCP, f.L4, ihl=0), ALL, NOT_HASHED, "U-29"),
    row("v4 header cut", TCP4_FRAME[: 14 + 19], ALL, NOT_HASHED, "U-29"),
    row("v4 version 6", f.ipv4(f.TCP, f.L4, version=6), ALL, NOT_HASHED, "U-29"),
    row("v6 version 4", f.ipv6(f.TCP, f.L4, version=4), ALL, NOT_HASHED, "U-29"),
    row("v6 header cut", TCP6_FRAME[: 14 + 39], ALL, NOT_HASHED, "U-29"),
    row("v6 header only", TCP6_FRAME[: 14 + 40], ALL, IPV6, "U-24"),
    row("ethernet header cut", TCP4_FRAME[:13], ALL, NOT_HASHED, "U-26"),
    row("ethernet header only", TCP4_FRAME[:14], ALL, NOT_HASHED, "U-29"),
    row("no byte", b"", ALL, NOT_HASHED, "U-26"),
    # A coalesced super-packet is hashed by the headers of the big packet.
    row("64 KiB of tcp", f.ipv4(f.TCP, f.L4 + bytes(65000)), ALL, TCPV4, "U-28"),
    row("64 KiB of udp", f.ipv6(f.UDP, f.L4 + bytes(65000)), ALL, UDPV6, "U-28"),
]


@pytest.mark.parametrize(("frame", "types", "expected"), TYPES)
def test_type_and_input(frame: bytes, types: int, expected: tuple[HashType, bytes]) -> None:
    flow = parse(frame)
    hash_type = select(flow, types)
    assert (hash_type, hash_input(flow, hash_type)) == expected
    hashed = classify(frame, types, VERIFICATION_KEY)
    expected_type, expected_input = expected
    if expected_type == T.NONE:
        assert hashed == Hash(0, HashReport.NONE)
    else:
        assert 1 << (hashed.report - 1) == expected_type
        assert hashed.value == toeplitz(VERIFICATION_KEY, expected_input)


EX_ALWAYS = [
    row("no ext, tcp", TCP6_FRAME, ALL, TCP_EX, "U-19"),
    row("no ext, udp", UDP6_FRAME, ALL, UDP_EX, "U-19"),
    row("no ext, icmp", f.ipv6(f.ICMPV6, f.L4), ALL, IP_EX, "U-19"),
    row("no ext, tcp+ip_ex on", TCP6_FRAME, T.TCPV6 | T.IP_EX, TCPV6, "U-19", "U-58"),
    row("no ext, ip+ip_ex on", TCP6_FRAME, T.IPV6 | T.IP_EX, IP_EX, "U-19"),
    row("no ext, plain on", TCP6_FRAME, PLAIN6, TCPV6, "U-19"),
    row("ext, tcp", TCP6_HBH, ALL, TCP_EX, "U-58"),
    row("ext, tcp+ip_ex on", TCP6_HBH, T.TCPV6 | T.IP_EX, TCPV6, "U-58"),
    row("ext, udp+ip_ex on", UDP6_HBH, T.UDPV6 | T.IP_EX, UDPV6, "U-58"),
    row("ext, udp_ex+ip on", TCP6_HBH, T.UDP_EX | T.IPV6, IPV6, "U-58"),
    row("v4 unaffected", TCP4_FRAME, ALL, TCPV4, "U-19"),
    row("v4, only EX on", TCP4_FRAME, T.TCP_EX | T.IP_EX, NOT_HASHED, "U-19"),
]


@pytest.mark.parametrize(("frame", "types", "expected"), EX_ALWAYS)
def test_type_and_input_with_ex_types_always(
    frame: bytes, types: int, expected: tuple[HashType, bytes]
) -> None:
    flow = parse(frame)
    hash_type = select(flow, types, ex_types_always=True)
    assert (hash_type, hash_input(flow, hash_type)) == expected
    hashed = classify(frame, types, VERIFICATION_KEY, ex_types_always=True)
    assert (hashed.report == HashReport.NONE) == (expected[0] == T.NONE)


@pytest.mark.requirement("NET-HASH-07", "U-22")
@pytest.mark.parametrize("ex_types_always", [False, True])
def test_replaced_addresses_go_into_ex_types_only(ex_types_always: bool) -> None:
    chain = f.options(f.RH, f.home_address()) + f.routing(f.TCP, f.VIA_RH2)
    flow = parse(f.ipv6(f.DSTOPTS, chain + f.L4))
    assert select(flow, ALL, ex_types_always=ex_types_always) == T.TCP_EX
    assert hash_input(flow, T.TCP_EX) == f.HOME + f.VIA_RH2 + f.PORTS
    assert hash_input(flow, T.IP_EX) == f.HOME + f.VIA_RH2
    assert hash_input(flow, T.TCPV6) == V6 + f.PORTS
    assert hash_input(flow, T.IPV6) == V6


@pytest.mark.requirement("NET-REP-03")
def test_every_type_has_its_report() -> None:
    examples = {
        HashReport.IPV4: f.ipv4(f.ICMP, f.L4),
        HashReport.TCPV4: TCP4_FRAME,
        HashReport.UDPV4: f.ipv4(f.UDP, f.L4),
        HashReport.IPV6: f.ipv6(f.ICMPV6, f.L4),
        HashReport.TCPV6: TCP6_FRAME,
        HashReport.UDPV6: UDP6_FRAME,
        HashReport.IPV6_EX: f.ipv6(f.HBH, f.options(f.ICMPV6) + f.L4),
        HashReport.TCPV6_EX: TCP6_HBH,
        HashReport.UDPV6_EX: UDP6_HBH,
    }
    for report, frame in examples.items():
        assert classify(frame, ALL, VERIFICATION_KEY).report == report


@pytest.mark.requirement("NET-RSS-02")
@pytest.mark.parametrize(
    ("value", "queue"), [(0x51CCC178, 10), (0, 10), (1, 11), (6, 12), (0xFFFFFFFF, 13)]
)
def test_low_bits_of_the_hash_choose_the_entry(value: int, queue: int) -> None:
    assert steer(Hash(value, HashReport.TCPV4), [10, 11, 12, 13], 99) == queue


@pytest.mark.requirement("NET-RSS-02", "U-09")
def test_table_of_one_entry_takes_every_hash() -> None:
    assert steer(Hash(0xFFFFFFFF, HashReport.IPV4), [7], 0) == 7


@pytest.mark.requirement("NET-RSS-01", "U-14", "U-26")
def test_frame_without_hash_goes_to_the_unclassified_queue() -> None:
    hashed = classify(f.ethernet(0x0806, bytes(28)), ALL, VERIFICATION_KEY)
    assert steer(hashed, [1, 2], 3) == 3
    assert steer(classify(TCP4_FRAME, 0, VERIFICATION_KEY), [1, 2], 3) == 3


@pytest.mark.requirement("U-09")
@pytest.mark.parametrize("length", [0, 3, 127])
def test_table_without_a_mask_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"{length} entries: must be a power of two"):
        steer(Hash(0, HashReport.IPV4), [0] * length, 0)
