# SPDX-License-Identifier: MIT
"""All that control commands set, as one value, and the commands of a single field.

A command replaces one part of ``ControlState`` and sees no other, so what a
driver set with one class is never touched by another.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pyvnet.device._checks import U64, StateError, check_bool, check_bytes, check_int
from pyvnet.device.command import Outcome, Rules, take
from pyvnet.device.rxfilter import RxFilter
from pyvnet.device.steering import SteeringMode, SteeringState
from pyvnet.spec.ctrl import MAC_SIZE
from pyvnet.spec.features import Feature
from pyvnet.spec.offloads import GUEST_OFFLOADS

if TYPE_CHECKING:
    from collections.abc import Iterator

_ADDRESS: Final = struct.Struct(f"{MAC_SIZE}s")
_MASK: Final = struct.Struct("<Q")

# An announcement is asked for in the status field and acknowledged over the control queue.
CAN_ANNOUNCE: Final = Feature.GUEST_ANNOUNCE | Feature.STATUS | Feature.CTRL_VQ


def check_unicast(address: bytes) -> None:
    """Refuse, with StateError, what is no station's address (U-37)."""
    check_bytes("MAC", address, MAC_SIZE)
    if address[0] & 1 or not any(address):
        raise StateError(f"MAC {address.hex(':')} is not a unicast address")


@dataclass(frozen=True, slots=True)
class ControlState:
    """What control commands set; ``initial`` is where a driver starts.

    ``mac`` is the address in force, the device's own until MAC_ADDR_SET.
    ``guest_offloads`` is the mask of GUEST_OFFLOADS_SET: what is on.
    ``announce`` is on from the request for an announcement to ANNOUNCE_ACK.
    """

    mac: bytes
    guest_offloads: int = 0
    announce: bool = False
    rx_filter: RxFilter = field(default_factory=RxFilter)
    steering: SteeringState = field(default_factory=SteeringState)

    def __post_init__(self) -> None:
        """Refuse, with StateError, what no device may hold."""
        check_unicast(self.mac)
        check_int("guest_offloads", self.guest_offloads, 0, U64)
        if self.guest_offloads & ~int(GUEST_OFFLOADS):
            raise StateError(f"guest offloads {self.guest_offloads:#x} are not supported")
        check_bool("announce", self.announce)

    @classmethod
    def initial(cls, mac: bytes, features: Feature) -> ControlState:
        """As after negotiation: offloads that were negotiated are on (NET-OFL-01)."""
        return cls(mac, int(features & GUEST_OFFLOADS))

    def check(self, mac: bytes, features: Feature, max_pairs: int, max_macs: int) -> None:
        """Refuse, with StateError, what commands under ``features`` cannot have led to.

        ``mac`` is the device's own.
        """
        self.steering.check_within(max_pairs)
        self.rx_filter.check_within(max_macs)
        for present, wanted, what in self._marks(mac, features):
            if present and not (features & wanted and features & Feature.CTRL_VQ):
                raise StateError(f"{what} without the feature that sets it")
        if self.announce and features & CAN_ANNOUNCE != CAN_ANNOUNCE:
            raise StateError("an announcement is asked for from a driver that cannot answer")
        beyond = self.guest_offloads & ~int(features)
        if beyond:
            raise StateError(f"guest offloads {beyond:#x} were not negotiated")

    def _marks(self, mac: bytes, features: Feature) -> Iterator[tuple[bool, Feature, str]]:
        """What has been set, and one of which features it takes."""
        steering, rx, plain = self.steering, self.rx_filter, RxFilter()
        hashing = Feature.RSS | Feature.HASH_REPORT
        yield steering.mode is SteeringMode.RSS, Feature.RSS, "RSS mode"
        yield steering.pairs != 1, Feature.MQ, "a number of pairs"
        yield bool(steering.hash_types), hashing, "hash types"
        yield any(steering.key), hashing, "a hash key"
        yield not rx.promisc or rx.allmulti, Feature.CTRL_RX, "a receive mode"
        extra = rx.alluni or rx.nomulti or rx.nouni or rx.nobcast
        yield extra, Feature.CTRL_RX_EXTRA, "an extra receive mode"
        tables = (rx.unicast, rx.multicast, rx.unicast_overflow, rx.multicast_overflow)
        yield any(tables), Feature.CTRL_RX, "a MAC table"
        yield rx.vlans != plain.vlans, Feature.CTRL_VLAN, "a VLAN table"
        yield self.mac != mac, Feature.CTRL_MAC_ADDR, "a MAC"
        switched = self.guest_offloads != int(features & GUEST_OFFLOADS)
        yield switched, Feature.CTRL_GUEST_OFFLOADS, "a choice of guest offloads"


def set_mac(_current: bytes, data: bytes, _: Rules) -> Outcome[bytes]:
    """MAC_ADDR_SET: the address the device answers to, and its configuration space shows.

    What is no station's address is left to the check of ``ControlState`` (U-37).
    """
    (address,), surplus = take(_ADDRESS, data)
    return Outcome(address, surplus)


def acknowledge(_current: object, data: bytes, _: Rules) -> Outcome[bool]:
    """ANNOUNCE_ACK: good also when nothing was asked for (U-38)."""
    return Outcome(value=False, surplus=len(data))


def set_guest_offloads(_current: int, data: bytes, rules: Rules) -> Outcome[int]:
    """GUEST_OFFLOADS_SET: replaces the mask; a bit that was not negotiated is ERR (U-39)."""
    (mask,), surplus = take(_MASK, data)
    beyond = mask & ~int(rules.features & GUEST_OFFLOADS)
    if beyond:
        raise StateError(f"guest offloads {beyond:#x} were not negotiated")
    return Outcome(mask, surplus)
