# SPDX-License-Identifier: MIT
"""Hash value and report of the C frame path, against published and hand-made values."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest

from pyvnet.datapath.policy import Policy, Verdict
from pyvnet.spec.rss import (
    ALL_HASH_TYPES,
    KEY_BYTES,
    VERIFICATION_KEY,
    HashReport,
    HashType,
)
from pyvnet.testing import frames

if TYPE_CHECKING:
    from collections.abc import Sequence

UNCLASSIFIED: Final = 9


def classify(
    frame: frames.Frame,
    types: int = ALL_HASH_TYPES,
    key: bytes = VERIFICATION_KEY,
    table: Sequence[int] = (0, 1, 2, 3),
) -> Verdict:
    with Policy.create(
        mode="rss",
        hash_types=types,
        key=key,
        indirection_table=table,
        unclassified_queue=UNCLASSIFIED,
    ) as policy:
        return policy.classify(frame.data)


def packet(src: str | bytes, dst: str | bytes, l4: frames.L4) -> frames.Frame:
    v6 = ":" in src if isinstance(src, str) else len(src) == 16
    return frames.build((frames.Ipv6 if v6 else frames.Ipv4)(src, dst), l4)


def _frame_of(version: int, l4: frames.L4, *chain: frames.Extension) -> frames.Frame:
    """Addresses and ports with the last bit set, so that the last key byte matters."""
    if version == 4:
        return frames.build(frames.Ipv4("10.0.0.1", "10.0.0.3"), l4)
    return frames.build(frames.Ipv6("2001:db8::1", "2001:db8::3", chain), l4)


_OPTIONS: Final = frames.hop_by_hop()
FRAME_OF: Final = {
    HashType.IPV4: _frame_of(4, frames.icmp()),
    HashType.TCPV4: _frame_of(4, frames.tcp(1, 3)),
    HashType.UDPV4: _frame_of(4, frames.udp(1, 3)),
    HashType.IPV6: _frame_of(6, frames.icmp(128)),
    HashType.TCPV6: _frame_of(6, frames.tcp(1, 3)),
    HashType.UDPV6: _frame_of(6, frames.udp(1, 3)),
    HashType.IP_EX: _frame_of(6, frames.icmp(128), _OPTIONS),
    HashType.TCP_EX: _frame_of(6, frames.tcp(1, 3), _OPTIONS),
    HashType.UDP_EX: _frame_of(6, frames.udp(1, 3), _OPTIONS),
}


# Microsoft, "Verifying the RSS Hash Calculation": source, destination, hash of the
# addresses, hash with the TCP ports.
VECTORS: Final = [
    ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323E8FC2, 0x51CCC178),
    ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xD718262A, 0xC626B0EA),
    ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xD2D0A5DE, 0x5C2B394A),
    ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xAFC7327F),
    ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5D1809C5, 0x10E828A2),
    ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2CC18CD5, 0x40207D3D),
    ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0F0C461C, 0xDDE51BBF),
    (
        "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251,
        "fe80::200:f8ff:fe21:67cf", 38024, 0x4B61E985, 0x02D1FEEF,
    ),
]  # fmt: skip


@pytest.mark.requirement("NET-HASH-09", "NET-REP-01", "U-30")
@pytest.mark.parametrize(("src", "sport", "dst", "dport", "ip_hash", "l4_hash"), VECTORS)
def test_published_vectors(
    src: str, sport: int, dst: str, dport: int, ip_hash: int, l4_hash: int
) -> None:
    v6 = ":" in src
    tcp = packet(src, dst, frames.tcp(sport, dport))
    udp = packet(src, dst, frames.udp(sport, dport))
    ip = packet(src, dst, frames.icmp())
    assert classify(tcp)[:2] == (l4_hash, HashReport.TCPV6 if v6 else HashReport.TCPV4)
    assert classify(udp)[:2] == (l4_hash, HashReport.UDPV6 if v6 else HashReport.UDPV4)
    assert classify(ip)[:2] == (ip_hash, HashReport.IPV6 if v6 else HashReport.IPV4)


@pytest.mark.requirement("NET-HASH-07", "U-22")
def test_extended_addresses_take_the_places_of_the_base_header_s() -> None:
    home, care_of = "3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1"
    chain = [
        frames.destination_options(frames.home_address(home)),
        frames.routing_type2(care_of),
    ]
    ip = frames.Ipv6("2001:db8::1", "2001:db8::2", chain)
    assert classify(frames.build(ip, frames.tcp(2794, 1766)))[:2] == (
        0x40207D3D, HashReport.TCPV6_EX,
    )  # fmt: skip
    assert classify(frames.build(ip, frames.sctp()))[:2] == (0x2CC18CD5, HashReport.IPV6_EX)
    # The plain types hash the base header, chain or not.
    base = packet("2001:db8::1", "2001:db8::2", frames.sctp())
    plain = HashType.IPV6 | HashType.TCPV6
    assert classify(frames.build(ip, frames.sctp()), plain) == classify(base, plain)


@pytest.mark.requirement("U-21", "U-22")
@pytest.mark.parametrize("cut", range(1, 18))
def test_a_home_address_that_leaves_its_header_is_none(cut: int) -> None:
    """What follows the header continues the option, byte by byte, but does not count."""
    home = frames.home_address("2001:db8::aaaa")
    # The bytes in the header, cut short by its end, and the others as what follows it.
    fill = frames.padn(8 + -(2 + cut) % 8)
    header = frames.extension(frames.DSTOPTS, fill + home[:cut])
    rest = (home[cut:] + bytes(8))[:20]
    l4 = frames.L4(frames.UDP, rest, (("udp.sport", 2), ("udp.dport", 2), ("udp.rest", 16)))
    verdict = classify(frames.build(frames.Ipv6(extensions=[header]), l4))
    assert verdict.hash_report == HashReport.UDPV6_EX
    ports = int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big")
    base = classify(packet("2001:db8::1", "2001:db8:1::2", frames.udp(*ports)))
    assert verdict.hash_value == base.hash_value


@pytest.mark.requirement("U-23")
@pytest.mark.parametrize("bit", range(16))
def test_any_bit_of_the_offset_makes_a_fragment(bit: int) -> None:
    data = bytearray(FRAME_OF[HashType.TCPV4].data)
    data[20:22] = (1 << bit).to_bytes(2, "big")
    frame = frames.Frame(bytes(data), FRAME_OF[HashType.TCPV4].layout)
    # Bit 15 is reserved, bit 14 says "don't fragment".
    expected = HashReport.IPV4 if bit < 14 else HashReport.TCPV4
    assert classify(frame).hash_report == expected


@pytest.mark.requirement("NET-HASH-09")
@pytest.mark.parametrize("size", [12, 36])
def test_every_input_bit_is_hashed_with_the_key_bits_at_its_place(size: int) -> None:
    """The hash of a single bit is the 32 key bits from its position on."""
    key = random.Random(9).randbytes(40)
    half = (size - 4) // 2
    for bit in range(8 * size):
        data = (1 << (8 * size - 1 - bit)).to_bytes(size, "big")
        ports = int.from_bytes(data[-4:-2], "big"), int.from_bytes(data[-2:], "big")
        frame = packet(data[:half], data[half : 2 * half], frames.udp(*ports))
        window = int.from_bytes(key, "big") >> (8 * len(key) - 32 - bit) & 0xFFFFFFFF
        assert classify(frame, key=key).hash_value == window


@pytest.mark.requirement("U-13")
@pytest.mark.parametrize("size", range(0, 41, 4))
def test_a_short_key_is_followed_by_zeros(size: int) -> None:
    key = VERIFICATION_KEY[:size]
    for src, sport, dst, dport, *_ in VECTORS:
        frame = packet(src, dst, frames.tcp(sport, dport))
        assert classify(frame, key=key) == classify(frame, key=key + bytes(40 - size))


@pytest.mark.requirement("NET-HASH-09")
@pytest.mark.parametrize("hash_type", KEY_BYTES)
def test_a_type_uses_the_key_bytes_it_needs_and_no_more(hash_type: HashType) -> None:
    used = KEY_BYTES[hash_type]
    other = bytes(byte ^ 0xFF for byte in VERIFICATION_KEY)
    frame = FRAME_OF[hash_type]
    whole = classify(frame, hash_type)
    assert classify(frame, hash_type, VERIFICATION_KEY[:used] + other[used:]) == whole
    changed = VERIFICATION_KEY[: used - 1] + other[used - 1 :]
    assert classify(frame, hash_type, changed) != whole


@pytest.mark.requirement("NET-REP-03")
@pytest.mark.parametrize("hash_type", FRAME_OF)
def test_report_is_the_number_of_the_type_s_bit_plus_one(hash_type: HashType) -> None:
    assert 1 << (classify(FRAME_OF[hash_type], hash_type).hash_report - 1) == hash_type


@pytest.mark.requirement("NET-REP-02", "NET-RSS-01", "U-03", "U-14")
@pytest.mark.parametrize("hash_type", FRAME_OF)
def test_without_its_type_a_frame_is_unclassified(hash_type: HashType) -> None:
    nothing = Verdict(0, HashReport.NONE, UNCLASSIFIED)
    assert classify(FRAME_OF[hash_type], 0) == nothing
    other_version = (
        HashType.IPV6 | HashType.TCPV6 | HashType.UDPV6 | HashType.IP_EX | HashType.TCP_EX
        if hash_type in (HashType.IPV4, HashType.TCPV4, HashType.UDPV4)
        else HashType.IPV4 | HashType.TCPV4 | HashType.UDPV4
    )
    assert classify(FRAME_OF[hash_type], other_version) == nothing


@pytest.mark.requirement("NET-REP-01", "NET-RSS-02")
def test_a_hash_of_zero_is_a_hash() -> None:
    """An all-zero key makes every hash 0; the frames are classified all the same."""
    for hash_type, frame in FRAME_OF.items():
        report = HashReport(int(hash_type).bit_length())
        assert classify(frame, hash_type, bytes(40), table=(3,) * 4) == Verdict(0, report, 3)


@pytest.mark.requirement("NET-RSS-02")
@pytest.mark.parametrize("length", [1, 2, 64, 128])
def test_queue_is_the_table_entry_of_the_masked_hash(length: int) -> None:
    table = random.Random(length).sample(range(256), length)
    for frame in FRAME_OF.values():
        verdict = classify(frame, table=table)
        assert verdict.queue == table[verdict.hash_value % length]
