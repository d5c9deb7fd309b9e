# SPDX-License-Identifier: MIT
"""Any bytes as a frame, field by field, for people: names as in `frames`, values in words.

It believes what it reads and stops where nothing is left; what it cannot name
is payload.  It judges nothing: `pyvnet.reference` does.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet.reference import parse
from pyvnet.testing.frames import (
    AH,
    DSTOPTS,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    FRAGMENT,
    HEADER_NAMES,
    HIP,
    HOPOPTS,
    ICMP,
    ICMPV6,
    MOBILITY,
    ROUTING,
    SCTP,
    SHIM6,
    TCP,
    UDP,
    VLAN_TPIDS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ROW: Final = 16
"""Bytes of payload in one field."""

_PROTOCOLS: Final = {
    ICMP: "ICMP", TCP: "TCP", UDP: "UDP", ICMPV6: "ICMPv6", SCTP: "SCTP",
    **{number: name for number, name in HEADER_NAMES.items() if number},
}  # fmt: skip
_ETHERTYPES: Final = {
    ETHERTYPE_IPV4: "IPv4", ETHERTYPE_IPV6: "IPv6", 0x0806: "ARP",
    **dict.fromkeys(VLAN_TPIDS, "VLAN"),
}  # fmt: skip
_EXTENSIONS: Final = {HOPOPTS, ROUTING, FRAGMENT, AH, DSTOPTS, MOBILITY, HIP, SHIM6}


class Field(NamedTuple):
    """Some bytes of a frame; ``text`` is "" where the bytes say it all."""

    name: str
    start: int
    data: bytes
    text: str


def _number(data: bytes) -> str:
    return str(int.from_bytes(data, "big"))


def _plain(_: bytes) -> str:
    return ""


def _mac(data: bytes) -> str:
    return data.hex(":")


def _address(data: bytes) -> str:
    return str(ip_address(data)) if len(data) in {4, 16} else ""


def _ethertype(data: bytes) -> str:
    return _ETHERTYPES.get(int.from_bytes(data, "big"), "")


def _protocol(data: bytes) -> str:
    return _PROTOCOLS.get(data[0], str(data[0]))


def _tag(data: bytes) -> str:
    value = int.from_bytes(data, "big")
    return f"VLAN {value & 0xFFF}, priority {value >> 13}"


def _fragment(data: bytes) -> str:
    value = int.from_bytes(data, "big")
    more = ", more follow" if value & 0x2000 else ""
    return f"offset {(value & 0x1FFF) * 8}{more}"


def _flags(data: bytes) -> str:
    names = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
    return "+".join(name for bit, name in enumerate(names) if data[-1] >> bit & 1)


_Layout = tuple[tuple[str, int, "Callable[[bytes], str]"], ...]
_ETH: Final[_Layout] = (("eth.dst", 6, _mac), ("eth.src", 6, _mac), ("eth.type", 2, _ethertype))
_VLAN: Final[_Layout] = (("vlan.tci", 2, _tag), ("vlan.type", 2, _ethertype))
_IPV4: Final[_Layout] = (
    ("ipv4.version_ihl", 1, _plain), ("ipv4.tos", 1, _plain), ("ipv4.total_length", 2, _number),
    ("ipv4.id", 2, _number), ("ipv4.fragment", 2, _fragment), ("ipv4.ttl", 1, _number),
    ("ipv4.protocol", 1, _protocol), ("ipv4.checksum", 2, _plain), ("ipv4.src", 4, _address),
    ("ipv4.dst", 4, _address),
)  # fmt: skip
_IPV6: Final[_Layout] = (
    ("ipv6.version", 4, _plain), ("ipv6.payload_length", 2, _number),
    ("ipv6.next_header", 1, _protocol), ("ipv6.hop_limit", 1, _number),
    ("ipv6.src", 16, _address), ("ipv6.dst", 16, _address),
)  # fmt: skip
_UPPER: Final[dict[int, _Layout]] = {
    TCP: (
        ("tcp.sport", 2, _number), ("tcp.dport", 2, _number), ("tcp.seq", 4, _number),
        ("tcp.ack", 4, _number), ("tcp.flags", 2, _flags), ("tcp.window", 2, _number),
        ("tcp.checksum", 2, _plain), ("tcp.urgent", 2, _number),
    ),
    UDP: (
        ("udp.sport", 2, _number), ("udp.dport", 2, _number), ("udp.length", 2, _number),
        ("udp.checksum", 2, _plain),
    ),
    SCTP: (
        ("sctp.sport", 2, _number), ("sctp.dport", 2, _number), ("sctp.tag", 4, _plain),
        ("sctp.checksum", 4, _plain),
    ),
    ICMP: (("icmp.type", 1, _number), ("icmp.code", 1, _number), ("icmp.checksum", 2, _plain)),
    ICMPV6: (("icmp.type", 1, _number), ("icmp.code", 1, _number), ("icmp.checksum", 2, _plain)),
}  # fmt: skip


class _Reader:
    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.at = 0
        self.fields: list[Field] = []

    def take(self, layout: _Layout) -> None:
        for name, size, text in layout:
            data = self.frame[self.at : self.at + size]
            if data:
                words = text(data) if len(data) == size else "cut off"
                self.fields.append(Field(name, self.at, data, words))
            self.at += len(data)

    def rest(self, name: str, size: int) -> None:
        """``size`` more bytes, in rows."""
        end = min(self.at + max(size, 0), len(self.frame))
        while self.at < end:
            step = min(ROW, end - self.at)
            self.take(((name, step, _plain),))

    def behind(self, back: int, size: int = 2) -> int:
        """The number that ends ``back`` bytes before here; 0 where it was cut off."""
        at = self.at - back - size
        data = self.frame[at : at + size] if at >= 0 else b""
        return int.from_bytes(data, "big")


def decode(frame: bytes) -> list[Field]:
    """The fields of a frame, in order; together they are the frame.  Never raises."""
    reader = _Reader(frame)
    reader.take(_ETH)
    while reader.behind(0) in VLAN_TPIDS and reader.at < len(frame):
        reader.take(_VLAN)
    kind = reader.behind(0)
    if kind == ETHERTYPE_IPV4:
        _ipv4(reader)
    elif kind == ETHERTYPE_IPV6:
        _ipv6(reader)
    reader.rest("payload", len(frame))
    return reader.fields


def _ipv4(reader: _Reader) -> None:
    start = reader.at
    reader.take(_IPV4)
    header = reader.frame[start : reader.at]
    if len(header) < 20:
        return
    reader.rest("ipv4.options", (header[0] & 15) * 4 - 20)
    if not int.from_bytes(header[6:8], "big") & 0x1FFF:
        _upper(reader, header[9])


def _ipv6(reader: _Reader) -> None:
    start = reader.at
    reader.take(_IPV6)
    if reader.at < start + 40:
        return
    following = reader.frame[start + 6]
    while following in _EXTENSIONS and reader.at + 2 <= len(reader.frame):
        name, begin = HEADER_NAMES[following], reader.at
        length = reader.frame[begin + 1]
        size = 8 if following == FRAGMENT else (length + 1) * 8
        size = (length + 2) * 4 if following == AH else size
        reader.take(((f"{name}.next_header", 1, _protocol), (f"{name}.length", 1, _number)))
        reader.rest(f"{name}.body", size - 2)
        if following == FRAGMENT and int.from_bytes(reader.frame[begin + 2 : begin + 4], "big") > 7:
            return  # a later fragment: what follows is no header
        following = reader.frame[begin]
    _upper(reader, following)


def _upper(reader: _Reader, protocol: int) -> None:
    start = reader.at
    reader.take(_UPPER.get(protocol, ()))
    if protocol == TCP and reader.at == start + 20:
        reader.rest("tcp.options", (reader.frame[start + 12] >> 4) * 4 - 20)


def in_words(frame: bytes) -> str:
    """One line: what flow a frame belongs to."""
    flow = parse(frame)
    tags = f" behind {flow.vlan_count} VLAN tags" if flow.vlan_count else ""
    if not flow.l3:
        return f"{len(frame)} bytes: {flow.why}{tags}"
    source, destination = str(ip_address(flow.saddr)), str(ip_address(flow.daddr))
    if not flow.l4:
        return f"{len(frame)} bytes: IPv{flow.l3} {source} > {destination} ({flow.why}){tags}"
    if flow.l3 == 6:
        source, destination = f"[{source}]", f"[{destination}]"
    name = _PROTOCOLS[flow.l4]
    return f"{len(frame)} bytes: {name} {source}:{flow.sport} > {destination}:{flow.dport}{tags}"
