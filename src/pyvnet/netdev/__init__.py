# SPDX-License-Identifier: MIT
"""The host side of the wire: tap, socket pair, null, and the kernel around them."""

from pyvnet.netdev.base import NetDevice
from pyvnet.netdev.null import Null
from pyvnet.netdev.pair import Pair
from pyvnet.netdev.pair_fds import PairFds
from pyvnet.netdev.tap import Tap
from pyvnet.netdev.tap_fds import TapFds

__all__ = ["NetDevice", "Null", "Pair", "PairFds", "Tap", "TapFds"]
