# SPDX-License-Identifier: MIT
"""Receive steering and hash reporting: what the MQ class of commands sets; and the policy.

Theory of operation
    ``SteeringState`` is what the driver's commands of this class left behind;
    ``Policy`` is what the frame path shall do about all commands, worked out
    from what they left and the negotiated features.  Two modes exist, and the
    last command decides (NET-MQ-01):

    automatic   after reset and after MQ_VQ_PAIRS_SET.  Receive queues 0 …
                pairs-1 are in force.  Before any command that is receiveq1
                alone, without hash and report (NET-MQ-02, U-01, U-02).
    rss         after MQ_RSS_CONFIG.  The queues named in the indirection table
                or as unclassified queue are in force, whatever ``max_tx_vq``
                says (U-12, U-60).

    Hash types and key outlive a change of mode: MQ_VQ_PAIRS_SET ends RSS but
    not the reports (U-15).  While RSS is the mode its command alone governs
    them, so steering and report cannot diverge (U-17).

    Each command is two-phase (U-07): a handler builds a complete new
    ``SteeringState``, whose constructor and ``check_within`` refuse everything
    a device may not hold, and nothing else happens.  A state put back from
    outside passes the same two.  What a handler returns replaces the old value
    at once, so the same command twice is the same as once (U-57), and
    completing the command after the runtime swapped the policy gives the driver
    the order it needs (U-41).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from pyvnet.device._checks import StateError, check_bytes, check_int, check_tuple
from pyvnet.device.command import Outcome, Rules, take
from pyvnet.device.rxfilter import RxFilter
from pyvnet.spec.config import MAX_QUEUE_PAIRS
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import HDR_V1_SIZE, header_size
from pyvnet.spec.offloads import HOST_OFFLOADS, deliverable
from pyvnet.spec.rss import (
    ALL_HASH_TYPES,
    MAX_KEY_SIZE,
    MAX_TABLE_LENGTH,
    HashConfig,
    HashType,
    RssConfig,
    key_bytes_needed,
)

if TYPE_CHECKING:
    from pyvnet.device.control import ControlState

NO_KEY: Final = bytes(MAX_KEY_SIZE)
NO_TABLE: Final = (0,)
_VQ_PAIRS: Final = struct.Struct("<H")


class SteeringMode(StrEnum):
    """Who chooses the receive queue."""

    AUTOMATIC = "automatic"
    RSS = "rss"


@dataclass(frozen=True, slots=True)
class SteeringState:
    """What the MQ class commands set; the default is the state after reset.

    ``pairs`` is the count of the last MQ_VQ_PAIRS_SET.  Table, unclassified
    queue and ``max_tx_vq`` are those of the last MQ_RSS_CONFIG while RSS is the
    mode, and hold their reset values otherwise, so that equal behaviour means
    equal states.  Queues are pair numbers, 0-based.
    """

    mode: SteeringMode = SteeringMode.AUTOMATIC
    hash_types: HashType = HashType.NONE
    key: bytes = NO_KEY
    indirection_table: tuple[int, ...] = NO_TABLE
    unclassified_queue: int = 0
    max_tx_vq: int = 0
    pairs: int = 1

    def __post_init__(self) -> None:
        """Refuse, with StateError, what no device may hold whatever its size."""
        if not isinstance(self.mode, SteeringMode):
            raise StateError(f"steering mode {self.mode!r} is unknown")
        check_int("hash_types", self.hash_types, 0, int(ALL_HASH_TYPES))
        check_bytes("hash key", self.key, MAX_KEY_SIZE)
        check_tuple("indirection table", self.indirection_table, int)
        length = len(self.indirection_table)
        if not 1 <= length <= MAX_TABLE_LENGTH or length & (length - 1):
            raise StateError(
                f"indirection table of {length} entries: "
                f"not a power of two up to {MAX_TABLE_LENGTH}"
            )
        active = self.mode is SteeringMode.RSS
        check_int("max_tx_vq", self.max_tx_vq, int(active), MAX_QUEUE_PAIRS if active else 0)
        check_int("pairs", self.pairs, 1, MAX_QUEUE_PAIRS)
        self.check_within(MAX_QUEUE_PAIRS)
        if not active and (self.indirection_table, self.unclassified_queue) != (NO_TABLE, 0):
            raise StateError("an indirection table is set while RSS is not the mode")

    def check_within(self, max_pairs: int) -> None:
        """Refuse, with StateError, what a device of ``max_pairs`` may not hold (U-10, U-12).

        A queue number with its reserved bit 15 set is beyond every maximum.
        """
        for position, queue in enumerate(self.indirection_table):
            check_int(f"indirection table entry {position}", queue, 0, max_pairs - 1)
        check_int("unclassified queue", self.unclassified_queue, 0, max_pairs - 1)
        check_int("max_tx_vq", self.max_tx_vq, 0, max_pairs)
        check_int("pairs", self.pairs, 1, max_pairs)


def set_vq_pairs(current: SteeringState, data: bytes, rules: Rules) -> Outcome[SteeringState]:
    """MQ_VQ_PAIRS_SET: automatic steering over the first ``pairs`` queues (NET-MQ-04).

    Under ``rss-survives-vq-pairs`` RSS stays the mode as long as it names none
    of the queues this command takes out of force (NET-MQ-03).
    """
    (pairs,), surplus = take(_VQ_PAIRS, data)
    check_int("pairs", pairs, 1, rules.max_pairs)
    if current.mode is not SteeringMode.RSS:
        return Outcome(replace(current, pairs=pairs), surplus)
    if rules.rss_survives_vq_pairs and max(rss_queues(current)) < pairs:
        kept = replace(current, pairs=pairs)
        return Outcome(kept, surplus, ("RSS and its table stay in force",))
    automatic = SteeringState(hash_types=current.hash_types, key=current.key, pairs=pairs)
    return Outcome(automatic, surplus, ("steering is automatic, the RSS table is gone",))


def configure_rss(current: SteeringState, data: bytes, rules: Rules) -> Outcome[SteeringState]:
    """MQ_RSS_CONFIG: RSS with the given table, hash types and key (U-09 … U-14)."""
    config, surplus = RssConfig.parse(data)
    hash_types, key, remarks = _hashing(config.hash_types, config.key, rules)
    steering = SteeringState(
        SteeringMode.RSS,
        hash_types,
        key,
        config.indirection_table,
        config.unclassified_queue,
        config.max_tx_vq,
        current.pairs,
    )
    steering.check_within(rules.max_pairs)
    return Outcome(steering, surplus, remarks)


def configure_hash(current: SteeringState, data: bytes, rules: Rules) -> Outcome[SteeringState]:
    """MQ_HASH_CONFIG: types and key of the reports; ``reserved`` is not looked at (U-18)."""
    config, surplus = HashConfig.parse(data)
    hash_types, key, remarks = _hashing(config.hash_types, config.key, rules)
    return Outcome(replace(current, hash_types=hash_types, key=key), surplus, remarks)


def _hashing(wanted: int, key: bytes, rules: Rules) -> tuple[HashType, bytes, tuple[str, ...]]:
    """Hash types and 40-byte key by U-08 and U-13, with remarks; StateError on a refusal.

    A key that is too long is left to the check of ``SteeringState``.
    """
    remarks = []
    unknown = wanted & ~int(ALL_HASH_TYPES)
    if unknown and not rules.lenient_hash_types:
        raise StateError(f"hash types {unknown:#x} are not supported")
    if unknown:
        remarks.append(f"unsupported hash types {unknown:#x} are masked out")
    types = HashType(wanted & int(ALL_HASH_TYPES))
    if types and not key:
        raise StateError("no hash key, but hash types")
    needed = key_bytes_needed(types)
    if len(key) < needed:
        remarks.append(f"hash key of {len(key)} bytes is extended by zeros, the types use {needed}")
    return types, key.ljust(MAX_KEY_SIZE, b"\0"), tuple(remarks)


def rss_queues(steering: SteeringState) -> frozenset[int]:
    """Receive queues RSS can reach: those in the table and the unclassified one."""
    return frozenset(steering.indirection_table) | {steering.unclassified_queue}


@dataclass(frozen=True, slots=True)
class Policy:
    """What the frame path shall do; replaced as a whole, never edited.

    ``header_length`` is in bytes (12 or 20).  ``key`` always has 40 bytes.
    ``hash_types`` governs steering and report alike and is none where neither
    needs a hash.  In automatic mode receive queues 0 … ``pairs``-1 are in
    force; in RSS mode ``queues_in_force`` says which, and ``pairs`` is the
    highest of them + 1.  ``port_queues`` host port queues, from 0, are attached
    (U-62).

    ``rx_filter`` is what the driver commanded, ``mac`` the address it answers
    to; ``vlan_filter``: tags not in the table are dropped.  ``mtu`` is in bytes
    without the Ethernet header, 0 where none was agreed on.
    ``guest_offloads``: what may be delivered now, as in GUEST_OFFLOADS_SET;
    ``host_offloads``: feature bits of what the driver may ask for.
    """

    mode: SteeringMode = SteeringMode.AUTOMATIC
    hash_types: HashType = HashType.NONE
    key: bytes = NO_KEY
    indirection_table: tuple[int, ...] = NO_TABLE
    unclassified_queue: int = 0
    pairs: int = 1
    header_length: int = HDR_V1_SIZE
    merge_rx: bool = False
    ex_types_always: bool = False
    port_queues: int = 1
    queues_in_force: frozenset[int] = frozenset({0})
    rx_filter: RxFilter = field(default_factory=RxFilter)
    vlan_filter: bool = False
    mac: bytes = bytes(6)
    mtu: int = 0
    guest_offloads: int = 0
    host_offloads: int = 0


def make_policy(
    control: ControlState,
    features: Feature,
    *,
    receiveqs: frozenset[int],
    ex_types_always: bool,
    mtu: int,
) -> Policy:
    """Work out the policy for what was commanded and negotiated.

    ``receiveqs`` are the pair numbers of the receive queues that are set up and
    enabled: without a control queue no command ever comes and they are the ones
    in force (U-60).  ``mtu`` holds if MTU was negotiated.
    """
    steering = control.steering
    if steering.mode is SteeringMode.RSS:
        in_force = rss_queues(steering)
    elif features and not features & Feature.CTRL_VQ:
        in_force = receiveqs or frozenset({0})
    else:
        in_force = frozenset(range(steering.pairs))
    hashed = steering.mode is SteeringMode.RSS or features & Feature.HASH_REPORT
    count = max(in_force) + 1
    return Policy(
        steering.mode,
        steering.hash_types if hashed else HashType.NONE,
        steering.key,
        steering.indirection_table,
        steering.unclassified_queue,
        count,
        header_size(features),
        bool(features & Feature.MRG_RXBUF),
        ex_types_always,
        count,
        in_force,
        rx_filter=control.rx_filter,
        # A front-end that keeps the control queue keeps the table too, and filters itself.
        vlan_filter=bool(features & Feature.CTRL_VLAN and features & Feature.CTRL_VQ),
        mac=control.mac,
        mtu=mtu if features & Feature.MTU else 0,
        guest_offloads=int(deliverable(control.guest_offloads)),
        host_offloads=int(features & HOST_OFFLOADS),
    )
