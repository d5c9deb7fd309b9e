# SPDX-License-Identifier: MIT
"""Named frames for the cases about hashing: a kind each, and each a flow of its own.

Who looks at a report needs no more than the bytes to know what it should be, so
frames are found again by their bytes: no two of a group are the same.  They are
made once; a suite is run many times where it is itself put to the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Final

from pyvnet.testing.frames import (
    AH,
    HIP,
    MOBILITY,
    SHIM6,
    Frame,
    Ipv4,
    Ipv6,
    Vlan,
    build,
    destination_options,
    esp,
    ethernet,
    extension,
    fragment_header,
    home_address,
    hop_by_hop,
    icmp,
    no_next_header,
    option,
    other,
    padn,
    routing,
    routing_type2,
    sctp,
    tcp,
    udp,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.testing.frames import L4, Extension

HOME: Final = "2001:db8:a::5a5a"
ROUTED: Final = "2001:db8:b::c3c3"

Group = Mapping[str, bytes]


@cache
def flow(number: int, size: int = 0) -> bytes:
    """A frame of the flow of that number: TCP and UDP, IPv4 and IPv6 in turn.

    ``size`` bytes of payload say which frame of the flow it is, if that matters.
    """
    make = udp if number & 2 else tcp
    payload = bytes((number + i) & 0xFF for i in range(size))
    l4 = make(1024 + 37 * number, 80 + number, payload)
    if number & 1:
        return bytes(build(Ipv6(f"2001:db8::{number + 1:x}"), l4))
    return bytes(build(Ipv4(f"192.0.2.{number % 250 + 1}"), l4))


def flows(count: int) -> list[bytes]:
    """Frames of as many flows."""
    return [flow(number) for number in range(count)]


def _bytes(group: Mapping[str, Frame | bytes]) -> Group:
    return {name: bytes(frame) for name, frame in group.items()}


def _v4(l4: L4, **fields: object) -> Frame:
    return build(Ipv4("192.0.2.130", "198.51.100.77", **fields), l4)  # type: ignore[arg-type]


def _v6(l4: L4, *chain: Extension) -> Frame:
    return build(Ipv6("2001:db8:1::82", "2001:db8:2::4d", chain), l4)


@cache
def ipv4() -> Group:
    """IPv4 whose transport header, if any, can be read; no fragments."""
    return _bytes(
        {
            "TCP": _v4(tcp(40001, 80)),
            "TCP with payload": _v4(tcp(40002, 443, b"payload")),
            "TCP, ports that differ in their high bytes": _v4(tcp(0x1200, 0x3400)),
            "UDP": _v4(udp(40003, 53)),
            "UDP without payload, ports swapped": _v4(udp(53, 40003)),
            "ICMP": _v4(icmp(payload=b"echo")),
            "SCTP": _v4(sctp(40004, 9)),
            "another protocol": _v4(other(47, b"\0\0\x08\0gre")),
            "IPv4 in IPv4": _v4(
                other(4, bytes(build(Ipv4("192.0.2.1", "192.0.2.2"), tcp(5, 6)))[14:])
            ),
            "TCP behind 4 bytes of options": _v4(tcp(40005, 80), options=b"\x94\x04\0\0"),
            "UDP behind 40 bytes of options": _v4(udp(40006, 53), options=bytes([1]) * 40),
            "UDP not to be fragmented": _v4(udp(40007, 53), dont_fragment=True),
            "TCP from and to other addresses": build(
                Ipv4("203.0.113.9", "10.1.2.3"), tcp(40008, 80)
            ),
        }
    )


@cache
def ipv6() -> Group:
    """IPv6 without extension headers."""
    return _bytes(
        {
            "TCP": _v6(tcp(41001, 80)),
            "TCP with payload": _v6(tcp(41002, 443, b"payload")),
            "UDP": _v6(udp(41003, 53)),
            "UDP, ports swapped": _v6(udp(53, 41003)),
            "ICMPv6": _v6(icmp(128, payload=b"echo")),
            "SCTP": _v6(sctp(41004, 9)),
            "TCP from and to other addresses": build(
                Ipv6("fe80::1234:5678:9abc:def0", "fd00:1:2:3:4:5:6:7"), tcp(41005, 80)
            ),
        }
    )


@cache
def extended() -> Group:
    """IPv6 with the headers the standard speaks of: options, home address, routing type 2."""
    home = destination_options(home_address(HOME))
    routed = routing_type2(ROUTED)
    return _bytes(
        {
            "TCP behind hop-by-hop options": _v6(tcp(42001, 80), hop_by_hop()),
            "UDP behind hop-by-hop options": _v6(udp(42002, 53), hop_by_hop()),
            "ICMPv6 behind hop-by-hop options": _v6(icmp(128, payload=b"hop"), hop_by_hop()),
            "TCP behind destination options": _v6(tcp(42003, 80), destination_options()),
            "TCP with a home address": _v6(tcp(42004, 80), home),
            "UDP with a home address": _v6(udp(42005, 53), home),
            "ICMPv6 with a home address": _v6(icmp(128, payload=b"home"), home),
            "TCP with a home address behind padding": _v6(
                tcp(42006, 80), destination_options(padn(4), home_address(HOME))
            ),
            "TCP behind a routing header of type 2": _v6(tcp(42007, 80), routed),
            "UDP behind a routing header of type 2": _v6(udp(42008, 53), routed),
            "ICMPv6 behind a routing header of type 2": _v6(icmp(128, payload=b"rh"), routed),
            "TCP with both addresses": _v6(tcp(42009, 80), home, routed),
            "UDP with both addresses behind options": _v6(
                udp(42010, 53), hop_by_hop(), routed, home
            ),
            "UDP behind another routing header": _v6(
                udp(42011, 53), routing(0, 1, bytes(4) + bytes(16))
            ),
        }
    )


@cache
def other_headers() -> Group:
    """IPv6 with headers of which the standard does not say whether they count as extensions."""
    return _bytes(
        {
            "TCP behind AH": _v6(tcp(43001, 80), extension(AH, bytes(22))),
            "UDP behind a mobility header": _v6(udp(43002, 53), extension(MOBILITY, bytes(14))),
            "TCP behind HIP": _v6(tcp(43003, 80), extension(HIP, bytes(38))),
            "UDP behind Shim6": _v6(udp(43004, 53), extension(SHIM6, bytes(6))),
            "ESP": _v6(other(6, b"sealed"), esp(1, 43005)),
            "ESP behind options": _v6(other(6, b"sealed"), hop_by_hop(), esp(1, 43006)),
            "no next header": _v6(other(59, b"nothing"), no_next_header()),
        }
    )


@cache
def invalid_addresses() -> Group:
    """IPv6 whose home address or routing header is none that may be used."""
    misplaced = hop_by_hop(home_address(HOME))
    short = destination_options(option(201, bytes(8)))
    return _bytes(
        {
            "a home address in hop-by-hop options": _v6(tcp(44001, 80), misplaced),
            "a home address of 8 bytes": _v6(tcp(44002, 80), short),
            "type 2 with no segments left": _v6(
                udp(44003, 53), routing_type2(ROUTED, segments_left=0)
            ),
            "type 2 of 40 bytes": _v6(udp(44004, 53), routing(2, 1, bytes(4) + bytes(32))),
            "type 2 of 16 bytes": _v6(tcp(44005, 80), routing(2, 1, bytes(12))),
        }
    )


@cache
def fragments() -> Group:
    """Fragments of both versions; the first ones carry ports."""
    return _bytes(
        {
            "first, IPv4": _v4(udp(45001, 53, bytes(16)), more_fragments=True),
            "first, IPv4 TCP": _v4(tcp(45002, 80, bytes(16)), more_fragments=True),
            "middle, IPv4": _v4(udp(45003, 53, bytes(16)), more_fragments=True, offset=3),
            "last, IPv4": _v4(udp(45004, 53, bytes(16)), offset=185),
            "atomic, IPv6": _v6(tcp(45005, 80), fragment_header()),
            "first, IPv6": _v6(udp(45006, 53, bytes(16)), fragment_header(more=True)),
            "last, IPv6": _v6(udp(45007, 53, bytes(16)), fragment_header(185)),
            "first, IPv6 with a home address": _v6(
                tcp(45008, 80),
                destination_options(home_address(HOME)),
                fragment_header(more=True),
            ),
        }
    )


@cache
def cut_short() -> Group:
    """Frames that end inside a header, and such as lie about their lengths."""
    v4, v6 = _v4(tcp(46001, 80)), _v6(udp(46002, 53))
    chain = _v6(tcp(46003, 80), hop_by_hop(), destination_options(home_address(HOME)))
    return _bytes(
        {
            "IPv4 without ports": v4.data[:34],
            "IPv4 with half a port": v4.data[:35],
            "IPv4 with ports and no more": v4.data[:38],
            "IPv4 cut inside its header": v4.data[:33],
            "IPv6 with a port missing": v6.data[:57],
            "IPv6 with ports and no more": v6.data[:58],
            "IPv6 cut inside its header": v6.data[:53],
            "a chain without ports": chain.data[: chain.span("tcp.sport")[0]],
            "a chain cut inside a header": chain.data[: chain.span("dstopts.body")[0] + 3],
            "header length below 5": _v4(tcp(46004, 80), ihl=4),
            "header length beyond the frame": _v4(udp(46005, 53), ihl=15),
            "version 6 in IPv4": _v4(tcp(46006, 80), version=6),
            "version 4 in IPv6": build(Ipv6(version=4), tcp(46007, 80)),
            "a total length of 0": _v4(tcp(46008, 80), total_length=0),
        }
    )


@cache
def long_chains() -> Group:
    """IPv6 chains at the bounds: 16 headers, 64 options, 1024 bytes."""

    def chain(count: int) -> Sequence[Extension]:
        return [destination_options() for _ in range(count)]

    def options(count: int) -> Extension:
        return extension(60, b"\0" * count)

    def end_at(end: int) -> Extension:
        return extension(HIP, bytes(end - 54 - 2))

    return _bytes(
        {
            "16 headers": _v6(tcp(47001, 80), *chain(16)),
            "17 headers": _v6(tcp(47002, 80), *chain(17)),
            "62 options": _v6(udp(47003, 53), options(62)),
            "70 options": _v6(udp(47004, 53), options(70)),
            "ports inside the first 1024 bytes": _v6(tcp(47005, 80), end_at(1014)),
            "ports behind the first 1024 bytes": _v6(tcp(47006, 80), end_at(1030)),
        }
    )


@cache
def tagged() -> Group:
    """One, two and three VLAN tags."""

    def tags(*tpids: int) -> list[Vlan]:
        return [Vlan(5 + i, pcp=3, tpid=tpid) for i, tpid in enumerate(tpids)]

    v4, v6 = Ipv4("192.0.2.130", "198.51.100.77"), Ipv6("2001:db8:1::82", "2001:db8:2::4d")
    return _bytes(
        {
            "one tag": build(v4, tcp(48001, 80), vlans=tags(0x8100)),
            "one tag, IPv6": build(v6, udp(48002, 53), vlans=tags(0x8100)),
            "one provider tag": build(v4, udp(48003, 53), vlans=tags(0x88A8)),
            "two tags": build(v6, tcp(48004, 80), vlans=tags(0x88A8, 0x8100)),
            "two tags of one kind": build(v4, tcp(48005, 80), vlans=tags(0x8100, 0x8100)),
            "an old provider tag": build(v4, tcp(48006, 80), vlans=tags(0x9100)),
            "three tags": build(v4, tcp(48007, 80), vlans=tags(0x88A8, 0x8100, 0x8100)),
            "a tag and no IP": ethernet(0x0806, bytes(28), vlans=tags(0x8100)),
        }
    )


@cache
def not_ip() -> Group:
    """What no hash type is for."""
    ip = _v4(tcp(49001, 80)).data[14:]
    return _bytes(
        {
            "ARP": ethernet(0x0806, b"\0\1\x08\0\6\4\0\1" + bytes(range(20))),
            "LLDP": ethernet(0x88CC, bytes(range(46))),
            "an unknown EtherType": ethernet(0x88B5, ip),
            "802.3 with LLC": ethernet(46, b"\x42\x42\3" + bytes(43)),
        }
    )


@cache
def encapsulated() -> Group:
    """IP in what is neither IP nor a VLAN tag."""
    ip = _v4(tcp(49002, 80)).data[14:]
    return _bytes(
        {
            "PPPoE": ethernet(0x8864, b"\x11\0\0\1" + (len(ip) + 2).to_bytes(2) + b"\0\x21" + ip),
            "MPLS": ethernet(0x8847, b"\0\1\x01\x40" + ip),
        }
    )
