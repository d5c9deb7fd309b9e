# SPDX-License-Identifier: MIT
"""A device that does as it is told, with a driver on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from pyvnet.driver import Driver
from tests.driver.plain_device import PlainDevice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.driver.ways import Way


@pytest_asyncio.fixture
async def plain() -> AsyncIterator[PlainDevice]:
    """The plain device; closed by the driver, or here."""
    device = PlainDevice()
    yield device
    await device.aclose()


@pytest_asyncio.fixture
async def drv(plain: PlainDevice) -> AsyncIterator[Driver]:
    """A driver on it, not negotiated yet."""
    async with Driver(plain, control_timeout=5) as driver:
        yield driver


@pytest.fixture(params=["inproc", "vhost-user"])
def way(request: pytest.FixtureRequest) -> Way:
    """How the driver reaches the device."""
    chosen: Way = request.param
    return chosen
