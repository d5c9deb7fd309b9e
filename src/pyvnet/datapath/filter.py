# SPDX-License-Identifier: MIT
"""The receive filter in the shape of ``struct vnet_filter``."""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple

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


PASS_ALL = Filter()
