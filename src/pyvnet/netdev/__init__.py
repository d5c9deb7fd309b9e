# SPDX-License-Identifier: MIT
"""The host side of the wire: tap, socket pair, null, and the kernel around them."""

from pyvnet.netdev.base import NetDevice
from pyvnet.netdev.null import Null
from pyvnet.netdev.pair import Pair
from pyvnet.netdev.tap import Tap

__all__ = ["NetDevice", "Null", "Pair", "Tap"]
