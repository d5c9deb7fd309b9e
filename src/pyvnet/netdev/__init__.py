# SPDX-License-Identifier: MIT
"""The host side of the wire: tap, socket pair, null, and the kernel around them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyvnet.netdev.base import NetDevice
    from pyvnet.netdev.null import Null
    from pyvnet.netdev.pair import Pair
    from pyvnet.netdev.pair_fds import PairFds
    from pyvnet.netdev.tap import Tap
    from pyvnet.netdev.tap_fds import TapFds

__all__ = ["NetDevice", "Null", "Pair", "PairFds", "Tap", "TapFds"]

_HOMES = {
    "NetDevice": "base",
    "Null": "null",
    "Pair": "pair",
    "PairFds": "pair_fds",
    "Tap": "tap",
    "TapFds": "tap_fds",
}


def __getattr__(name: str) -> Any:
    """Import a host port when first used: a program run as root wants the ioctls and no more."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pyvnet.netdev' has no attribute {name!r}")
    value = getattr(import_module(f"pyvnet.netdev.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
