# SPDX-License-Identifier: MIT
"""Frames that leave work to the device: a checksum to complete, a burst to segment.

"Packet Transmission": the driver puts the sum of the pseudo-header where the
checksum belongs and says where checksumming starts; for segmentation it adds
the kind, the size of each segment's payload and the length of the headers.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet.driver.header_rules import GSO_ECN, ip_version
from pyvnet.errors import UsageError
from pyvnet.spec.features import NO_FEATURES, Feature
from pyvnet.spec.net_hdr import GsoType, HdrFlag, NetHdr

if TYPE_CHECKING:
    from collections.abc import Iterator

_TCP: Final = 6
_UDP: Final = 17
_CSUM_OFFSET: Final = {_TCP: 16, _UDP: 6}
_GSO: Final = {
    (_TCP, 4): (GsoType.TCPV4, Feature.HOST_TSO4),
    (_TCP, 6): (GsoType.TCPV6, Feature.HOST_TSO6),
    (_UDP, 4): (GsoType.UDP_L4, Feature.HOST_USO),
    (_UDP, 6): (GsoType.UDP_L4, Feature.HOST_USO),
}


class Offloaded(NamedTuple):
    """A frame made ready for the device to finish, and the features that takes."""

    header: NetHdr
    frame: bytes
    needs: Feature


class _Transport(NamedTuple):
    """Where the transport header lies and what its pseudo-header is summed from."""

    protocol: int
    start: int
    addresses: bytes
    version: int


def offload(frame: bytes, *, gso_size: int = 0, ecn: bool = False) -> Offloaded:
    """Leave the checksum of a TCP or UDP frame, and its segmentation, to the device.

    Args:
        frame: complete, over IPv4 or IPv6 without extension headers; its transport
            checksum does not matter.
        gso_size: payload bytes of each segment; 0: do not segment.
        ecn: say that the burst carries ECN's CWR, so that only its first segment may (HOST_ECN).

    Raises:
        UsageError: another kind of frame, or a fragment.
    """
    at = _find(frame)
    place = at.start + _CSUM_OFFSET[at.protocol]
    length = len(frame) - at.start
    pseudo = at.addresses + struct.pack(">II", at.protocol, length)
    summed = frame[:place] + struct.pack(">H", _fold(pseudo)) + frame[place + 2 :]
    header = NetHdr(HdrFlag.NEEDS_CSUM, csum_start=at.start, csum_offset=place - at.start)
    if not gso_size:
        return Offloaded(header, summed, Feature.CSUM)
    kind, needs = _GSO[at.protocol, at.version]
    own = (frame[at.start + 12] >> 4) * 4 if at.protocol == _TCP else 8
    header = NetHdr(
        header.flags,
        kind | (GSO_ECN if ecn else 0),
        at.start + own,
        gso_size,
        header.csum_start,
        header.csum_offset,
    )
    needs |= Feature.CSUM | (Feature.HOST_ECN if ecn else NO_FEATURES)
    return Offloaded(header, summed, needs)


def _find(frame: bytes) -> _Transport:
    version = ip_version(frame)
    at = 14
    while version and int.from_bytes(frame[at - 2 : at]) not in {0x0800, 0x86DD}:
        at += 4  # a VLAN tag
    if version == 4:
        protocol, start = frame[at + 9], at + (frame[at] & 0xF) * 4
        addresses = frame[at + 12 : at + 20]
        whole = not int.from_bytes(frame[at + 6 : at + 8]) & 0x3FFF
    elif version == 6:
        protocol, start = frame[at + 6], at + 40
        addresses, whole = frame[at + 8 : at + 40], True
    else:
        raise UsageError("only frames of IPv4 and IPv6 have checksums a device completes")
    least = 20 if protocol == _TCP else 8
    if protocol not in _CSUM_OFFSET or not whole or start + least > len(frame):
        raise UsageError("neither a whole TCP segment nor a whole UDP datagram right behind IP")
    return _Transport(protocol, start, addresses, version)


def _words(data: bytes) -> Iterator[int]:
    return (word for (word,) in struct.iter_unpack(">H", data))


def _fold(data: bytes) -> int:
    """One's complement sum, not inverted."""
    total = sum(_words(data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total
