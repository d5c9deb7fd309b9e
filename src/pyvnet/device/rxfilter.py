# SPDX-License-Identifier: MIT
"""Receive filtering: what the commands of classes RX, MAC (its table) and VLAN set.

Theory of operation
    ``RxFilter`` is kept as the driver commanded it; how modes, tables and
    overflow combine is the frame path's to know ("Packet Receive Filtering",
    U-34, U-35).  Before any command everything is received (U-31), which is
    also what a driver without CTRL_RX needs.

    A table of more addresses than the device keeps is not refused: its class
    overflows, its table is emptied, and all of the class is received (U-36).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pyvnet.device._checks import StateError, check_bool, check_bytes, check_int, check_tuple
from pyvnet.device.command import Outcome, Rules, take
from pyvnet.spec.ctrl import MAC_SIZE, MAX_VLAN
from pyvnet.spec.rss import ShortPayloadError

if TYPE_CHECKING:
    from collections.abc import Callable

# Addresses of one class a device can be told to keep; the frame path's table has as many.
MAX_MACS: Final = 4096

MODES: Final = ("promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast")

_COUNT: Final = struct.Struct("<I")
_MODE: Final = struct.Struct("<B")
_VID: Final = struct.Struct("<H")


@dataclass(frozen=True, slots=True)
class RxFilter:
    """What classes 0 to 2 set; the default is the state after reset (U-31).

    Addresses have 6 bytes and stand in the driver's order, as given: the
    unicast table may name a multicast address (U-37).  A class that overflowed
    has an empty table.
    """

    promisc: bool = True
    allmulti: bool = False
    alluni: bool = False
    nomulti: bool = False
    nouni: bool = False
    nobcast: bool = False
    unicast: tuple[bytes, ...] = ()
    multicast: tuple[bytes, ...] = ()
    unicast_overflow: bool = False
    multicast_overflow: bool = False
    vlans: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Refuse, with StateError, what no device may hold."""
        for mode in (*MODES, "unicast_overflow", "multicast_overflow"):
            check_bool(mode, getattr(self, mode))
        for name in ("unicast", "multicast"):
            table = getattr(self, name)
            check_tuple(f"{name} table", table, bytes)
            for address in table:
                check_bytes(f"address in the {name} table", address, MAC_SIZE)
            if table and getattr(self, f"{name}_overflow"):
                raise StateError(f"the {name} table overflowed and is not empty")
        if not isinstance(self.vlans, frozenset):
            raise StateError("vlans is not a frozenset")
        for vid in self.vlans:
            check_int("VLAN id", vid, 0, MAX_VLAN)
        self.check_within(MAX_MACS)

    def check_within(self, max_macs: int) -> None:
        """Refuse, with StateError, tables longer than a device keeps."""
        for name in ("unicast", "multicast"):
            check_int(f"addresses in the {name} table", len(getattr(self, name)), 0, max_macs)


def set_mode(mode: str) -> Callable[[RxFilter, bytes, Rules], Outcome[RxFilter]]:
    """Return the handler of one RX command: any byte but 0 means on (U-32)."""

    def handler(current: RxFilter, data: bytes, _: Rules) -> Outcome[RxFilter]:
        (value,), surplus = take(_MODE, data)
        return Outcome(replace(current, **{mode: value != 0}), surplus)

    return handler


def set_mac_table(current: RxFilter, data: bytes, rules: Rules) -> Outcome[RxFilter]:
    """MAC_TABLE_SET: both tables, or neither; counts are believed only as far as bytes follow."""
    unicast, data = _addresses("unicast", data)
    multicast, data = _addresses("multicast", data)
    overflow = (len(unicast) > rules.max_macs, len(multicast) > rules.max_macs)
    value = replace(
        current,
        unicast=() if overflow[0] else unicast,
        multicast=() if overflow[1] else multicast,
        unicast_overflow=overflow[0],
        multicast_overflow=overflow[1],
    )
    remarks = tuple(
        f"{len(table)} {name} addresses, {rules.max_macs} are kept: all {name} is received"
        for name, table, over in zip(
            ("unicast", "multicast"), (unicast, multicast), overflow, strict=True
        )
        if over
    )
    return Outcome(value, len(data), remarks)


def _addresses(name: str, data: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """Take one table off the front of a payload."""
    (count,), left = take(_COUNT, data)
    if left < count * MAC_SIZE:
        raise ShortPayloadError(f"{left} of {count * MAC_SIZE} bytes of {name} addresses")
    end = _COUNT.size + count * MAC_SIZE
    table = tuple(data[at : at + MAC_SIZE] for at in range(_COUNT.size, end, MAC_SIZE))
    return table, data[end:]


def add_vlan(current: RxFilter, data: bytes, _: Rules) -> Outcome[RxFilter]:
    """VLAN_ADD: harmless for an id that is there already."""
    vid, surplus = _vid(data)
    return Outcome(replace(current, vlans=current.vlans | {vid}), surplus)


def delete_vlan(current: RxFilter, data: bytes, _: Rules) -> Outcome[RxFilter]:
    """VLAN_DEL: harmless for an id that is not there."""
    vid, surplus = _vid(data)
    return Outcome(replace(current, vlans=current.vlans - {vid}), surplus)


def _vid(data: bytes) -> tuple[int, int]:
    (vid,), surplus = take(_VID, data)
    check_int("VLAN id", vid, 0, MAX_VLAN)
    return vid, surplus
