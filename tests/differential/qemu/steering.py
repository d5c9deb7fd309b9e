# SPDX-License-Identifier: MIT
"""What control commands lead to, twice: by our decisions, and as QEMU 7.2 takes them.

Both are told of every command and say how it is answered and where a frame then goes.
What QEMU does otherwise bears the number of the decision it departs from, so that a
difference has a reason before any device was asked.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet.spec.ctrl import Ack, CtrlClass, MacCommand, MqCommand
from pyvnet.spec.features import Feature
from pyvnet.spec.offloads import GUEST_OFFLOADS
from tests.differential.qemu.reading import our_answer, predict

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TABLE: Final = 128
MAX_KEY: Final = 40
KNOWN_TYPES: Final = 0x1FF
_RX_COMMANDS: Final = 6
_RX_PLAIN: Final = 2  # PROMISC and ALLMULTI, which come with CTRL_RX
_MAX_VID: Final = 4095
_RSC_EXT: Final = 1 << 61

REASONS: Final[dict[str, str]] = {
    "U-02": "RSS and hash reports outlive a reset",
    "U-04": "the size of a MAC table is worked out in 32 bits",
    "U-05": "a command without class, code or room for the answer ends in DEVICE_NEEDS_RESET",
    "U-06": "MAC_ADDR_SET and MAC_TABLE_SET may not be longer than needed",
    "U-07": "a refused command of class MQ ends RSS and hash reports",
    "U-08": "unknown hash types are accepted",
    "U-10": "table entries are not checked, and taken modulo the pairs in force",
    "U-12": "max_tx_vq is the number of pairs in force for receiving too",
    "U-13": "behind a short key there is the tail of the one before",
    "U-14": "no hash types and no key end RSS",
    "U-15": "VQ_PAIRS_SET ends hash reports",
    "U-17": "HASH_CONFIG is accepted while RSS is on, and steers by a table of its own",
    "U-33": "commands of CTRL_RX_EXTRA are accepted without the feature",
    "U-37": "a multicast or zero address is accepted",
    "U-38": "ANNOUNCE_ACK is refused when nothing was announced",
    "U-39": "bit 61 is accepted without RSC_EXT",
    "U-65": "commands of CTRL_RX, CTRL_VLAN and CTRL_MAC_ADDR are accepted without the feature",
}


class Judged(NamedTuple):
    """How a command is answered (None: not at all), and the decisions that is against."""

    ack: Ack | None
    against: frozenset[str] = frozenset()


class Placed(NamedTuple):
    """What is seen of a frame: report, value, queue; None where it cannot be known."""

    report: int
    value: int | None
    queue: int | None


OK: Final = Judged(Ack.OK)
ERR: Final = Judged(Ack.ERR)


class ShortError(Exception):
    """The payload ends too early."""


@dataclass(slots=True)
class Fields:
    """A payload taken apart from the front."""

    data: bytes

    def take(self, layout: str) -> tuple[int, ...]:
        size = struct.calcsize(layout)
        if len(self.data) < size:
            raise ShortError
        values = struct.unpack_from(layout, self.data)
        self.data = self.data[size:]
        return values

    def bytes(self, size: int) -> bytes:
        if len(self.data) < size:
            raise ShortError
        data, self.data = self.data[:size], self.data[size:]
        return data


class Steering(ABC):
    """One side's state, as far as answers and queues depend on it."""

    def __init__(self, features: Feature, pairs: int) -> None:
        self.features = features
        self.max_pairs = pairs
        self.pairs = 1
        self.types = 0
        self.key = bytes(MAX_KEY)
        self.table: tuple[int, ...] = (0,)
        self.unclassified = 0
        self.rss = False
        self.promisc = True

    def judge(self, request: bytes, writable: int) -> Judged:
        """Carry out one command."""
        if len(request) < 2 or not writable:
            return self.no_header()
        handlers: dict[int, Callable[[int, Fields], Judged]] = {
            CtrlClass.RX: self.rx,
            CtrlClass.MAC: self.mac,
            CtrlClass.VLAN: self.vlan,
            CtrlClass.ANNOUNCE: self.announce,
            CtrlClass.MQ: self.mq,
            CtrlClass.GUEST_OFFLOADS: self.offloads,
        }
        handler = handlers.get(request[0])
        if handler is None:
            return ERR
        try:
            return handler(request[1], Fields(request[2:]))
        except ShortError:
            return ERR

    @abstractmethod
    def no_header(self) -> Judged: ...
    @abstractmethod
    def rx(self, code: int, fields: Fields) -> Judged: ...
    @abstractmethod
    def mac(self, code: int, fields: Fields) -> Judged: ...
    @abstractmethod
    def vlan(self, code: int, fields: Fields) -> Judged: ...
    @abstractmethod
    def announce(self, code: int, fields: Fields) -> Judged: ...
    @abstractmethod
    def mq(self, code: int, fields: Fields) -> Judged: ...
    @abstractmethod
    def offloads(self, code: int, fields: Fields) -> Judged: ...

    def has(self, feature: Feature) -> bool:
        return bool(self.features & feature)

    def _rx_mode(self, code: int, fields: Fields) -> bool:
        (value,) = fields.take("<B")
        if code == 0:
            self.promisc = value != 0
        return code < _RX_COMMANDS


class Ours(Steering):
    """By docs/decisions.md."""

    def no_header(self) -> Judged:
        return Judged(None)

    def rx(self, code: int, fields: Fields) -> Judged:
        needed = Feature.CTRL_RX if code < _RX_PLAIN else Feature.CTRL_RX_EXTRA
        return OK if self.has(needed) and self._rx_mode(code, fields) else ERR

    def mac(self, code: int, fields: Fields) -> Judged:
        if code == MacCommand.ADDR_SET and self.has(Feature.CTRL_MAC_ADDR):
            address = fields.bytes(6)
            return OK if any(address) and not address[0] & 1 else ERR
        if code == MacCommand.TABLE_SET and self.has(Feature.CTRL_RX):
            for _ in range(2):
                (count,) = fields.take("<I")
                fields.bytes(6 * count)
            return OK
        return ERR

    def vlan(self, code: int, fields: Fields) -> Judged:
        (vid,) = fields.take("<H")
        return OK if self.has(Feature.CTRL_VLAN) and code < 2 and vid <= _MAX_VID else ERR

    def announce(self, code: int, fields: Fields) -> Judged:
        del fields
        return OK if self.has(Feature.GUEST_ANNOUNCE) and code == 0 else ERR

    def mq(self, code: int, fields: Fields) -> Judged:
        if code == MqCommand.VQ_PAIRS_SET and self.has(Feature.MQ):
            (pairs,) = fields.take("<H")
            if not 0 < pairs <= self.max_pairs:
                return ERR
            self.pairs, self.rss = pairs, False
            return OK
        if code == MqCommand.RSS_CONFIG and self.has(Feature.RSS):
            return self._rss_config(fields)
        if code == MqCommand.HASH_CONFIG and self.has(Feature.HASH_REPORT) and not self.rss:
            types, *_, length = fields.take("<I4HB")
            return self._hashing(types, fields.bytes(length))
        return ERR

    def _rss_config(self, fields: Fields) -> Judged:
        types, mask, unclassified = fields.take("<IHH")
        table = fields.take(f"<{mask + 1}H")
        max_tx_vq, length = fields.take("<HB")
        key = fields.bytes(length)
        if mask & (mask + 1) or mask >= MAX_TABLE or not 0 < max_tx_vq <= self.max_pairs:
            return ERR
        if max(*table, unclassified) >= self.max_pairs:
            return ERR
        judged = self._hashing(types, key)
        if judged.ack is Ack.OK:
            self.table, self.unclassified, self.rss = table, unclassified, True
        return judged

    def _hashing(self, types: int, key: bytes) -> Judged:
        if types & ~KNOWN_TYPES or len(key) > MAX_KEY or (types and not key):
            return ERR
        self.types, self.key = types, key.ljust(MAX_KEY, b"\0")
        return OK

    def offloads(self, code: int, fields: Fields) -> Judged:
        if not self.has(Feature.CTRL_GUEST_OFFLOADS) or code:
            return ERR
        (mask,) = fields.take("<Q")
        return ERR if mask & ~int(self.features & GUEST_OFFLOADS) else OK

    def place(self, frame: bytes) -> Placed:
        """Where a frame goes; the queue of automatic steering is not foretold."""
        report, value = our_answer(frame, self.types, self.key)
        if not self.rss:
            return Placed(report, value, None if self.pairs > 1 else 0)
        queue = self.table[value % len(self.table)] if report else self.unclassified
        return Placed(report, value, queue)


class Qemus(Steering):
    """As QEMU does; of what was ``before`` a reset it keeps all but the number of pairs.

    Attributes:
        against: the decisions that put its steering apart from ours.
        rss: whether RSS is on at ours, which is told from outside.
    """

    def __init__(self, features: Feature, pairs: int, before: Qemus | None = None) -> None:
        super().__init__(features, pairs)
        self.on = False
        self.against: set[str] = set()
        if before is not None:
            self.on, self.types, self.key = before.on, before.types, before.key
            self.table, self.unclassified = before.table, before.unclassified
            self.against.add("U-02")

    def no_header(self) -> Judged:
        return Judged(None, frozenset({"U-05"}))

    def rx(self, code: int, fields: Fields) -> Judged:
        if not self._rx_mode(code, fields):
            return ERR
        if code < _RX_PLAIN:
            return self._without(Feature.CTRL_RX, "U-65")
        return self._without(Feature.CTRL_RX_EXTRA, "U-33")

    def _without(self, feature: Feature, number: str) -> Judged:
        return OK if self.has(feature) else Judged(Ack.OK, frozenset({number}))

    def mac(self, code: int, fields: Fields) -> Judged:
        if code == MacCommand.ADDR_SET:
            return self._address(fields)
        return self._mac_table(fields) if code == MacCommand.TABLE_SET else ERR

    def _address(self, fields: Fields) -> Judged:
        address = fields.bytes(6)
        bad = not any(address) or address[0] & 1
        allowed = self.has(Feature.CTRL_MAC_ADDR)
        if fields.data:
            return Judged(Ack.ERR, frozenset({"U-06"} if allowed and not bad else ()))
        if bad:
            return Judged(Ack.OK, frozenset({"U-37"}))
        return self._without(Feature.CTRL_MAC_ADDR, "U-65")

    def _mac_table(self, fields: Fields) -> Judged:
        against = set() if self.has(Feature.CTRL_RX) else {"U-65"}
        for last in (False, True):
            (count,) = fields.take("<I")
            size = count * 6 & 0xFFFF_FFFF
            if size != count * 6:
                against.add("U-04")
            if last and len(fields.data) > size:
                return Judged(Ack.ERR, frozenset() if against else frozenset({"U-06"}))
            fields.bytes(size)
        return Judged(Ack.OK, frozenset(against))

    def vlan(self, code: int, fields: Fields) -> Judged:
        (vid,) = fields.take("<H")
        return self._without(Feature.CTRL_VLAN, "U-65") if code < 2 and vid <= _MAX_VID else ERR

    def announce(self, code: int, fields: Fields) -> Judged:
        del fields
        known = self.has(Feature.GUEST_ANNOUNCE) and code == 0
        return Judged(Ack.ERR, frozenset({"U-38"} if known else ()))

    def mq(self, code: int, fields: Fields) -> Judged:
        self.on = False
        self.against.add("U-07")
        if code == MqCommand.VQ_PAIRS_SET:
            (pairs,) = fields.take("<H")
            if not self.has(Feature.MQ) or not 0 < pairs <= self.max_pairs:
                return ERR
            self.pairs = pairs
            self.against = {"U-15"}
            return OK
        if code == MqCommand.RSS_CONFIG and self.has(Feature.RSS):
            return self._config(fields, with_table=True)
        if code == MqCommand.HASH_CONFIG and self.has(Feature.HASH_REPORT):
            return self._config(fields, with_table=False)
        return ERR

    def _config(self, fields: Fields, *, with_table: bool) -> Judged:
        """One reader for both commands; what it has read stays, whatever comes behind it."""
        self.types, mask, unclassified = fields.take("<IHH")
        length = (mask + 1) & 0xFFFF if with_table else 1
        if not length or length & (length - 1) or length > MAX_TABLE:
            return ERR
        if with_table and unclassified >= self.max_pairs:
            return ERR
        self.unclassified = unclassified if with_table else 0
        self.table = fields.take(f"<{length}H")
        max_tx_vq, size = fields.take("<HB")
        pairs = max_tx_vq if with_table else self.pairs
        if not 0 < pairs <= self.max_pairs or size > MAX_KEY or (self.types and not size):
            return ERR
        given = fields.data[:size]
        self.key = given + self.key[len(given) :]
        if len(given) < size:
            return ERR
        self.on = bool(size)
        self.pairs = pairs
        acks = self._against_config(with_table=with_table)
        self.against = acks | self._apart(size)
        return Judged(Ack.OK, frozenset(acks))

    def _against_config(self, *, with_table: bool) -> set[str]:
        """Why ours is ERR."""
        against = {"U-08"} if self.types & ~KNOWN_TYPES else set()
        if not with_table and self.rss:
            against.add("U-17")
        if with_table and max(self.table) >= self.max_pairs:
            against.add("U-10")
        return against

    def _apart(self, key_size: int) -> set[str]:
        """Why frames may go elsewhere although both have accepted it."""
        numbers = {"U-17"} if self.has(Feature.RSS) else set()
        if key_size < MAX_KEY:
            numbers.add("U-13" if key_size else "U-14")
        if max(*self.table, self.unclassified) >= self.pairs:
            numbers.add("U-12")
        return numbers

    def offloads(self, code: int, fields: Fields) -> Judged:
        if not self.has(Feature.CTRL_GUEST_OFFLOADS) or code:
            return ERR
        (mask,) = fields.take("<Q")
        if mask & ~(int(self.features & GUEST_OFFLOADS) | _RSC_EXT):
            return ERR
        return Judged(Ack.OK, frozenset({"U-39"} if mask & _RSC_EXT else ()))

    def place(self, frame: bytes) -> Placed:
        """Where a frame goes; the kernel chooses where this does not, and that is not foretold."""
        if not self.on:
            return Placed(0, 0, 0 if self.pairs == 1 else None)
        predicted = predict(frame, self.types, self.key)
        if not self.has(Feature.RSS):
            queue = 0 if self.pairs == 1 else None
        elif predicted.value is None:
            queue = None
        elif predicted.report:
            queue = self.table[predicted.value % len(self.table)] % self.pairs
        else:
            queue = self.unclassified % self.pairs
        return Placed(predicted.report, predicted.value, queue)
