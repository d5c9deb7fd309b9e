# SPDX-License-Identifier: MIT
"""Frames that leave work to others: a checksum to finish, a burst to segment.

Whoever takes such a request may do the work or pass the request on.  So both a
frame with its header and the finished frames are judged by what a receiver
ends up with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet.driver.offload import offload
from pyvnet.reference.offload import complete
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import HDR_V1_SIZE, GsoType, HdrFlag, NetHdr
from pyvnet.testing.frames import Ipv4, Ipv6, build, tcp, udp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyvnet.conformance.trial import Trial
    from pyvnet.driver.offload import Offloaded

_ETHERNET: Final = 14
_IP: Final = {4: 20, 6: 40}
_TCP: Final = 20
_UDP: Final = 8
_CSUM_AT: Final = {_TCP: 16, _UDP: 6}


class Burst(NamedTuple):
    """A frame to ask something of.

    Attributes:
        name: in reports.
        frame: complete, with right checksums.
        head: bytes of all its headers.
        gso_type: to segment it.
        gso_size: payload of each segment.
        host: what a driver needs to send it unfinished.
        guest: what a device needs to hand it over unfinished.
    """

    name: str
    frame: bytes
    head: int
    gso_type: GsoType
    gso_size: int
    host: Feature
    guest: Feature

    @property
    def payload(self) -> bytes:
        """What follows the headers."""
        return self.frame[self.head :]

    def asked(self, *, segments: bool) -> Offloaded:
        """The frame with its checksum to be finished, and to be cut into segments."""
        return offload(self.frame, gso_size=self.gso_size if segments else 0)


def _burst(version: int, kind: int, size: int, gso_size: int) -> Burst:
    payload = bytes(i * 7 & 0xFF for i in range(size))
    l4 = tcp(40000, 80, payload) if kind == _TCP else udp(40000, 53, payload)
    ip = Ipv4() if version == 4 else Ipv6()
    gso_type, host, guest = {
        (_TCP, 4): (GsoType.TCPV4, Feature.HOST_TSO4, Feature.GUEST_TSO4),
        (_TCP, 6): (GsoType.TCPV6, Feature.HOST_TSO6, Feature.GUEST_TSO6),
        (_UDP, 4): (GsoType.UDP_L4, Feature.HOST_USO, Feature.GUEST_USO4),
        (_UDP, 6): (GsoType.UDP_L4, Feature.HOST_USO, Feature.GUEST_USO6),
    }[kind, version]
    name = f"{'TCP' if kind == _TCP else 'UDP'}v{version}"
    head = _ETHERNET + _IP[version] + kind
    return Burst(name, bytes(build(ip, l4)), head, gso_type, gso_size, host, guest)


SINGLE: Final = tuple(_burst(version, kind, 333, 0) for version in (4, 6) for kind in (_TCP, _UDP))
LONG: Final = tuple(
    _burst(version, kind, 5000, 1000) for version in (4, 6) for kind in (_TCP, _UDP)
)


def finished(header: NetHdr, frame: bytes) -> bytes:
    """The frame with the checksum its header asks for."""
    if not header.flags & HdrFlag.NEEDS_CSUM:
        return frame
    return complete(frame, header.csum_start, header.csum_offset)


def wire_header(header: bytes) -> NetHdr:
    """The header of a frame on the wire; zeros where wires have none."""
    return NetHdr.unpack(header) if len(header) >= HDR_V1_SIZE else NetHdr()


async def judge_burst(
    t: Trial, burst: Burst, following: Callable[[], Awaitable[tuple[NetHdr, bytes]]]
) -> None:
    """Look that a burst came, as one frame to be segmented or as segments.

    Args:
        t: the trial.
        burst: what was sent.
        following: the next header and frame.
    """
    header, frame = await following()
    if header.gso_type:
        t.equal(header.gso_type, int(burst.gso_type), f"gso_type of the {burst.name} burst")
        t.equal(header.gso_size, burst.gso_size, f"gso_size of the {burst.name} burst")
        t.check(header.flags & HdrFlag.NEEDS_CSUM, "GSO without NEEDS_CSUM (NET-RX-12)")
        t.equal(finished(header, frame), burst.frame, f"the {burst.name} burst, checksum finished")
        return
    seen = b""
    while True:
        piece = frame[burst.head :]
        t.check(len(piece) <= burst.gso_size, f"a segment carries {len(piece)} bytes")
        _judge_checksum(t, burst, finished(header, frame))
        seen += piece
        if not piece or len(seen) >= len(burst.payload):
            break
        header, frame = await following()
    t.equal(seen, burst.payload, f"the payload of the {burst.name} burst, from its segments")


def _judge_checksum(t: Trial, burst: Burst, frame: bytes) -> None:
    """Summed from the pseudo-header on a segment must come to what it carries."""
    size = _TCP if burst.gso_type in {GsoType.TCPV4, GsoType.TCPV6} else _UDP
    again = offload(frame)
    right = complete(again.frame, again.header.csum_start, _CSUM_AT[size])
    t.equal(frame, right, f"a segment of the {burst.name} burst, against its checksum")
