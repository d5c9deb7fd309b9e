# SPDX-License-Identifier: MIT
"""The device status field: "Device Status Field", a 1:1 mapping of its bits."""

from __future__ import annotations

from enum import IntFlag


class DeviceStatus(IntFlag):
    """Status bits as the driver writes and reads them."""

    RESET = 0
    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    SUSPEND = 16
    DEVICE_NEEDS_RESET = 64
    FAILED = 128
