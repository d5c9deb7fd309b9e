# SPDX-License-Identifier: MIT
"""What tests of a driver or a device need: frames, a device without a guest, a script of both.

The pytest plugin (`plugin`) gives all of it as fixtures.  Without pytest::

    async with pyvnet.testing.scenario(queues=4) as vnet:
        await vnet.steer(table=(0, 1, 2, 3))
        vnet.inject(frame)
        await vnet.expect(frame, **vnet.predict(frame))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyvnet.testing.expectation import ExpectationError
    from pyvnet.testing.plain import PlainVnet
    from pyvnet.testing.rig import DeviceFactory, scenario
    from pyvnet.testing.script import Vnet
    from pyvnet.testing.wire import Wire

__all__ = ["DeviceFactory", "ExpectationError", "PlainVnet", "Vnet", "Wire", "scenario"]

_HOMES = {
    "DeviceFactory": "rig",
    "ExpectationError": "expectation",
    "PlainVnet": "plain",
    "Vnet": "script",
    "Wire": "wire",
    "scenario": "rig",
}


def __getattr__(name: str) -> Any:
    """Import a public name when first used: pytest loads this package for every suite."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pyvnet.testing' has no attribute {name!r}")
    return getattr(import_module(f"pyvnet.testing.{_HOMES[name]}"), name)
