# SPDX-License-Identifier: MIT
"""What the driver reads about its link: configuration space and the MTU behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyvnet.spec.config import LinkStatus, NetConfig
from pyvnet.spec.features import Feature
from pyvnet.spec.rss import ALL_HASH_TYPES, MAX_KEY_SIZE, MAX_TABLE_LENGTH

if TYPE_CHECKING:
    from pyvnet.device.settings import DeviceSettings
    from pyvnet.device.state import DeviceState

_MULTIQUEUE: Final = int(Feature.MQ | Feature.RSS)
_HASHING: Final = int(Feature.RSS | Feature.HASH_REPORT)
_RSS: Final = int(Feature.RSS)
_SPEED_DUPLEX: Final = int(Feature.SPEED_DUPLEX)
_MAC: Final = int(Feature.MAC)
_STATUS: Final = int(Feature.STATUS)


def config_space(settings: DeviceSettings, state: DeviceState) -> NetConfig:
    """What the driver finds in configuration space.

    Each field of an *offered* feature is there from the start (VIO-CFG-01),
    others are 0.  Key and table sizes are exactly the standard's minima:
    some drivers refuse larger keys, some use the length as it stands
    (U-09, U-13).  ``mtu``, ``speed`` and ``duplex`` never change (NET-CFG-04,
    NET-CFG-11).
    """
    offered = int(settings.offered)  # plain numbers: this is asked at every transition
    multiqueue = bool(offered & _MULTIQUEUE)
    hashing = bool(offered & _HASHING)
    link = bool(offered & _SPEED_DUPLEX)
    status = LinkStatus.LINK_UP if state.host.link_up else LinkStatus.DOWN
    if state.control.announce:
        status |= LinkStatus.ANNOUNCE
    return NetConfig(
        mac=state.control.mac if offered & _MAC else bytes(6),
        status=int(status) if offered & _STATUS else 0,
        max_virtqueue_pairs=settings.max_virtqueue_pairs if multiqueue else 0,
        mtu=settings.mtu or 0,
        speed=settings.speed if link else 0,
        duplex=settings.duplex if link else 0,
        rss_max_key_size=MAX_KEY_SIZE if hashing else 0,
        rss_max_indirection_table_length=MAX_TABLE_LENGTH if offered & _RSS else 0,
        supported_hash_types=int(ALL_HASH_TYPES) if hashing else 0,
    )


def mtu_in_force(settings: DeviceSettings, state: DeviceState) -> int:
    """The smaller of what was offered and what the front-end told; 0 if neither named one."""
    named = [mtu for mtu in (settings.mtu, state.host.frontend_mtu) if mtu is not None]
    return min(named, default=0)
