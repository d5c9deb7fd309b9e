# SPDX-License-Identifier: MIT
"""pyvnet: a userspace, tap-backed virtio-net device."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyvnet.datapath.config import EngineConfig
    from pyvnet.driver.driver import Driver
    from pyvnet.errors import DriverError, FrontendError, HostError, PyvnetError, UsageError
    from pyvnet.netdev import Null, Pair, Tap
    from pyvnet.runtime import Device
    from pyvnet.spec.features import Feature
    from pyvnet.spec.rss import HashConfig, HashReport, HashType, RssConfig

__all__ = [
    "Device",
    "Driver",
    "DriverError",
    "EngineConfig",
    "Feature",
    "FrontendError",
    "HashConfig",
    "HashReport",
    "HashType",
    "HostError",
    "Null",
    "Pair",
    "PyvnetError",
    "RssConfig",
    "Tap",
    "UsageError",
]

_HOMES = {
    "Device": "runtime",
    "Driver": "driver.driver",
    "DriverError": "errors",
    "EngineConfig": "datapath.config",
    "Feature": "spec.features",
    "FrontendError": "errors",
    "HashConfig": "spec.rss",
    "HashReport": "spec.rss",
    "HashType": "spec.rss",
    "HostError": "errors",
    "Null": "netdev",
    "Pair": "netdev",
    "PyvnetError": "errors",
    "RssConfig": "spec.rss",
    "Tap": "netdev",
    "UsageError": "errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when first used: `pyvnet hash` needs neither netlink nor asyncio."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pyvnet' has no attribute {name!r}")
    value = getattr(import_module(f"pyvnet.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
