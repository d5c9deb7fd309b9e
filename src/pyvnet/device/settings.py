# SPDX-License-Identifier: MIT
"""What the operator decided about a device before any driver met it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pyvnet.errors import UsageError
from pyvnet.spec.config import MAX_QUEUE_PAIRS, NetConfig
from pyvnet.spec.features import Feature, feature_names, missing_dependencies
from pyvnet.spec.ring import MAX_QUEUE_SIZE
from pyvnet.spec.rss import ALL_HASH_TYPES, MAX_KEY_SIZE, MAX_TABLE_LENGTH

# Everything that works today; a bit joins this set together with its behaviour (VIO-FEAT-03).
DEFAULT_OFFER: Final = (
    Feature.VERSION_1
    | Feature.INDIRECT_DESC
    | Feature.EVENT_IDX
    | Feature.MAC
    | Feature.MRG_RXBUF
    | Feature.CTRL_VQ
    | Feature.MQ
    | Feature.RSS
    | Feature.HASH_REPORT
)

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
    the control queue to itself and therefore acks MQ without CTRL_VQ (U-60).
    ``max_queue_size`` is in descriptors.
    """

    max_virtqueue_pairs: int
    mac: bytes
    offered: Feature = DEFAULT_OFFER
    max_queue_size: int = DEFAULT_QUEUE_SIZE
    compat: frozenset[str] = frozenset()
    relaxed_dependencies: bool = False

    def __post_init__(self) -> None:
        """Refuse an offer no device may make (VIO-FEAT-01, -03, -05; NET-CFG-01)."""
        if not 1 <= self.max_virtqueue_pairs <= MAX_QUEUE_PAIRS:
            raise UsageError(
                f"queue pairs: {self.max_virtqueue_pairs} is outside 1…{MAX_QUEUE_PAIRS}"
            )
        if len(self.mac) != 6 or self.mac[0] & 1 or not any(self.mac):
            raise UsageError(f"MAC {self.mac.hex(':') or '(empty)'} is not a unicast address")
        size = self.max_queue_size
        if not 1 <= size <= MAX_QUEUE_SIZE or size & (size - 1):
            raise UsageError(f"queue size {size} is not a power of two in 1…{MAX_QUEUE_SIZE}")
        unknown = self.compat - COMPAT_SWITCHES
        if unknown:
            known = ", ".join(sorted(COMPAT_SWITCHES))
            raise UsageError(f"unknown compat switch {', '.join(sorted(unknown))}; known: {known}")
        self._check_offer()

    def _check_offer(self) -> None:
        # Integers, because inverting an IntFlag forgets bits it has no name for.
        beyond = int(self.offered) & ~int(DEFAULT_OFFER)
        if beyond:
            raise UsageError(f"cannot offer {', '.join(feature_names(beyond))}: not implemented")
        if not self.offered & Feature.VERSION_1:
            raise UsageError("version_1 must be offered: there is no legacy mode")
        for bit, lacking in missing_dependencies(self.offered).items():
            raise UsageError(
                f"{feature_names(bit)[0]} cannot be offered without "
                + " or ".join(feature_names(lacking))
            )

    def config_space(self) -> NetConfig:
        """What the driver finds in configuration space.

        Each field of an *offered* feature is there from the start (VIO-CFG-01),
        others are 0.  Key and table sizes are exactly the standard's minima:
        some drivers refuse larger keys, some use the length as it stands
        (U-09, U-13).
        """
        multiqueue = bool(self.offered & (Feature.MQ | Feature.RSS))
        hashing = bool(self.offered & (Feature.RSS | Feature.HASH_REPORT))
        return NetConfig(
            mac=self.mac if self.offered & Feature.MAC else bytes(6),
            max_virtqueue_pairs=self.max_virtqueue_pairs if multiqueue else 0,
            rss_max_key_size=MAX_KEY_SIZE if hashing else 0,
            rss_max_indirection_table_length=(
                MAX_TABLE_LENGTH if self.offered & Feature.RSS else 0
            ),
            supported_hash_types=int(ALL_HASH_TYPES) if hashing else 0,
        )
