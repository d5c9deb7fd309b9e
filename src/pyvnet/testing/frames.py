# SPDX-License-Identifier: MIT
"""Ethernet frames from plain values, well-formed or wrong in one chosen place.

    frame = build(Ipv4("192.0.2.1", "192.0.2.2"), tcp(1024, 80), vlans=[Vlan(7)])
    frame = build(Ipv6(extensions=[destination_options(home_address("2001:db8::9"))]), udp(1, 2))

Lengths and checksums are right unless a keyword says otherwise.  ``Frame.fields`` names
every byte, so that a test can cut a frame inside a given header field.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

from pyvnet.testing._checksum import crc32c, internet_checksum

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_IPV6: Final = 0x86DD
VLAN_TPIDS: Final = (0x8100, 0x88A8, 0x9100)

HOPOPTS: Final = 0
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ROUTING: Final = 43
FRAGMENT: Final = 44
ESP: Final = 50
AH: Final = 51
ICMPV6: Final = 58
NO_NEXT_HEADER: Final = 59
DSTOPTS: Final = 60
SCTP: Final = 132
MOBILITY: Final = 135
HIP: Final = 139
SHIM6: Final = 140

HEADER_NAMES: Final = {
    HOPOPTS: "hopopts", ROUTING: "routing", FRAGMENT: "fragment", ESP: "esp", AH: "ah",
    NO_NEXT_HEADER: "none", DSTOPTS: "dstopts", MOBILITY: "mobility", HIP: "hip", SHIM6: "shim6",
}  # fmt: skip

OPTION_HOME_ADDRESS: Final = 201
PAD1: Final = b"\0"

Address: TypeAlias = str | bytes
# Field names and sizes in the order they lie in a header.
Layout: TypeAlias = tuple[tuple[str, int], ...]

_IPV4_LAYOUT: Final[Layout] = (
    ("ipv4.version_ihl", 1), ("ipv4.tos", 1), ("ipv4.total_length", 2), ("ipv4.id", 2),
    ("ipv4.fragment", 2), ("ipv4.ttl", 1), ("ipv4.protocol", 1), ("ipv4.checksum", 2),
    ("ipv4.src", 4), ("ipv4.dst", 4),
)  # fmt: skip
_IPV6_LAYOUT: Final[Layout] = (
    ("ipv6.version", 4), ("ipv6.payload_length", 2), ("ipv6.next_header", 1),
    ("ipv6.hop_limit", 1), ("ipv6.src", 16), ("ipv6.dst", 16),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame and the names of its bytes."""

    data: bytes
    layout: Layout

    def __bytes__(self) -> bytes:
        return self.data

    def __len__(self) -> int:
        return len(self.data)

    def fields(self) -> Iterator[tuple[str, int, int]]:
        """Name, first byte and end of each field; together they cover the frame."""
        start = 0
        for name, size in self.layout:
            yield name, start, start + size
            start += size

    def span(self, name: str) -> tuple[int, int]:
        """First byte and end of the first field of that name; KeyError if there is none."""
        for field, start, end in self.fields():
            if field == name:
                return start, end
        raise KeyError(name)

    def field_at(self, offset: int) -> str | None:
        """Name of the field the byte lies in; None at and beyond the end."""
        for name, start, end in self.fields():
            if start <= offset < end:
                return name
        return None


@dataclass(frozen=True, slots=True)
class Vlan:
    """One tag; tags are given outermost first."""

    vid: int = 1
    pcp: int = 0
    dei: int = 0
    tpid: int = 0x8100

    @property
    def tci(self) -> int:
        """Tag control information."""
        return self.pcp << 13 | self.dei << 12 | self.vid


@dataclass(frozen=True, slots=True)
class Ipv4:
    """An IPv4 header; ``ihl``, ``version`` and ``total_length`` may be set to lies."""

    src: Address = "192.0.2.1"
    dst: Address = "198.51.100.2"
    options: bytes = b""
    offset: int = 0  # of a fragment, in units of 8 bytes
    more_fragments: bool = False
    dont_fragment: bool = False
    identification: int = 0
    ttl: int = 64
    ihl: int | None = None
    version: int = 4
    total_length: int | None = None


@dataclass(frozen=True, slots=True)
class Extension:
    """An IPv6 extension header; byte 0 of ``data`` is filled in when the chain is built."""

    kind: int
    data: bytes
    # What replaces an address of the base header in the upper-layer checksum.
    home: bytes | None = None
    final: bytes | None = None

    @property
    def name(self) -> str:
        """As in field names: ``hopopts`` and so on."""
        return HEADER_NAMES.get(self.kind, f"header{self.kind}")


@dataclass(frozen=True, slots=True)
class Ipv6:
    """An IPv6 header and its chain; ``version`` and ``payload_length`` may be set to lies."""

    src: Address = "2001:db8::1"
    dst: Address = "2001:db8:1::2"
    extensions: Sequence[Extension] = ()
    hop_limit: int = 64
    flow_label: int = 0
    version: int = 6
    payload_length: int | None = None


@dataclass(frozen=True, slots=True)
class L4:
    """What follows the IP headers.  ``protocol`` None: ICMP of the IP version at hand."""

    protocol: int | None
    data: bytes
    layout: Layout
    checksum_at: int | None = None


def address(value: Address) -> bytes:
    """Bytes of an IP address given as text or as bytes."""
    return value if isinstance(value, bytes) else ipaddress.ip_address(value).packed


# --- upper layers ---------------------------------------------------------------


def _with_ports(
    name: str, sport: int, dport: int, rest: bytes, payload: bytes
) -> tuple[bytes, Layout]:
    layout = ((f"{name}.sport", 2), (f"{name}.dport", 2), (f"{name}.rest", len(rest)))
    return struct.pack(">HH", sport, dport) + rest + payload, (*layout, ("payload", len(payload)))


def tcp(sport: int = 1024, dport: int = 80, payload: bytes = b"", flags: int = 0x10) -> L4:
    """A TCP header without options; ``flags`` is an ACK unless given."""
    rest = struct.pack(">IIBBHHH", 1, 0, 5 << 4, flags, 65535, 0, 0)
    data, layout = _with_ports("tcp", sport, dport, rest, payload)
    return L4(TCP, data, layout, checksum_at=16)


def udp(sport: int = 1024, dport: int = 53, payload: bytes = b"") -> L4:
    """A UDP datagram."""
    rest = struct.pack(">HH", 8 + len(payload), 0)
    data, layout = _with_ports("udp", sport, dport, rest, payload)
    return L4(UDP, data, layout, checksum_at=6)


def icmp(kind: int = 8, code: int = 0, payload: bytes = b"") -> L4:
    """ICMP over IPv4, ICMPv6 over IPv6; an echo request is ``kind`` 8 and 128."""
    data = bytes([kind, code]) + bytes(6) + payload
    return L4(None, data, (("icmp.header", 8), ("payload", len(payload))), checksum_at=2)


def sctp(sport: int = 1024, dport: int = 9, payload: bytes = b"") -> L4:
    """An SCTP common header and chunks as given."""
    data, layout = _with_ports("sctp", sport, dport, bytes(8), payload)
    crc = crc32c(data)
    return L4(SCTP, data[:8] + struct.pack("<I", crc) + data[12:], layout)


def other(protocol: int, payload: bytes = b"") -> L4:
    """Any other protocol, its header part of the payload."""
    return L4(protocol, payload, (("payload", len(payload)),))


# --- IPv6 extension headers -----------------------------------------------------


def option(kind: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    """One TLV; ``length`` may be set to a lie.  Pad1 has no length: ``PAD1``."""
    return bytes([kind, len(data) if length is None else length]) + data


def padn(size: int) -> bytes:
    """A PadN option of ``size`` ≥ 2 bytes in all."""
    return option(1, bytes(size - 2))


def home_address(value: Address) -> bytes:
    """The Home Address option (RFC 6275 6.3), for destination options."""
    return option(OPTION_HOME_ADDRESS, address(value))


def extension(kind: int, body: bytes = b"", *, length: int | None = None) -> Extension:
    """Any header of the common form; ``body`` follows the length byte and is padded.

    ``length`` may be set to a lie.  AH counts in units of 4 bytes, the others of 8.
    """
    unit = 4 if kind == AH else 8
    data = bytes(2) + body
    data += bytes(max(-len(data) % unit, 8 - len(data)))
    if length is None:
        length = len(data) // 4 - 2 if kind == AH else len(data) // 8 - 1
    return Extension(kind, bytes([0, length]) + data[2:])


def options_header(kind: int, *options: bytes) -> Extension:
    """Hop-by-hop or destination options, padded to a multiple of 8 bytes."""
    body = b"".join(options)
    missing = -(2 + len(body)) % 8
    if missing == 1:
        body += PAD1
    elif missing:
        body += padn(missing)
    home = next((o[2:] for o in options if o[:2] == bytes([OPTION_HOME_ADDRESS, 16])), None)
    header = extension(kind, body or padn(6))
    return Extension(kind, header.data, home=home if kind == DSTOPTS else None)


def hop_by_hop(*options: bytes) -> Extension:
    """Hop-by-Hop Options header."""
    return options_header(HOPOPTS, *options)


def destination_options(*options: bytes) -> Extension:
    """Destination Options header."""
    return options_header(DSTOPTS, *options)


def routing(kind: int, segments_left: int, data: bytes = bytes(4)) -> Extension:
    """Routing header; ``data`` follows the segments left."""
    return extension(ROUTING, bytes([kind, segments_left]) + data)


def routing_type2(
    value: Address, *, segments_left: int = 1, length: int | None = None
) -> Extension:
    """Routing header type 2 (RFC 6275 6.4); valid with one segment left and length 2."""
    home = address(value)
    body = bytes([2, segments_left]) + bytes(4) + home
    valid = segments_left == 1 and length in (None, 2)
    header = extension(ROUTING, body, length=length)
    return Extension(ROUTING, header.data, final=home if valid else None)


def fragment_header(offset: int = 0, *, more: bool = False, identification: int = 0) -> Extension:
    """Fragment header; ``offset`` in units of 8 bytes.  Atomic if neither is given."""
    return Extension(FRAGMENT, struct.pack(">xxHI", offset << 3 | more, identification))


def esp(spi: int = 1, sequence: int = 1) -> Extension:
    """ESP: what follows stands for the encrypted rest."""
    return Extension(ESP, struct.pack(">II", spi, sequence))


def no_next_header() -> Extension:
    """No Next Header: nothing that follows means anything."""
    return Extension(NO_NEXT_HEADER, b"")


# --- putting together -----------------------------------------------------------


def ethernet(
    ethertype: int,
    payload: bytes = b"",
    *,
    vlans: Sequence[Vlan] = (),
    dst: str = "02:00:00:00:00:01",
    src: str = "02:00:00:00:00:02",
    layout: Layout | None = None,
) -> Frame:
    """An Ethernet frame with any payload, whose fields ``layout`` may name."""
    data = bytes.fromhex((dst + src).replace(":", ""))
    names: list[tuple[str, int]] = [("eth.dst", 6), ("eth.src", 6), ("eth.type", 2)]
    for tag in vlans:
        data += struct.pack(">HH", tag.tpid, tag.tci)
        names += ("vlan.tci", 2), ("vlan.type", 2)
    data += struct.pack(">H", ethertype) + payload
    return Frame(data, (*names, *(layout or (("payload", len(payload)),))))


def build(
    ip: Ipv4 | Ipv6,
    l4: L4,
    *,
    vlans: Sequence[Vlan] = (),
    checksums: bool = True,
    dst: str = "02:00:00:00:00:01",
    src: str = "02:00:00:00:00:02",
) -> Frame:
    """An IP packet in an Ethernet frame; ``checksums`` False leaves those of L4 zero."""
    if isinstance(ip, Ipv4):
        ethertype, (header, layout) = ETHERTYPE_IPV4, _ipv4(ip, l4)
    else:
        ethertype, (header, layout) = ETHERTYPE_IPV6, _ipv6(ip, l4)
    payload = _checksummed(ip, l4) if checksums else l4.data
    layout = (*layout, *l4.layout)
    return ethernet(ethertype, header + payload, vlans=vlans, dst=dst, src=src, layout=layout)


def _protocol(ip: Ipv4 | Ipv6, l4: L4) -> int:
    if l4.protocol is not None:
        return l4.protocol
    return ICMP if isinstance(ip, Ipv4) else ICMPV6


def _ipv4(ip: Ipv4, l4: L4) -> tuple[bytes, Layout]:
    options = ip.options + bytes(-len(ip.options) % 4)
    ihl = 5 + len(options) // 4 if ip.ihl is None else ip.ihl
    total = 20 + len(options) + len(l4.data) if ip.total_length is None else ip.total_length
    fragment = ip.dont_fragment << 14 | ip.more_fragments << 13 | ip.offset
    head = struct.pack(
        ">BBHHHBBH", ip.version << 4 | ihl, 0, total & 0xFFFF, ip.identification, fragment,
        ip.ttl, _protocol(ip, l4), 0,
    )  # fmt: skip
    data = head + address(ip.src) + address(ip.dst) + options
    data = data[:10] + struct.pack(">H", internet_checksum(data)) + data[12:]
    return data, (*_IPV4_LAYOUT, ("ipv4.options", len(options)))


def _ipv6(ip: Ipv6, l4: L4) -> tuple[bytes, Layout]:
    kinds = [header.kind for header in ip.extensions] + [_protocol(ip, l4)]
    chain = b""
    layout = list(_IPV6_LAYOUT)
    for header, (_, following) in zip(ip.extensions, pairwise(kinds), strict=True):
        name = header.name
        if header.kind in (ESP, NO_NEXT_HEADER):
            chain += header.data
            layout.append((f"{name}.body", len(header.data)))
            continue
        chain += bytes([following]) + header.data[1:]
        layout += (f"{name}.next_header", 1), (f"{name}.length", 1)
        layout.append((f"{name}.body", len(header.data) - 2))
    length = len(chain) + len(l4.data) if ip.payload_length is None else ip.payload_length
    head = struct.pack(
        ">IHBB", ip.version << 28 | ip.flow_label, length & 0xFFFF, kinds[0], ip.hop_limit
    )
    return head + address(ip.src) + address(ip.dst) + chain, tuple(layout)


def _checksummed(ip: Ipv4 | Ipv6, l4: L4) -> bytes:
    at = l4.checksum_at
    if at is None:
        return l4.data
    pseudo = b""
    if isinstance(ip, Ipv6):
        src = next((h.home for h in ip.extensions if h.home), address(ip.src))
        dst = next((h.final for h in ip.extensions if h.final), address(ip.dst))
        pseudo = src + dst + struct.pack(">II", len(l4.data), _protocol(ip, l4))
    elif l4.protocol is not None:
        pseudo = address(ip.src) + address(ip.dst) + struct.pack(">HH", l4.protocol, len(l4.data))
    value = internet_checksum(pseudo + l4.data)
    if l4.protocol == UDP and not value:
        value = 0xFFFF  # 0 would say "none"
    return l4.data[:at] + struct.pack(">H", value) + l4.data[at + 2 :]
