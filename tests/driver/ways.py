# SPDX-License-Identifier: MIT
"""The two ways from a driver to our device: calls in this process, messages on a socket."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from pyvnet import Driver
from pyvnet.transport.vhost_user.connection import Backend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyvnet import Device

Way = Literal["inproc", "vhost-user"]
WITHIN = 10.0  # a hang guard


@asynccontextmanager
async def connected(device: Device, way: Way, **options: Any) -> AsyncIterator[Driver]:
    """A driver on an open device, gone from it when this ends."""
    if way == "inproc":
        async with device.driver(**options) as drv:
            yield drv
        return
    near, far = socket.socketpair()
    done = Backend(device, name="test").serve(far)
    async with Driver.connect(near, **options) as drv:
        yield drv
    reason = await asyncio.wait_for(done, WITHIN)
    assert reason == "it closed the connection"
