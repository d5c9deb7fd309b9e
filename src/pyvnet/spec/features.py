# SPDX-License-Identifier: MIT
"""Feature bits of the virtio network device and what each one requires.

Mirrors "Feature Bits" of the network device chapter and "Reserved Feature Bits"
(virtio 1.4).  The dependency table below is the standard's "Feature bit
requirements" list; our own additions are marked OUR.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final


class Feature(IntFlag):
    """Feature bits; names are the standard's without the ``VIRTIO_NET_F_`` prefix."""

    CSUM = 1 << 0
    GUEST_CSUM = 1 << 1
    CTRL_GUEST_OFFLOADS = 1 << 2
    MTU = 1 << 3
    MAC = 1 << 5
    GUEST_TSO4 = 1 << 7
    GUEST_TSO6 = 1 << 8
    GUEST_ECN = 1 << 9
    GUEST_UFO = 1 << 10
    HOST_TSO4 = 1 << 11
    HOST_TSO6 = 1 << 12
    HOST_ECN = 1 << 13
    HOST_UFO = 1 << 14
    MRG_RXBUF = 1 << 15
    STATUS = 1 << 16
    CTRL_VQ = 1 << 17
    CTRL_RX = 1 << 18
    CTRL_VLAN = 1 << 19
    CTRL_RX_EXTRA = 1 << 20
    GUEST_ANNOUNCE = 1 << 21
    MQ = 1 << 22
    CTRL_MAC_ADDR = 1 << 23
    INDIRECT_DESC = 1 << 28
    EVENT_IDX = 1 << 29
    VERSION_1 = 1 << 32
    ACCESS_PLATFORM = 1 << 33
    RING_PACKED = 1 << 34
    IN_ORDER = 1 << 35
    ORDER_PLATFORM = 1 << 36
    SR_IOV = 1 << 37
    NOTIFICATION_DATA = 1 << 38
    NOTIF_CONFIG_DATA = 1 << 39
    RING_RESET = 1 << 40
    ADMIN_VQ = 1 << 41
    SUSPEND = 1 << 43
    DEVICE_STATS = 1 << 50
    HASH_TUNNEL = 1 << 51
    VQ_NOTF_COAL = 1 << 52
    NOTF_COAL = 1 << 53
    GUEST_USO4 = 1 << 54
    GUEST_USO6 = 1 << 55
    HOST_USO = 1 << 56
    HASH_REPORT = 1 << 57
    GUEST_HDRLEN = 1 << 59
    RSS = 1 << 60
    RSC_EXT = 1 << 61
    STANDBY = 1 << 62
    SPEED_DUPLEX = 1 << 63
    RSS_CONTEXT = 1 << 64
    GUEST_UDP_TUNNEL_GSO = 1 << 65
    GUEST_UDP_TUNNEL_GSO_CSUM = 1 << 66
    HOST_UDP_TUNNEL_GSO = 1 << 67
    HOST_UDP_TUNNEL_GSO_CSUM = 1 << 68
    OUT_NET_HEADER = 1 << 69
    IPSEC = 1 << 70


NO_FEATURES: Final = Feature(0)

# One row per dependent bit: at least one bit of every group must be present.
# (GUEST_ECN needs GUEST_TSO4 *or* GUEST_TSO6, RSS_CONTEXT needs CTRL_VQ *and* RSS.)
REQUIREMENTS: Final[dict[Feature, tuple[Feature, ...]]] = {
    Feature.CTRL_GUEST_OFFLOADS: (Feature.CTRL_VQ,),  # OUR: the command needs the queue
    Feature.GUEST_TSO4: (Feature.GUEST_CSUM,),
    Feature.GUEST_TSO6: (Feature.GUEST_CSUM,),
    Feature.GUEST_ECN: (Feature.GUEST_TSO4 | Feature.GUEST_TSO6,),
    Feature.GUEST_UFO: (Feature.GUEST_CSUM,),
    Feature.GUEST_USO4: (Feature.GUEST_CSUM,),
    Feature.GUEST_USO6: (Feature.GUEST_CSUM,),
    Feature.HOST_TSO4: (Feature.CSUM,),
    Feature.HOST_TSO6: (Feature.CSUM,),
    Feature.HOST_ECN: (Feature.HOST_TSO4 | Feature.HOST_TSO6,),
    Feature.HOST_UFO: (Feature.CSUM,),
    Feature.HOST_USO: (Feature.CSUM,),
    Feature.CTRL_RX: (Feature.CTRL_VQ,),
    Feature.CTRL_VLAN: (Feature.CTRL_VQ,),
    Feature.CTRL_RX_EXTRA: (Feature.CTRL_VQ,),
    Feature.GUEST_ANNOUNCE: (Feature.CTRL_VQ,),
    Feature.MQ: (Feature.CTRL_VQ,),
    Feature.CTRL_MAC_ADDR: (Feature.CTRL_VQ,),
    Feature.DEVICE_STATS: (Feature.CTRL_VQ,),
    Feature.HASH_TUNNEL: (Feature.CTRL_VQ, Feature.RSS | Feature.HASH_REPORT),
    Feature.VQ_NOTF_COAL: (Feature.CTRL_VQ,),
    Feature.NOTF_COAL: (Feature.CTRL_VQ,),
    Feature.HASH_REPORT: (Feature.CTRL_VQ,),
    Feature.RSS: (Feature.CTRL_VQ,),
    Feature.RSC_EXT: (Feature.HOST_TSO4 | Feature.HOST_TSO6,),
    Feature.RSS_CONTEXT: (Feature.CTRL_VQ, Feature.RSS),
    Feature.GUEST_UDP_TUNNEL_GSO: (
        Feature.GUEST_TSO4,
        Feature.GUEST_TSO6,
        Feature.GUEST_USO4,
        Feature.GUEST_USO6,
    ),
    Feature.GUEST_UDP_TUNNEL_GSO_CSUM: (Feature.GUEST_UDP_TUNNEL_GSO,),
    Feature.HOST_UDP_TUNNEL_GSO: (Feature.HOST_TSO4, Feature.HOST_TSO6, Feature.HOST_USO),
    Feature.HOST_UDP_TUNNEL_GSO_CSUM: (Feature.HOST_UDP_TUNNEL_GSO,),
}


# The same in plain numbers: asked for at every change of policy.
_ROWS: Final = tuple(
    (int(bit), tuple(int(group) for group in groups)) for bit, groups in REQUIREMENTS.items()
)


def missing_dependencies(features: Feature) -> dict[Feature, Feature]:
    """Return for each bit of ``features`` the bits it lacks, empty if consistent.

    A group of alternatives of which none is present is reported whole.
    """
    present = int(features)
    missing: dict[Feature, Feature] = {}
    for bit, groups in _ROWS:
        if present & bit:
            lacking = 0
            for group in groups:
                if not present & group:
                    lacking |= group
            if lacking:
                missing[Feature(bit)] = Feature(lacking)
    return missing


def feature_names(features: int) -> list[str]:
    """Names in lower case, lowest bit first; a bit without a name is ``bit<N>``."""
    # The declared members: the enum also remembers nameless combinations once they were made.
    known = {int(bit): name.lower() for name, bit in Feature.__members__.items()}
    positions = (p for p in range(int(features).bit_length()) if features >> p & 1)
    return [known.get(1 << position, f"bit{position}") for position in positions]


def features_from_names(names: str) -> Feature:
    """Parse a comma-separated list of lower-case names.

    Raises ValueError naming the unknown word.
    """
    features = NO_FEATURES
    for word in filter(None, (part.strip() for part in names.split(","))):
        try:
            features |= Feature[word.upper()]
        except KeyError:
            message = f"unknown feature {word!r}"
            raise ValueError(message) from None
    return features
