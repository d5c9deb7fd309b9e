# SPDX-License-Identifier: MIT
"""What the standard and our decisions say of a device, in as few words as possible."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.device.support import MAC, OFFER, PAIRS

V1, CVQ, MQ, RSS, HASH = 1 << 32, 1 << 17, 1 << 22, 1 << 60, 1 << 57
MRG, MTU, STATUS, ANNOUNCE = 1 << 15, 1 << 3, 1 << 16, 1 << 21
CTRL_RX, CTRL_VLAN, RX_EXTRA, CTRL_MAC, CTRL_OFFLOADS = 1 << 18, 1 << 19, 1 << 20, 1 << 23, 1 << 2
CSUM, TSO, ECN = 1 << 1, 1 << 7 | 1 << 8, 1 << 9
GUEST = CSUM | TSO | ECN | 1 << 54 | 1 << 55
HOST = 1 << 0 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 56
ALL = int(OFFER) | MTU

OWN_MTU = 4000
MAX_MACS = 4
MODES = ("promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast")

# A bit, and those of which it needs one.
NEEDS: dict[int, int] = {1 << 9: TSO, 1 << 13: 1 << 11 | 1 << 12}
NEEDS |= {1 << bit: CVQ for bit in (2, 18, 19, 20, 21, 22, 23, 57, 60)}
NEEDS |= {1 << bit: CSUM for bit in (7, 8, 54, 55)}
NEEDS |= {1 << bit: 1 for bit in (11, 12, 56)}


@dataclass
class Commanded:
    """What a driver's commands set."""

    offloads: int = 0
    rss: tuple[tuple[int, ...], int] | None = None  # table, unclassified
    types: int = 0
    key: bytes = bytes(40)
    pairs: int = 1
    modes: set[str] = field(default_factory=lambda: {"promisc"})
    tables: tuple[tuple[bytes, ...], tuple[bytes, ...]] = ((), ())
    vlans: set[int] = field(default_factory=set)
    mac: bytes = MAC
    announce: bool = False


@dataclass
class Model:
    """The device, its driver and its front-end."""

    relaxed: bool = False
    status: int = 0
    written: int = 0
    queues: dict[int, int] = field(default_factory=dict)  # index -> size
    off: set[int] = field(default_factory=set)  # queues a front-end disabled
    commanded: Commanded = field(default_factory=Commanded)
    # Of the host: no reset touches it.
    link: bool = True
    mtu: int = OWN_MTU

    @property
    def features(self) -> int:
        return self.written if self.status & 8 else 0

    def reset(self) -> None:
        self.status = self.written = 0
        self.queues, self.off, self.commanded = {}, set(), Commanded()

    def acceptable(self, bits: int) -> bool:
        consistent = all(
            bits & need or (self.relaxed and need == CVQ)
            for bit, need in NEEDS.items()
            if bits & bit
        )
        return bool(bits & ~ALL == 0 and bits & V1 and consistent)

    def negotiate(self, bits: int) -> None:
        if not (self.status & 8 and self.written == bits):
            self.reset()
            self.status, self.written = 11, bits
            self.commanded.offloads = bits & GUEST

    def begin_anew(self) -> None:
        self.status &= ~64
        self.commanded = Commanded(offloads=self.features & GUEST)

    def queue_count(self) -> int:
        features = self.features if self.status & 8 else ALL
        pairs = PAIRS if features & (MQ | RSS) else 1
        return 2 * pairs + bool(features & CVQ)

    def good_ring(self, index: int, size: int) -> bool:
        return size in {1 << power for power in range(11)} and index < self.queue_count()

    def write_status(self, value: int) -> None:
        """Climb bit by bit; any stumble and the write never happened."""
        ladder = [1, 2, 8, 4]
        held = [bit for bit in ladder if self.status & bit]
        wanted = [bit for bit in ladder if value & bit]
        if value & ~0xDF or wanted[: len(held)] != held or wanted != ladder[: len(wanted)]:
            return
        if self.status & 128 and not value & 128:
            return
        if len(wanted) > len(held) and self.status & (64 | 128):
            return
        agreed = 8 in wanted and 8 not in held
        if agreed and not self.acceptable(self.written):
            if 4 in wanted:
                return
            wanted.remove(8)
            agreed = False
        started = 4 in wanted and 4 not in held
        self.status = sum(wanted) | value & 128 | self.status & 64
        if agreed:
            self.commanded.offloads = self.written & GUEST
        if started and not all(self.good_ring(*queue) for queue in self.queues.items()):
            self.status |= 64

    def in_force(self) -> set[int]:
        if self.commanded.rss:
            return set(self.commanded.rss[0]) | {self.commanded.rss[1]}
        if self.features and not self.features & CVQ:
            pairs = PAIRS if self.features & (MQ | RSS) else 1
            return {
                pair
                for pair in range(pairs)
                if 2 * pair in self.queues and 2 * pair not in self.off
            } or {0}
        return set(range(self.commanded.pairs))

    def offloads(self) -> int:
        """Those that can be used: segmentation needs the checksum, ECN segmentation of TCP."""
        chosen = self.commanded.offloads
        if not chosen & CSUM:
            return 0
        return chosen if chosen & TSO else chosen & ~ECN

    def policy(self) -> dict[str, object]:
        told, features, in_force = self.commanded, self.features, self.in_force()
        table, unclassified = told.rss or ((0,), 0)
        unicast, multicast = told.tables
        kept = [entries if len(entries) <= MAX_MACS else () for entries in (unicast, multicast)]
        return {
            "mode": "rss" if told.rss else "automatic",
            "hash_types": told.types if told.rss or features & HASH else 0,
            "key": told.key,
            "indirection_table": table,
            "unclassified_queue": unclassified,
            "pairs": max(in_force) + 1,
            "header_length": 20 if features & HASH else 12,
            "merge_rx": bool(features & MRG),
            "ex_types_always": False,
            "port_queues": max(in_force) + 1,
            "queues_in_force": in_force,
            "rx_filter": {
                **{mode: mode in told.modes for mode in MODES},
                "unicast": kept[0],
                "multicast": kept[1],
                "unicast_overflow": len(unicast) > MAX_MACS,
                "multicast_overflow": len(multicast) > MAX_MACS,
                "vlans": told.vlans,
            },
            "vlan_filter": features & (CTRL_VLAN | CVQ) == CTRL_VLAN | CVQ,
            "mac": told.mac,
            "mtu": self.mtu if features & MTU else 0,
            "guest_offloads": self.offloads(),
            "host_offloads": features & HOST,
        }

    def config(self) -> bytes:
        """The first 8 bytes of configuration space: MAC and status."""
        return self.commanded.mac + bytes([self.link | self.commanded.announce << 1, 0])
