# SPDX-License-Identifier: MIT
"""Frames and headers for the offload tests: every field at its corners, around what fits."""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Final

from pyvnet.reference import parse
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.testing import frames as f

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

NEEDS_CSUM, DATA_VALID = 1, 2
NONE, TCPV4, UDP, TCPV6, UDP_L4, ECN = 0, 1, 3, 4, 5, 0x80

HOST: Final = (
    Feature.CSUM | Feature.HOST_TSO4 | Feature.HOST_TSO6 | Feature.HOST_ECN | Feature.HOST_USO
)
GUEST: Final = (
    Feature.GUEST_CSUM
    | Feature.GUEST_TSO4
    | Feature.GUEST_TSO6
    | Feature.GUEST_ECN
    | Feature.GUEST_USO4
    | Feature.GUEST_USO6
)


def tcp_with_options(words: int, payload: bytes = bytes(40)) -> f.L4:
    """A TCP segment whose data offset is ``words``, with as many bytes of options as fit that."""
    plain = f.tcp(payload=b"").data
    head = plain[:12] + bytes([words << 4]) + plain[13:]
    return replace(f.tcp(), data=head + b"\x01" * (4 * words - 20) + payload)


def _frames() -> dict[str, bytes]:
    v4, v6 = f.Ipv4(), f.Ipv6()
    long_chain = f.Ipv6(extensions=[f.hop_by_hop(f.padn(150)), f.destination_options(f.padn(100))])
    built = {
        "tcp4": f.build(v4, f.tcp(payload=bytes(range(200)))),
        "udp4": f.build(v4, f.udp(payload=bytes(range(200)))),
        "tcp6": f.build(v6, f.tcp(payload=bytes(range(200)))),
        "udp6": f.build(v6, f.udp(payload=bytes(range(200)))),
        "tcp4 empty": f.build(v4, f.tcp()),
        "udp6 empty": f.build(v6, f.udp()),
        "tcp4 options": f.build(v4, tcp_with_options(15)),
        "tcp4 ip options": f.build(f.Ipv4(options=bytes(40)), tcp_with_options(8)),
        "tcp4 data offset 4": f.build(v4, tcp_with_options(4)),
        "tcp4 data offset beyond": f.build(v4, tcp_with_options(15, b"")),
        "tcp6 chain": f.build(f.Ipv6(extensions=[f.hop_by_hop(f.padn(2))]), f.tcp(payload=b"x")),
        "tcp6 beyond the look": f.build(long_chain, f.tcp(payload=bytes(80))),
        "udp6 beyond the look": f.build(long_chain, f.udp(payload=bytes(80))),
        "tcp4 tag": f.build(v4, f.tcp(payload=bytes(50)), vlans=[f.Vlan(5)]),
        "udp6 two tags": f.build(v6, f.udp(), vlans=[f.Vlan(5, tpid=0x88A8), f.Vlan()]),
        "tcp4 three tags": f.build(v4, f.tcp(payload=bytes(9)), vlans=[f.Vlan()] * 3),
        "tcp4 fragment": f.build(f.Ipv4(more_fragments=True), f.tcp(payload=bytes(80))),
        "udp6 fragment": f.build(f.Ipv6(extensions=[f.fragment_header()]), f.udp(payload=b"abc")),
        "sctp": f.build(v4, f.sctp()),
        "icmp": f.build(v4, f.icmp(payload=bytes(33))),
        "arp": f.ethernet(0x0806, bytes(46)),
    }  # fmt: skip
    frames = {name: bytes(frame) for name, frame in built.items()}
    frames["tcp4 data offset beyond"] = frames["tcp4 data offset beyond"][:70]
    frames["ethernet only"] = frames["tcp4"][:14]
    frames["tcp4 cut in its header"] = frames["tcp4"][:50]
    frames["udp4 cut in its header"] = frames["udp4"][:40]
    frames["tcp4 of 64 KiB"] = bytes(f.build(v4, f.tcp(payload=bytes(65000))))
    return frames


FRAMES: Final = _frames()
TYPES: Final = (NONE, TCPV4, UDP, TCPV6, UDP_L4, 2, 0x20, 0x40, 0x21, 0x44, 0x7F)
FLAGS: Final = (0, NEEDS_CSUM, DATA_VALID, NEEDS_CSUM | DATA_VALID, 0xFC, 0xFF)


def fitting(frame: bytes) -> NetHdr:
    """The header that asks for all that the frame allows."""
    flow = parse(frame)
    kind = {(4, 6): TCPV4, (6, 6): TCPV6, (4, 17): UDP_L4, (6, 17): UDP_L4}.get((flow.l3, flow.l4))
    if kind is None:
        return NetHdr(NEEDS_CSUM, NONE, 0, 0, min(34, len(frame) - 2), 0)
    offset = 16 if flow.l4 == 6 else 6
    return NetHdr(NEEDS_CSUM, kind, 0, 20, flow.l4_offset, offset)


def starts(frame: bytes) -> tuple[int, ...]:
    """Corners of csum_start."""
    right, size = fitting(frame).csum_start, len(frame)
    found = {0, 13, 14, right - 1, right, right + 1, size - 2, size - 1, size, size + 1, 0x7FFF}
    return tuple(sorted(max(0, value) for value in found | {0x8000, 0xFFFF}))


def offsets(frame: bytes) -> tuple[int, ...]:
    """Corners of csum_offset."""
    left = max(0, len(frame) - fitting(frame).csum_start)
    return tuple(sorted({0, 5, 6, 7, 15, 16, 17, max(0, left - 2), max(0, left - 1), left, 0xFFFF}))


def headers(frame: bytes) -> Iterator[NetHdr]:
    """Each corner of each field with all others fitting, and the corners that meet."""
    right = fitting(frame)
    for flags, kind, ecn in product(FLAGS, TYPES, (0, ECN)):
        yield replace(right, flags=flags, gso_type=kind | ecn)
    for start, offset, kind in product(starts(frame), offsets(frame), (NONE, right.gso_type)):
        yield replace(right, gso_type=kind, csum_start=start, csum_offset=offset)
    for size, hdr_len in product((0, 1, 536, 0x7FFF, 0xFFFE, 0xFFFF), (0, 1, 54, 0xFFFF)):
        yield replace(right, gso_size=size, hdr_len=hdr_len)
        yield replace(right, gso_type=NONE, gso_size=size, hdr_len=hdr_len)


def random_header(rng: random.Random, frame: bytes) -> NetHdr:
    """Mostly what fits, with some fields at a corner and some anywhere."""
    right = fitting(frame)

    def pick(fits: int, corners: tuple[int, ...], limit: int) -> int:
        dice = rng.random()
        if dice < 0.7:
            return fits
        return rng.choice(corners) if dice < 0.95 else rng.randrange(limit)

    return NetHdr(
        pick(right.flags, FLAGS, 256),
        pick(right.gso_type, TYPES, 256) | rng.choice((0, 0, 0, ECN)),
        rng.choice((0, 54, 0xFFFF)),
        pick(right.gso_size, (0, 1, 1448, 0xFFFF), 1 << 16),
        pick(right.csum_start, starts(frame), 1 << 16),
        pick(right.csum_offset, offsets(frame), 1 << 16),
    )


def random_features(rng: random.Random, among: Feature) -> Feature:
    """Each of them with even odds, and the checksum, without which there is nothing, more often."""
    chosen = Feature(0)
    for bit in among:
        if rng.random() < (0.8 if bit in (Feature.CSUM, Feature.GUEST_CSUM) else 0.5):
            chosen |= bit
    return chosen


def unfinished(frame: bytes) -> bytes:
    """The frame as a sender leaves it that asks for its checksum: the pseudo-header's sum."""
    flow = parse(frame)
    assert flow.l4
    length = len(frame) - flow.l4_offset
    pseudo = flow.saddr + flow.daddr + struct.pack(">II", length, flow.l4)
    total = sum(struct.unpack(f">{len(pseudo) // 2}H", pseudo))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    at = flow.l4_offset + (16 if flow.l4 == 6 else 6)
    return frame[:at] + int(total).to_bytes(2, "big") + frame[at + 2 :]
