# SPDX-License-Identifier: MIT
"""Which headers a device may put in front of a frame, and when that changes.

"Processing of Incoming Packets".  What is allowed follows from the negotiated
features and, with CTRL_GUEST_OFFLOADS, from the last GUEST_OFFLOADS_SET.
"""

from __future__ import annotations

from typing import Final

from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import GsoType, HdrFlag, NetHdr
from pyvnet.spec.rss import HashReport

GSO_ECN: Final = 0x80

GUEST_GSO: Final = (
    Feature.GUEST_TSO4
    | Feature.GUEST_TSO6
    | Feature.GUEST_UFO
    | Feature.GUEST_USO4
    | Feature.GUEST_USO6
)
# What GUEST_OFFLOADS_SET turns on and off; its mask has the bits of the features.
GUEST_OFFLOADS: Final = Feature.GUEST_CSUM | Feature.GUEST_ECN | GUEST_GSO

# Guest offloads, the gso_type each allows the device to hand over (NET-RX-07), and for
# which version of IP.
_GSO_BY_FEATURE: Final = {
    Feature.GUEST_TSO4: ((GsoType.TCPV4, 4),),
    Feature.GUEST_TSO6: ((GsoType.TCPV6, 6),),
    Feature.GUEST_UFO: ((GsoType.UDP, 4), (GsoType.UDP, 6)),
    Feature.GUEST_USO4: ((GsoType.UDP_L4, 4),),
    Feature.GUEST_USO6: ((GsoType.UDP_L4, 6),),
}
_TAGS: Final = frozenset({0x8100, 0x88A8, 0x9100})
_IP_VERSIONS: Final = {0x0800: 4, 0x86DD: 6}
_CSUM_SIZE: Final = 2


def ip_version(frame: bytes) -> int:
    """4 or 6, read behind VLAN tags; 0 for anything else."""
    at = 12
    while (kind := int.from_bytes(frame[at : at + 2])) in _TAGS:
        at += 4
    return _IP_VERSIONS.get(kind, 0)


class HeaderRules:
    """What one set of offloads allows.

    Args:
        features: what was negotiated, without the guest offloads that are off.
    """

    def __init__(self, features: Feature) -> None:
        flags = HdrFlag.NONE
        if features & Feature.GUEST_CSUM:
            flags = HdrFlag.NEEDS_CSUM | HdrFlag.DATA_VALID
        if features & Feature.RSC_EXT:
            flags |= HdrFlag.RSC_INFO
        self._flags = int(flags)
        allowed = [
            pair for bit, pairs in _GSO_BY_FEATURE.items() if features & bit for pair in pairs
        ]
        self._gso = frozenset({int(GsoType.NONE), *(int(gso) for gso, _ in allowed)})
        self._versions = frozenset((int(gso), version) for gso, version in allowed)
        self._ecn = bool(features & Feature.GUEST_ECN)

    def check(self, header: NetHdr, frame: bytes) -> str | None:
        """What is wrong with the header of ``frame``, in words; None if nothing is."""
        if not (header.flags or header.gso_type or header.padding_reserved):
            if header.hash_report <= HashReport.UDPV6_EX:
                return None
            return f"hash_report is {header.hash_report} (NET-REP-03)"
        gso = header.gso_type & ~GSO_ECN
        tcp = gso in {GsoType.TCPV4, GsoType.TCPV6}
        ecn = header.gso_type & GSO_ECN
        verdicts = (
            (header.flags & ~self._flags, "flags {0.flags:#x} are not on (NET-RX-05)"),
            (gso not in self._gso, "gso_type {0.gso_type:#x} is not on (NET-RX-07)"),
            (gso and not header.flags & HdrFlag.NEEDS_CSUM, "GSO without NEEDS_CSUM (NET-RX-12)"),
            (gso and not header.gso_size, "GSO with gso_size 0 (NET-RX-12)"),
            (ecn and not (self._ecn and tcp), "ECN bit (NET-RX-10)"),
            (header.hash_report > HashReport.UDPV6_EX, "hash_report {0.hash_report} (NET-REP-03)"),
            (header.padding_reserved, "padding_reserved is {0.padding_reserved:#x}"),
        )
        for wrong, text in verdicts:
            if wrong:
                return text.format(header)
        return self._check_places(header, gso, frame)

    def _check_places(self, header: NetHdr, gso: int, frame: bytes) -> str | None:
        """Whether what the header points at lies in the frame."""
        size = len(frame)
        rsc = header.flags & HdrFlag.RSC_INFO  # then the fields mean something else (NET-RX-13)
        if header.flags & HdrFlag.NEEDS_CSUM and not rsc:
            end = header.csum_start + header.csum_offset + _CSUM_SIZE
            if end > size:
                return f"the checksum ends at byte {end} of {size} (NET-RX-11)"
        if not gso:
            return None
        if not header.csum_start < header.hdr_len <= size:
            return (
                f"hdr_len is {header.hdr_len} for {size} bytes and a transport header at "
                f"{header.csum_start} (NET-RX-14)"
            )
        version = ip_version(frame)
        if version and (gso, version) not in self._versions:
            return f"gso_type {header.gso_type:#x} on IPv{version} (NET-RX-07)"
        return None


class OffloadSwitch:
    """The rules in force while GUEST_OFFLOADS_SET changes them.

    The new ones hold as soon as the command is under way; what held before is
    forgiven until every frame that was visible when the answer came is judged.

    Args:
        features: what was negotiated.
    """

    def __init__(self, features: Feature) -> None:
        self._features = features
        self._rules = HeaderRules(features)
        self._former: list[HeaderRules] = []
        self._under_way = False
        self._forgiven: dict[int, int] = {}

    def begin(self, offloads: int) -> None:
        """A command that leaves these offloads on, and no others, is under way."""
        self._former.append(self._rules)
        off = GUEST_OFFLOADS & ~Feature(offloads & int(GUEST_OFFLOADS))
        self._rules = HeaderRules(self._features & ~off)
        self._under_way = True

    def end(self, *, obeyed: bool, visible: dict[int, int]) -> None:
        """It was answered.

        Args:
            obeyed: whether with OK.
            visible: used elements not taken yet, by virtqueue index.
        """
        if not obeyed:
            self._former[-1], self._rules = self._rules, self._former[-1]
        self._under_way = False
        self._forgiven = visible
        self._settle()

    def check(self, header: NetHdr, frame: bytes, queue: int, buffers: int) -> str | None:
        """`HeaderRules.check` for a frame in ``buffers`` used elements of a virtqueue."""
        wrong = self._rules.check(header, frame)
        if not self._former:
            return wrong
        old = self._under_way or self._forgiven.get(queue, 0) > 0
        if wrong and old and any(not former.check(header, frame) for former in self._former):
            wrong = None
        if not self._under_way:
            self._forgiven[queue] = self._forgiven.get(queue, 0) - buffers
            self._settle()
        return wrong

    def _settle(self) -> None:
        if not any(left > 0 for left in self._forgiven.values()):
            self._former.clear()
