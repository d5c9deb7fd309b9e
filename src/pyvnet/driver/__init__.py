# SPDX-License-Identifier: MIT
"""The other end of the ring: a virtio-net driver without a guest, in plain Python.

An independent second reading of the standard: it shares `pyvnet.spec` with the
device and nothing else, never the device's code and never C.

`Driver` behaves; `pyvnet.driver.misbehave` does not.
"""

from pyvnet.driver.chain import Buffer
from pyvnet.driver.control import Control, CtrlAnswer, CtrlLayout
from pyvnet.driver.driver import Driver
from pyvnet.driver.errors import CommandError, DeviceViolation, NegotiationError, RingFullError
from pyvnet.driver.memory import GuestMemory, RegionSpec
from pyvnet.driver.receive import Frame
from pyvnet.driver.ring_split import SplitRing
from pyvnet.driver.transport import Transport

__all__ = [
    "Buffer",
    "CommandError",
    "Control",
    "CtrlAnswer",
    "CtrlLayout",
    "DeviceViolation",
    "Driver",
    "Frame",
    "GuestMemory",
    "NegotiationError",
    "RegionSpec",
    "RingFullError",
    "SplitRing",
    "Transport",
]
