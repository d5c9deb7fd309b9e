# SPDX-License-Identifier: MIT
"""Frame bytes to the fields that RSS hashes: slow, obvious, a total function.

Theory of operation
    A frame is read from the destination MAC on, VLAN tags are skipped (U-25),
    and an IPv4 or IPv6 header is looked for.  Every header must lie wholly
    inside the frame *and* inside its first ``WINDOW`` bytes (U-21); one that
    does not is "cut off".  What counts is the bytes of the frame: neither IPv4
    ``total_length`` nor IPv6 ``payload_length`` is looked at, so Ethernet
    padding counts as bytes of the packet, and a wrong length field changes
    nothing.

    "No IP" (``l3 == 0``) means that nothing of the frame can be hashed.  "No
    L4" (``l4 == 0``) means that only the addresses can be.

    The IPv6 walk counts headers and options over the whole packet, whatever
    header the options are in (U-21).  What it found before it stopped stays
    found: a home address in front of a broken header is still used.

This is an independent reading of the standard: it imports nothing of the
device and nothing of C, and it is compared with both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ETHERNET_HEADER: Final = 14
VLAN_TPIDS: Final = frozenset({0x8100, 0x88A8, 0x9100})
MAX_VLAN_TAGS: Final = 2
ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_IPV6: Final = 0x86DD

TCP: Final = 6
UDP: Final = 17
PORTS: Final = 4
"""Bytes of an L4 header that must be in the frame for it to count (U-24)."""

HBH: Final = 0
RH: Final = 43
FRAG: Final = 44
ESP: Final = 50
AH: Final = 51
NONE: Final = 59
DSTOPTS: Final = 60
MH: Final = 135
HIP: Final = 139
SHIM6: Final = 140
EXTENSION_HEADERS: Final = frozenset({HBH, RH, FRAG, AH, DSTOPTS, MH, HIP, SHIM6})

WINDOW: Final = 1024
MAX_HEADERS: Final = 16
MAX_OPTIONS: Final = 64

OPTION_PAD1: Final = 0
OPTION_HOME_ADDRESS: Final = 201
ROUTING_TYPE_2: Final = 2
ADDRESS_V6: Final = 16


@dataclass(frozen=True, slots=True)
class Flow:
    """What a frame says about the flow it belongs to.

    ``l3`` is 4, 6, or 0 for "no hash"; ``l4`` is 6 (TCP), 17 (UDP), or 0 for
    "no ports".  Addresses are raw bytes in network order, 4 or 16 of them;
    ``saddr_ex`` and ``daddr_ex`` are what the EX hash types take: the home
    address and the type 2 routing header's address where the packet has valid
    ones (NET-HASH-07, U-22), else equal to ``saddr`` and ``daddr``.
    ``has_extensions`` says that at least one IPv6 extension header (U-20) was
    wholly seen.  ``l4_offset`` is where in the frame the L4 header begins, 0
    without one.  ``ethertype`` is the one behind the VLAN tags.  ``why`` says in
    words what kept the frame from having an L3 or an L4; it is for people, and
    empty when the ports were found.
    """

    l3: int = 0
    l4: int = 0
    has_extensions: bool = False
    vlan_count: int = 0
    ethertype: int = 0
    saddr: bytes = b""
    daddr: bytes = b""
    saddr_ex: bytes = b""
    daddr_ex: bytes = b""
    sport: int = 0
    dport: int = 0
    l4_offset: int = 0
    why: str = ""


@dataclass(slots=True)
class _Chain:
    """How far the walk over the IPv6 extension headers has come."""

    next_header: int
    offset: int
    headers: int = 0
    options: int = 0
    home_address: bytes | None = None
    routing_address: bytes | None = None
    why: str = ""


def parse(frame: bytes) -> Flow:
    """Read ``frame``, which begins with the destination MAC.

    Never raises: any byte string, the empty one included, has a Flow.  See
    U-20 to U-27 and U-29.
    """
    seen = frame[:WINDOW]
    if len(seen) < ETHERNET_HEADER:
        return Flow(why="shorter than an Ethernet header")
    offset = ETHERNET_HEADER
    ethertype = _u16(seen, offset - 2)
    vlan_count = 0
    while ethertype in VLAN_TPIDS:
        if vlan_count == MAX_VLAN_TAGS:
            return Flow(vlan_count=vlan_count, ethertype=ethertype, why="more than two VLAN tags")
        if offset + 4 > len(seen):
            return Flow(vlan_count=vlan_count, ethertype=ethertype, why="VLAN tag cut short")
        vlan_count += 1
        ethertype = _u16(seen, offset + 2)
        offset += 4
    if ethertype == ETHERTYPE_IPV4:
        return _ipv4(seen, offset, vlan_count)
    if ethertype == ETHERTYPE_IPV6:
        return _ipv6(seen, offset, vlan_count)
    return Flow(vlan_count=vlan_count, ethertype=ethertype, why=f"EtherType 0x{ethertype:04x}")


def _ipv4(seen: bytes, start: int, vlan_count: int) -> Flow:
    no_hash = ""
    if start + 20 > len(seen):
        no_hash = "IPv4 header cut short"
    elif seen[start] >> 4 != 4:
        no_hash = "IP version is not 4"
    elif seen[start] & 15 < 5:
        no_hash = "IPv4 header length below 5"
    elif start + (seen[start] & 15) * 4 > len(seen):
        no_hash = "IPv4 options cut short"
    if no_hash:
        return Flow(vlan_count=vlan_count, ethertype=ETHERTYPE_IPV4, why=no_hash)
    offset = start + (seen[start] & 15) * 4
    more_fragments = seen[start + 6] & 0x20 != 0
    fragment_offset = _u16(seen, start + 6) & 0x1FFF
    if more_fragments or fragment_offset != 0:
        l4, sport, dport, why = 0, 0, 0, "fragment"
    else:
        l4, sport, dport, why = _l4(seen, offset, seen[start + 9])
    saddr = seen[start + 12 : start + 16]
    daddr = seen[start + 16 : start + 20]
    return Flow(
        l3=4,
        l4=l4,
        vlan_count=vlan_count,
        ethertype=ETHERTYPE_IPV4,
        saddr=saddr,
        daddr=daddr,
        saddr_ex=saddr,
        daddr_ex=daddr,
        sport=sport,
        dport=dport,
        l4_offset=offset if l4 else 0,
        why=why,
    )


def _ipv6(seen: bytes, start: int, vlan_count: int) -> Flow:
    no_hash = ""
    if start + 40 > len(seen):
        no_hash = "IPv6 header cut short"
    elif seen[start] >> 4 != 6:
        no_hash = "IP version is not 6"
    if no_hash:
        return Flow(vlan_count=vlan_count, ethertype=ETHERTYPE_IPV6, why=no_hash)
    saddr = seen[start + 8 : start + 24]
    daddr = seen[start + 24 : start + 40]
    chain = _Chain(next_header=seen[start + 6], offset=start + 40)
    while chain.why == "" and chain.next_header in EXTENSION_HEADERS:
        _extension_header(seen, chain)
    if chain.why:
        l4, sport, dport, why = 0, 0, 0, chain.why
    else:
        l4, sport, dport, why = _l4(seen, chain.offset, chain.next_header)
    return Flow(
        l3=6,
        l4=l4,
        has_extensions=chain.headers > 0,
        vlan_count=vlan_count,
        ethertype=ETHERTYPE_IPV6,
        saddr=saddr,
        daddr=daddr,
        saddr_ex=chain.home_address or saddr,
        daddr_ex=chain.routing_address or daddr,
        sport=sport,
        dport=dport,
        l4_offset=chain.offset if l4 else 0,
        why=why,
    )


def _extension_header(seen: bytes, chain: _Chain) -> None:
    """Take the header at ``chain.offset`` and move behind it, or say why the walk ends there."""
    if chain.headers == MAX_HEADERS:
        chain.why = f"more than {MAX_HEADERS} extension headers"
        return
    size = _extension_header_size(seen, chain)
    if size is None or chain.offset + size > len(seen):
        chain.why = "extension header cut short"
        return
    chain.headers += 1
    header = seen[chain.offset : chain.offset + size]
    if chain.next_header == FRAG:
        # U-23: no L4 in any fragment, the atomic one included.  The walk ends
        # here: of a later fragment, what follows is not a header at all.
        chain.why = "fragment"
        return
    if chain.next_header in (HBH, DSTOPTS):
        _options(header, chain)
    if chain.next_header == RH and chain.routing_address is None:
        chain.routing_address = _routing_address(header)
    chain.next_header = header[0]
    chain.offset += size


def _extension_header_size(seen: bytes, chain: _Chain) -> int | None:
    """Size in bytes of the header at ``chain.offset``; None when its length byte is cut off."""
    if chain.next_header == FRAG:
        return 8
    if chain.offset + 2 > len(seen):
        return None
    length = seen[chain.offset + 1]
    # AH counts words of 4 bytes beyond the second, all others units of 8 bytes beyond the first.
    return (length + 2) * 4 if chain.next_header == AH else (length + 1) * 8


def _options(header: bytes, chain: _Chain) -> None:
    """Read the options of a hop-by-hop or destination options header.

    Every option counts from its type byte on, padding and malformed ones
    included.  An option reaching beyond the header ends the options of this
    header; the header itself stays good, since its own length is intact.
    """
    position = 2
    while position < len(header):
        if chain.options == MAX_OPTIONS:
            chain.why = f"more than {MAX_OPTIONS} options"
            return
        chain.options += 1
        option = header[position]
        if option == OPTION_PAD1:
            position += 1
            continue
        if position + 2 > len(header):
            return
        length = header[position + 1]
        value = header[position + 2 : position + 2 + length]
        if len(value) < length:
            return
        is_home_address = option == OPTION_HOME_ADDRESS and length == ADDRESS_V6
        if is_home_address and chain.next_header == DSTOPTS and chain.home_address is None:
            chain.home_address = value
        position += 2 + length


def _routing_address(header: bytes) -> bytes | None:
    """The home address of a type 2 routing header; None when it is not a valid one (U-22)."""
    length, routing_type, segments_left = header[1], header[2], header[3]
    if (length, routing_type, segments_left) != (2, ROUTING_TYPE_2, 1):
        return None
    return header[8:24]


def _l4(seen: bytes, offset: int, protocol: int) -> tuple[int, int, int, str]:
    """(l4, sport, dport, why) of the header of ``protocol`` at ``offset``."""
    if protocol not in (TCP, UDP):
        return 0, 0, 0, f"protocol {protocol}"
    if offset + PORTS > len(seen):
        return 0, 0, 0, "L4 header cut short"
    return protocol, _u16(seen, offset), _u16(seen, offset + 2), ""


def _u16(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 2], "big")
