# SPDX-License-Identifier: MIT
"""Frames put together byte by byte, right or wrong as asked."""

from __future__ import annotations

from ipaddress import ip_address

MACS = bytes.fromhex("020000000002 020000000001")
SRC4 = bytes.fromhex("c0000201")
DST4 = bytes.fromhex("c6336402")
SRC6 = bytes.fromhex("20010db8 00000000 00000000 00000001")
DST6 = bytes.fromhex("20010db8 00000000 00000000 00000002")
HOME = bytes.fromhex("20010db8 aaaa0000 00000000 00000003")
OTHER_HOME = bytes.fromhex("20010db8 bbbb0000 00000000 00000004")
VIA_RH2 = bytes.fromhex("20010db8 cccc0000 00000000 00000005")
OTHER_RH2 = bytes.fromhex("20010db8 dddd0000 00000000 00000006")
PORTS = bytes.fromhex("1122 3344")
L4 = PORTS + bytes(16)  # TCP or UDP: both begin with the ports

TCP, UDP, SCTP, ICMP, GRE, ICMPV6 = 6, 17, 132, 1, 47, 58
HBH, RH, FRAG, ESP, AH, NONE, DSTOPTS, MH, HIP, SHIM6 = 0, 43, 44, 50, 51, 59, 60, 135, 139, 140


def ethernet(ethertype: int, payload: bytes, *tags: int) -> bytes:
    """``tags``: the TPIDs of VLAN tags, outermost first; each tag has TCI 0x0064."""
    frame = MACS
    for tpid in tags:
        frame += tpid.to_bytes(2, "big") + bytes.fromhex("0064")
    return frame + ethertype.to_bytes(2, "big") + payload


def ipv4(
    protocol: int,
    payload: bytes,
    *tags: int,
    ihl: int = 5,
    version: int = 4,
    flags_and_offset: int = 0,
    total_length: int = 0,
) -> bytes:
    """A frame with an IPv4 packet; options (``ihl`` above 5) are no-operations."""
    header = bytes([version << 4 | ihl, 0])
    header += total_length.to_bytes(2, "big") + bytes(2)
    header += flags_and_offset.to_bytes(2, "big")
    header += bytes([64, protocol, 0, 0]) + SRC4 + DST4
    return ethernet(0x0800, header + b"\1" * 4 * max(ihl - 5, 0) + payload, *tags)


def ipv6(next_header: int, payload: bytes, *tags: int, version: int = 6) -> bytes:
    """A frame with an IPv6 packet, whose payload length field is always 0."""
    header = bytes([version << 4, 0, 0, 0, 0, 0, next_header, 64]) + SRC6 + DST6
    return ethernet(0x86DD, header + payload, *tags)


def extension(next_header: int, body: bytes = bytes(6), length: int | None = None) -> bytes:
    """An extension header: ``body`` follows the length byte, which is right unless given."""
    assert (2 + len(body)) % 8 == 0
    computed = (2 + len(body)) // 8 - 1
    return bytes([next_header, computed if length is None else length]) + body


def options(next_header: int, *tlvs: bytes) -> bytes:
    """Hop-by-hop or destination options; filled up with one PadN option, or Pad1 for one byte."""
    body = b"".join(tlvs)
    missing = -(2 + len(body)) % 8
    if missing == 1:
        body += bytes(1)
    elif missing:
        body += bytes([1, missing - 2]) + bytes(missing - 2)
    return extension(next_header, body)


def home_address(address: bytes = HOME, length: int | None = None) -> bytes:
    """The Home Address destination option."""
    return bytes([201, len(address) if length is None else length]) + address


def routing(
    next_header: int,
    address: bytes,
    kind: int = 2,
    segments_left: int = 1,
    length: int | None = None,
) -> bytes:
    """A routing header with one address."""
    return extension(next_header, bytes([kind, segments_left, 0, 0, 0, 0]) + address, length)


def fragment(next_header: int, offset_and_more: int = 0) -> bytes:
    """A Fragment header; 0: atomic."""
    return bytes([next_header, 0]) + offset_and_more.to_bytes(2, "big") + bytes(4)


def authentication(next_header: int, icv_words: int = 3) -> bytes:
    """An AH: 12 fixed bytes and ``icv_words`` × 4 bytes of check value."""
    return bytes([next_header, icv_words + 1]) + bytes(10 + 4 * icv_words)


# Microsoft's published RSS verification suite:
# (destination, its port, source, its port, hash of the addresses, hash with TCP ports).
MICROSOFT_VECTORS = [
    ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x323E8FC2, 0x51CCC178),
    ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xD718262A, 0xC626B0EA),
    ("12.22.207.184", 38024, "24.19.198.95", 12898, 0xD2D0A5DE, 0x5C2B394A),
    ("209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xAFC7327F),
    ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x5D1809C5, 0x10E828A2),
    ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2CC18CD5, 0x40207D3D),
    ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0F0C461C, 0xDDE51BBF),
    (
        "fe80::200:f8ff:fe21:67cf",
        38024,
        "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
        44251,
        0x4B61E985,
        0x02D1FEEF,
    ),
]


def tcp_frame(destination: str, dport: int, source: str, sport: int) -> bytes:
    """An unchecksummed TCP segment between two addresses of one IP version."""
    saddr, daddr = ip_address(source).packed, ip_address(destination).packed
    l4 = sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + bytes(16)
    if len(saddr) == 4:
        return ipv4(TCP, l4).replace(SRC4 + DST4, saddr + daddr)
    return ipv6(TCP, l4).replace(SRC6 + DST6, saddr + daddr)
