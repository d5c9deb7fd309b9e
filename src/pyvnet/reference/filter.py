# SPDX-License-Identifier: MIT
"""Which frames a driver asked to see: a second reading of "Packet Receive Filtering".

Theory of operation
    Three questions in this order.  Does the driver want everything?  Is the
    frame on a VLAN the driver joined?  Did the driver ask for this kind of
    destination?  The first beats the others (U-34), the second is asked only
    where CTRL_VLAN is in force.

    A frame is on the VLAN of its outermost tag, if that is an 802.1Q or 802.1ad
    tag whose four bytes are all there; VLAN 0 only carries a priority (U-35).

    "No" modes beat "all" modes of their class (NET-FLT-06 … NET-FLT-08).
    Broadcast is a class of its own that no mode but NOBCAST refuses.

This is an independent reading of the standard: it imports nothing of the
device and nothing of C, and it is compared with both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BROADCAST: Final = b"\xff" * 6
FILTERED_TPIDS: Final = frozenset({b"\x81\x00", b"\x88\xa8"})


@dataclass(frozen=True)
class Wanted:
    """What a driver asked for; the default is what it has after reset (U-31).

    ``vlans`` is None where CTRL_VLAN is not in force.  ``*_overflow`` says that the
    driver's table of this class was too long to keep (U-36).
    """

    promisc: bool = True
    allmulti: bool = False
    alluni: bool = False
    nomulti: bool = False
    nouni: bool = False
    nobcast: bool = False
    mac: bytes = bytes(6)
    unicast: frozenset[bytes] = frozenset()
    multicast: frozenset[bytes] = frozenset()
    unicast_overflow: bool = False
    multicast_overflow: bool = False
    vlans: frozenset[int] | None = None


def vlan_of(frame: bytes) -> int | None:
    """The VLAN a frame is on, None for none."""
    if frame[12:14] not in FILTERED_TPIDS or len(frame) < 16:
        return None
    return (int.from_bytes(frame[14:16], "big") & 0xFFF) or None


def wants(wanted: Wanted, frame: bytes) -> bool:
    """Whether the driver sees the frame; one too short for a destination is nobody's."""
    if wanted.promisc:
        return True
    destination = frame[:6]
    if len(destination) < 6:
        return False
    if wanted.vlans is not None:
        vlan = vlan_of(frame)
        if vlan is not None and vlan not in wanted.vlans:
            return False
    if destination == BROADCAST:
        return not wanted.nobcast
    if destination[0] % 2 == 1:
        wide = wanted.allmulti or wanted.multicast_overflow
        return not wanted.nomulti and (wide or destination in wanted.multicast)
    wide = wanted.alluni or wanted.unicast_overflow
    known = destination == wanted.mac or destination in wanted.unicast
    return not wanted.nouni and (wide or known)
