# SPDX-License-Identifier: MIT
"""The receive filter in the shape of ``struct vnet_filter``."""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from pyvnet.device.steering import Policy as DevicePolicy

MAC_SIZE = 6


class FilterMode(IntFlag):
    """``VNET_FILTER_*`` of ``vnet.h``."""

    PROMISC = 1
    ALLMULTI = 2
    ALLUNI = 4
    NOMULTI = 8
    NOUNI = 16
    NOBCAST = 32
    VLAN = 64
    UNI_OVERFLOW = 128
    MULTI_OVERFLOW = 256


class Filter(NamedTuple):
    """Modes and tables; the default is what holds after reset: everything passes (U-31).

    Addresses are 6 bytes each, in any order; VLANs are 0 ... 4095.
    """

    modes: int = FilterMode.PROMISC
    unicast: tuple[bytes, ...] = ()
    multicast: tuple[bytes, ...] = ()
    vlans: frozenset[int] = frozenset()
    mac: bytes = bytes(MAC_SIZE)

    @classmethod
    def of(cls, policy: DevicePolicy) -> Self:
        """What the device model says of it."""
        said = policy.rx_filter
        modes = {
            FilterMode.PROMISC: said.promisc,
            FilterMode.ALLMULTI: said.allmulti,
            FilterMode.ALLUNI: said.alluni,
            FilterMode.NOMULTI: said.nomulti,
            FilterMode.NOUNI: said.nouni,
            FilterMode.NOBCAST: said.nobcast,
            FilterMode.VLAN: policy.vlan_filter,
            FilterMode.UNI_OVERFLOW: said.unicast_overflow,
            FilterMode.MULTI_OVERFLOW: said.multicast_overflow,
        }
        on = sum(mode for mode, value in modes.items() if value)
        return cls(on, said.unicast, said.multicast, said.vlans, policy.mac)


PASS_ALL = Filter()
