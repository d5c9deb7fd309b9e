# SPDX-License-Identifier: MIT
"""The composition root: one device, its engine and its host port, joined.

``device.py`` carries the model's effects to the engine; ``control.py`` keeps the
control virtqueue going; ``report.py`` is what status output shows.
"""

from pyvnet.datapath.config import EngineConfig
from pyvnet.runtime.device import Device

__all__ = ["Device", "EngineConfig"]
