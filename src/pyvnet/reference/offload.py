# SPDX-License-Identifier: MIT
"""What a header may ask for, and what becomes of it: a second reading of the offloads.

Theory of operation
    A header asks its receiver to finish a checksum, and to cut the frame into
    segments.  A request stands if it was agreed on and fits the frame.  ``sent``
    and ``received`` are the two directions: what the host port is told of a
    driver's frame ("Packet Transmission"), and what a driver is told of the host
    port's ("Processing of Incoming Packets").

    ``hdr_len`` is worked out from the frame where segments are asked for and is
    0 elsewhere; flags and bits nobody agreed on do not go further.

This is an independent reading of the standard: it imports nothing of the
device and nothing of C, and it is compared with both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from pyvnet.reference.parse import ETHERNET_HEADER, TCP, UDP, parse
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import GsoType, HdrFlag, NetHdr

ECN: Final = 0x80
TX_LOOK: Final = 256
"""Bytes of a driver's frame that are looked at (U-63)."""

_CSUM_OFFSETS: Final = {TCP: 16, UDP: 6}
_TRANSPORTS: Final = {GsoType.TCPV4: TCP, GsoType.TCPV6: TCP, GsoType.UDP_L4: UDP}
_HOST_TYPES: Final = {
    (GsoType.TCPV4, 4): Feature.HOST_TSO4,
    (GsoType.TCPV6, 6): Feature.HOST_TSO6,
    (GsoType.UDP_L4, 4): Feature.HOST_USO,
    (GsoType.UDP_L4, 6): Feature.HOST_USO,
}
_GUEST_TYPES: Final = {
    (GsoType.TCPV4, 4): Feature.GUEST_TSO4,
    (GsoType.TCPV6, 6): Feature.GUEST_TSO6,
    (GsoType.UDP_L4, 4): Feature.GUEST_USO4,
    (GsoType.UDP_L4, 6): Feature.GUEST_USO6,
}


class Agreed(NamedTuple):
    """What may be asked for: a checksum, ECN with segments, segments by type and IP version."""

    csum: bool
    ecn: bool
    types: frozenset[tuple[GsoType, int]]


def complete(frame: bytes, start: int, offset: int) -> bytes:
    """The frame with the checksum over everything from ``start`` on in its place.

    The field holds the sum of the pseudo-header before.  A UDP checksum of 0 is
    stored as 0xffff (RFC 768); UDP is known by where its field is.
    """
    words = frame[start:] + bytes((len(frame) - start) % 2)
    total = sum(int.from_bytes(words[i : i + 2], "big") for i in range(0, len(words), 2))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    value = 0xFFFF - total
    if value == 0 and offset == _CSUM_OFFSETS[UDP]:
        value = 0xFFFF
    at = start + offset
    return frame[:at] + value.to_bytes(2, "big") + frame[at + 2 :]


def sent(header: NetHdr, frame: bytes, negotiated: Feature) -> NetHdr | None:
    """What the host port is told; None for a frame it must not see (OUR-TX-12)."""
    if len(frame) < ETHERNET_HEADER:
        return None
    agreed = Agreed(
        Feature.CSUM in negotiated,
        Feature.HOST_ECN in negotiated,
        frozenset(kind for kind, feature in _HOST_TYPES.items() if feature in negotiated),
    )
    return _clean(header, frame, frame[:TX_LOOK], agreed)


def received(header: NetHdr, frame: bytes, on: Feature) -> tuple[NetHdr, bytes] | None:
    """What the driver is told, and the frame it gets; None for one it must not see.

    ``on`` are the guest offloads in force.
    """
    csum = Feature.GUEST_CSUM in on
    agreed = Agreed(
        csum or header.gso_type == GsoType.NONE,
        Feature.GUEST_ECN in on,
        frozenset(kind for kind, feature in _GUEST_TYPES.items() if feature in on),
    )
    cleaned = _clean(header, frame, frame, agreed)
    if cleaned is None:
        return None
    if csum:
        valid = header.flags & HdrFlag.DATA_VALID
        return replace(cleaned, flags=cleaned.flags or valid), frame
    if cleaned.flags:
        return NetHdr(), complete(frame, cleaned.csum_start, cleaned.csum_offset)
    return NetHdr(), frame


def _clean(header: NetHdr, frame: bytes, look: bytes, agreed: Agreed) -> NetHdr | None:
    """The request as it goes on; None for one that cannot stand."""
    cleaned = NetHdr()
    if header.flags & HdrFlag.NEEDS_CSUM:
        behind = header.csum_start + header.csum_offset + 2
        if not agreed.csum or header.csum_start < ETHERNET_HEADER or behind > len(frame):
            return None
        cleaned = NetHdr(
            HdrFlag.NEEDS_CSUM, csum_start=header.csum_start, csum_offset=header.csum_offset
        )
    if header.gso_type == GsoType.NONE:
        return cleaned
    headers = _segment_headers(header, look, agreed)
    if headers is None or not cleaned.flags or header.gso_size in (0, 0xFFFF):
        return None
    return replace(cleaned, gso_type=header.gso_type, gso_size=header.gso_size, hdr_len=headers)


def _segment_headers(header: NetHdr, look: bytes, agreed: Agreed) -> int | None:
    """Bytes in front of the payload to be cut; None if the frame is not what its type says."""
    flow = parse(look)
    kinds = [kind for kind, version in agreed.types if version == flow.l3]
    kind = next((kind for kind in kinds if kind == header.gso_type & ~ECN), None)
    if kind is None or flow.l4 != _TRANSPORTS[kind]:
        return None
    if header.gso_type & ECN and not (agreed.ecn and flow.l4 == TCP):
        return None
    if (header.csum_start, header.csum_offset) != (flow.l4_offset, _CSUM_OFFSETS[flow.l4]):
        return None
    size = _transport_header(look[flow.l4_offset :], flow.l4)
    return None if size is None else flow.l4_offset + size


def _transport_header(data: bytes, transport: int) -> int | None:
    """Its length in bytes; None if it is not all there."""
    if transport == UDP:
        size = 8
    elif len(data) < 20 or data[12] >> 4 < 5:
        return None
    else:
        size = (data[12] >> 4) * 4
    return size if len(data) >= size else None
