# SPDX-License-Identifier: MIT
"""How QEMU 7.2 reads a frame for its hash, as deviations from our decisions.

Each deviation bears the number of the decision it departs from (docs/decisions.md) and
can be switched off alone.  None on is our reading, all on is QEMU's; so what differs
between two devices is known, with its numbers, before either has seen the frame.

Written from the behaviour of QEMU's software path (its eBPF program reads otherwise).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from pyvnet.reference.toeplitz import toeplitz
from pyvnet.spec.rss import HashReport, HashType

DEVIATIONS: Final[dict[str, str]] = {
    "U-19": "EX types apply to every IPv6 packet",
    "U-20": "HIP and SHIM6 end the walk, and AH is taken to count its length as others do",
    "U-21": "no limit but the frame's end; a header may begin and not end in it",
    "U-22": "the last destination options or type 2 routing header counts, a home address of any"
    " length too",
    "U-23": "behind a Fragment header the walk goes on",
    "U-24": "of a TCP header all 20 bytes are needed, of a UDP header all 8",
    "U-25": "one tag, or an 802.1ad tag and an 802.1Q tag",
    "U-29": "an IHL below 5 or beyond the frame is believed",
    "U-58": "types with ports come before IP_EX",
    "U-64": "an IP header cut short, or of another version, is hashed all the same",
}
ALL: Final = frozenset(DEVIATIONS)
NONE: Final[frozenset[str]] = frozenset()

_TCP, _UDP = 6, 17
_HOPOPTS, _ROUTING, _FRAGMENT, _AH, _DSTOPTS = 0, 43, 44, 51, 60
_MOBILITY, _HIP, _SHIM6 = 135, 139, 140
_QEMUS: Final = frozenset({_HOPOPTS, _ROUTING, _FRAGMENT, _AH, _DSTOPTS, _MOBILITY})
_OURS: Final = _QEMUS | {_HIP, _SHIM6}
_HOME: Final = 201
_EX: Final = HashType.IP_EX | HashType.TCP_EX | HashType.UDP_EX
_PLAIN_OF: Final = {_TCP: HashType.TCPV6, _UDP: HashType.UDPV6}
_EX_OF: Final = {_TCP: HashType.TCP_EX, _UDP: HashType.UDP_EX}
_V4_OF: Final = {_TCP: HashType.TCPV4, _UDP: HashType.UDPV4}


class Reading(NamedTuple):
    """A report and what is hashed; None where that depends on frames seen before."""

    report: int
    data: bytes | None = b""


class Predicted(NamedTuple):
    """A report, its value (None: any), and the decisions that make it differ from ours."""

    report: int
    value: int | None
    because: frozenset[str]


@dataclass(slots=True)
class _Packet:
    """What was found of one IP packet."""

    version: int
    source: bytes | None = b""
    destination: bytes = b""
    source_ex: bytes = b""
    destination_ex: bytes = b""
    chained: bool = False
    transport: int = 0
    ports: bytes = b""


def predict(frame: bytes, hash_types: int, key: bytes) -> Predicted:
    """What QEMU will report of a frame, and why it is not what we report."""
    ours, theirs = (read(frame, hash_types, deviations) for deviations in (NONE, ALL))
    value = None if theirs.data is None else toeplitz(key, theirs.data) if theirs.report else 0
    because = NONE if ours == theirs else _reasons(frame, hash_types, ours, theirs)
    return Predicted(theirs.report, value, because)


def our_answer(frame: bytes, hash_types: int, key: bytes) -> tuple[int, int]:
    """Report and value of our decisions, by this reading."""
    report, data = read(frame, hash_types, NONE)
    assert data is not None
    return report, toeplitz(key, data) if report else 0


def _reasons(frame: bytes, hash_types: int, ours: Reading, theirs: Reading) -> frozenset[str]:
    """The deviations without which QEMU would answer otherwise; else those that suffice alone."""
    needed = {one for one in ALL if read(frame, hash_types, ALL - {one}) != theirs}
    enough = {one for one in ALL if read(frame, hash_types, frozenset({one})) != ours}
    return frozenset(needed or enough)


def read(frame: bytes, hash_types: int, deviations: frozenset[str]) -> Reading:
    """The report, and the bytes it is the hash of, with these deviations on."""
    packet = _Reader(frame, deviations).packet()
    if packet is None:
        return Reading(HashReport.NONE)
    for hash_type in _order(packet, deviations):
        if hash_types & hash_type:
            return Reading(int(hash_type).bit_length(), _input(packet, hash_type))
    return Reading(HashReport.NONE)


def _order(packet: _Packet, deviations: frozenset[str]) -> list[HashType]:
    if packet.version == 4:
        return [*_of(_V4_OF, packet), HashType.IPV4]
    ports_ex, ports = _of(_EX_OF, packet), _of(_PLAIN_OF, packet)
    if packet.chained and "U-58" not in deviations:
        return [*ports_ex, HashType.IP_EX, *ports, HashType.IPV6]
    if packet.chained or "U-19" in deviations:
        return [*ports_ex, *ports, HashType.IP_EX, HashType.IPV6]
    return [*ports, HashType.IPV6]


def _of(types: dict[int, HashType], packet: _Packet) -> list[HashType]:
    return [types[packet.transport]] if packet.transport else []


def _input(packet: _Packet, hash_type: HashType) -> bytes | None:
    if packet.source is None:
        return None
    if hash_type & _EX:
        addresses = packet.source_ex + packet.destination_ex
    else:
        addresses = packet.source + packet.destination
    with_ports = hash_type not in {HashType.IPV4, HashType.IPV6, HashType.IP_EX}
    return addresses + packet.ports if with_ports else addresses


class _Reader:
    """One frame under a set of deviations."""

    def __init__(self, frame: bytes, deviations: frozenset[str]) -> None:
        self._odd = deviations
        self._seen = frame if "U-21" in deviations else frame[:1024]

    def packet(self) -> _Packet | None:
        seen, odd = self._seen, self._odd
        if len(seen) < 14:
            return None
        if "U-64" in odd and len(seen) < 18:
            # The last two bytes there are count as the EtherType; of what follows nothing is.
            version = {b"\x08\0": 4, b"\x86\xdd": 6}.get(seen[-2:])
            return None if version is None else _Packet(version, None)
        at = self._after_tags()
        if at is None:
            return None
        match seen[at - 2 : at]:
            case b"\x08\0":
                return self._ipv4(at)
            case b"\x86\xdd":
                return self._ipv6(at)
        return None

    def _after_tags(self) -> int | None:
        seen, at = self._seen, 14
        if "U-25" in self._odd:
            kinds = seen[12:14], seen[16:18]
            if kinds == (b"\x88\xa8", b"\x81\0"):
                at = 22
            elif kinds[0] in {b"\x81\0", b"\x88\xa8"}:
                at = 18
        else:
            for _ in range(2):
                if seen[at - 2 : at] in {b"\x81\0", b"\x88\xa8", b"\x91\0"}:
                    at += 4
        return at if at <= len(seen) else None

    def _ipv4(self, at: int) -> _Packet | None:
        header, odd = self._seen[at : at + 20], self._odd
        if len(header) < 20:
            return _Packet(4, None) if "U-64" in odd else None
        right = header[0] >> 4 == 4
        size = (header[0] & 15) * 4
        if not right and "U-64" not in odd:
            return None
        if (size < 20 or at + size > len(self._seen)) and "U-29" not in odd:
            return None
        packet = _Packet(4, header[12:16], header[16:20])
        fragment = int.from_bytes(header[6:8], "big") & 0x3FFF
        if right and not fragment:
            self._transport(packet, header[9], at + size)
        return packet

    def _ipv6(self, at: int) -> _Packet | None:
        header, odd = self._seen[at : at + 40], self._odd
        if len(header) < 40:
            return _Packet(6, None) if "U-64" in odd else None
        if header[0] >> 4 != 6 and "U-64" not in odd:
            return None
        source, destination = header[8:24], header[24:40]
        packet = _Packet(6, source, destination, source, destination)
        walk = _Walk(self._seen, odd, packet)
        reached = walk.to_transport(header[6], at + 40)
        if reached is not None:
            self._transport(packet, *reached)
        return packet

    def _transport(self, packet: _Packet, protocol: int, at: int) -> None:
        needed = {_TCP: 20, _UDP: 8} if "U-24" in self._odd else {_TCP: 4, _UDP: 4}
        if protocol in needed and at + needed[protocol] <= len(self._seen):
            packet.transport = protocol
            packet.ports = self._seen[at : at + 4]


class _Walk:
    """The way along the extension headers of one packet, where its addresses are noted."""

    def __init__(self, seen: bytes, deviations: frozenset[str], packet: _Packet) -> None:
        self._seen = seen
        self._odd = deviations
        self._packet = packet
        self._headers = self._options = 0
        self._source = self._destination = None  # type: bytes | None

    def to_transport(self, kind: int, at: int) -> tuple[int, int] | None:
        """The protocol behind the chain, and where it begins; None where there is none."""
        kinds = _QEMUS if "U-20" in self._odd else _OURS
        fragmented = False
        while kind in kinds:
            size = self._size(kind, at)
            limited = "U-21" not in self._odd
            if size is None or (limited and (self._headers == 16 or at + size > len(self._seen))):
                return None
            self._headers += 1
            self._packet.chained = True
            header = self._seen[at : at + size]
            if kind == _FRAGMENT:
                fragmented = True
                if "U-23" not in self._odd:
                    return None
            elif not self._note(kind, header, at, size):
                return None
            kind, at = header[0], at + size
        return None if fragmented else (kind, at)

    def _size(self, kind: int, at: int) -> int | None:
        if kind == _FRAGMENT and "U-23" not in self._odd:
            return 8
        if at + 2 > len(self._seen):
            return None
        length = self._seen[at + 1]
        shorter = kind == _AH and "U-20" not in self._odd
        return (length + 2) * 4 if shorter else (length + 1) * 8

    def _note(self, kind: int, header: bytes, at: int, size: int) -> bool:
        """Look for addresses in a header; False ends the walk."""
        if kind in {_HOPOPTS, _DSTOPTS}:
            found, go_on = self._home(kind, at, size)
            if kind == _DSTOPTS and (self._source is None or "U-22" in self._odd):
                self._source = found
            self._packet.source_ex = self._source or self._packet.source or b""
            return go_on
        if kind == _ROUTING and header[1:2] == b"\x02":
            right = header[2:4] == b"\x02\x01" and len(header) == 24
            if self._destination is None or "U-22" in self._odd:
                self._destination = header[8:24] if right else None
            self._packet.destination_ex = self._destination or self._packet.destination
        return True

    def _home(self, kind: int, at: int, size: int) -> tuple[bytes | None, bool]:
        """The home address in a header of options, and whether the walk goes on."""
        seen, end, odd = self._seen, at + size, self._odd
        found = None
        at += 2
        while at < end:
            if self._options == 64 and "U-21" not in odd:
                return found, False
            self._options += 1
            if at >= len(seen):
                break
            if seen[at] == 0:
                at += 1
                continue
            if at + 2 > min(end, len(seen)) or at + 2 + seen[at + 1] > end:
                break
            value = seen[at + 2 : at + 18]
            anyhow = "U-22" in odd and end - at > 2
            if seen[at] == _HOME and kind == _DSTOPTS and (anyhow or seen[at + 1] == 16):
                if found is None:
                    found = value if len(value) == 16 else None
                if anyhow:
                    break
            at += 2 + seen[at + 1]
        return found, True
