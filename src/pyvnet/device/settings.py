# SPDX-License-Identifier: MIT
"""What the operator decided about a device before any driver met it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from pyvnet.device.rxfilter import MAX_MACS
from pyvnet.errors import UsageError
from pyvnet.spec.config import (
    DUPLEX_FULL,
    DUPLEX_HALF,
    DUPLEX_UNKNOWN,
    MAX_MTU,
    MAX_QUEUE_PAIRS,
    MAX_SPEED,
    MIN_MTU_OFFERED,
    SPEED_UNKNOWN,
)
from pyvnet.spec.features import Feature, feature_names, missing_dependencies
from pyvnet.spec.ring import MAX_QUEUE_SIZE

# What is offered unless told otherwise.
DEFAULT_OFFER: Final = (
    Feature.VERSION_1
    | Feature.INDIRECT_DESC
    | Feature.EVENT_IDX
    | Feature.IN_ORDER
    | Feature.MAC
    | Feature.MRG_RXBUF
    | Feature.CTRL_VQ
    | Feature.MQ
    | Feature.RSS
    | Feature.HASH_REPORT
    | Feature.STATUS
    | Feature.SPEED_DUPLEX
    | Feature.CTRL_RX
    | Feature.CTRL_RX_EXTRA
    | Feature.CTRL_VLAN
    | Feature.CTRL_MAC_ADDR
    | Feature.GUEST_ANNOUNCE
    | Feature.CTRL_GUEST_OFFLOADS
    | Feature.CSUM
    | Feature.GUEST_CSUM
    | Feature.HOST_TSO4
    | Feature.HOST_TSO6
    | Feature.HOST_ECN
    | Feature.HOST_USO
    | Feature.GUEST_TSO4
    | Feature.GUEST_TSO6
    | Feature.GUEST_ECN
    | Feature.GUEST_USO4
    | Feature.GUEST_USO6
)

# Everything that works today; a bit joins this set together with its behaviour (VIO-FEAT-03).
# MTU is offered once the operator names one.
IMPLEMENTED: Final = DEFAULT_OFFER | Feature.MTU

# Largest ring taken unless told otherwise, in descriptors: what QEMU allows too.
DEFAULT_QUEUE_SIZE: Final = 1024

LENIENT_HASH_TYPES: Final = "lenient-hash-types"
RSS_SURVIVES_VQ_PAIRS: Final = "rss-survives-vq-pairs"
EX_TYPES_ALWAYS: Final = "ex-types-always"
COMPAT_SWITCHES: Final = frozenset({LENIENT_HASH_TYPES, RSS_SURVIVES_VQ_PAIRS, EX_TYPES_ALWAYS})


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Everything fixed for the life of a device; raises UsageError when it cannot be offered.

    ``compat`` names deviations from our reading of the standard:
    ``lenient-hash-types`` masks unknown hash types instead of refusing them
    (U-08), ``rss-survives-vq-pairs`` keeps RSS running across MQ_VQ_PAIRS_SET
    (U-15), ``ex-types-always`` hashes every IPv6 packet by the EX types
    (U-19).  ``relaxed_dependencies`` is for transports whose front-end keeps
    the control queue to itself and therefore acks MQ, and whatever else needs
    CTRL_VQ, without it (U-60).  ``max_queue_size`` is in descriptors.

    ``mtu`` is in bytes without the Ethernet header; giving one offers MTU.
    ``speed`` is in Mbit/s, or 0xffffffff for unknown; ``duplex`` is 0 half, 1
    full, 0xff unknown (U-50).  ``max_macs`` bounds each class of the MAC table
    (U-36).
    """

    max_virtqueue_pairs: int
    mac: bytes
    offered: Feature = DEFAULT_OFFER
    max_queue_size: int = DEFAULT_QUEUE_SIZE
    compat: frozenset[str] = frozenset()
    relaxed_dependencies: bool = False
    mtu: int | None = None
    speed: int = 10000
    duplex: int = DUPLEX_FULL
    max_macs: int = 64

    def __post_init__(self) -> None:
        """Refuse an offer no device may make (VIO-FEAT-01, -03, -05; NET-CFG-01)."""
        if not 1 <= self.max_virtqueue_pairs <= MAX_QUEUE_PAIRS:
            raise UsageError(
                f"queue pairs: {self.max_virtqueue_pairs} is outside 1…{MAX_QUEUE_PAIRS}"
            )
        if not isinstance(self.mac, bytes | bytearray):
            raise UsageError(f"MAC {self.mac!r}: give its six bytes")
        if len(self.mac) != 6 or self.mac[0] & 1 or not any(self.mac):
            raise UsageError(f"MAC {self.mac.hex(':') or '(empty)'} is not a unicast address")
        size = self.max_queue_size
        if not 1 <= size <= MAX_QUEUE_SIZE or size & (size - 1):
            raise UsageError(f"queue size {size} is not a power of two in 1…{MAX_QUEUE_SIZE}")
        unknown = self.compat - COMPAT_SWITCHES
        if unknown:
            known = ", ".join(sorted(COMPAT_SWITCHES))
            raise UsageError(f"unknown compat switch {', '.join(sorted(unknown))}; known: {known}")
        self._check_link()
        self._check_offer()

    def _check_link(self) -> None:
        """Refuse what configuration space may not show (NET-CFG-02, -03, -09, -10)."""
        if self.mtu is not None:
            if not MIN_MTU_OFFERED <= self.mtu <= MAX_MTU:
                raise UsageError(f"MTU {self.mtu} is outside {MIN_MTU_OFFERED}…{MAX_MTU}")
            object.__setattr__(self, "offered", self.offered | Feature.MTU)
        elif self.offered & Feature.MTU:
            raise UsageError("mtu cannot be offered without saying which")
        if not 0 <= self.speed <= MAX_SPEED and self.speed != SPEED_UNKNOWN:
            raise UsageError(f"speed {self.speed} is outside 0…{MAX_SPEED} and not 'unknown'")
        if self.duplex not in {DUPLEX_HALF, DUPLEX_FULL, DUPLEX_UNKNOWN}:
            raise UsageError(f"duplex {self.duplex} is not 0, 1 or {DUPLEX_UNKNOWN}")
        if not 1 <= self.max_macs <= MAX_MACS:
            raise UsageError(f"MAC table: {self.max_macs} addresses are outside 1…{MAX_MACS}")

    def _check_offer(self) -> None:
        # Integers, because inverting an IntFlag forgets bits it has no name for.
        beyond = int(self.offered) & ~int(IMPLEMENTED)
        if beyond:
            raise UsageError(f"cannot offer {', '.join(feature_names(beyond))}: not implemented")
        if not self.offered & Feature.VERSION_1:
            raise UsageError("version_1 must be offered: there is no legacy mode")
        for bit, lacking in missing_dependencies(self.offered).items():
            raise UsageError(
                f"{feature_names(bit)[0]} cannot be offered without "
                + " or ".join(feature_names(lacking))
            )


def random_mac() -> bytes:
    """A MAC of our own making: locally administered, unicast."""
    mac = bytearray(secrets.token_bytes(6))
    mac[0] = mac[0] & 0xFC | 0x02
    return bytes(mac)
