# SPDX-License-Identifier: MIT
"""Fixtures that are coroutines: the device, its driver, and the script of both.

They live on the event loop that pytest-asyncio gives them, in its strict and its auto mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from pyvnet.testing.plugin import FACTORY, SCRIPTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyvnet.driver.driver import Driver
    from pyvnet.runtime import Device
    from pyvnet.spec.features import Feature
    from pyvnet.testing.rig import DeviceFactory
    from pyvnet.testing.script import Vnet
    from pyvnet.testing.wire import Wire


@pytest_asyncio.fixture
async def vnet_device_factory(
    request: pytest.FixtureRequest, vnet_queues: int, _vnet_port: str
) -> AsyncIterator[DeviceFactory]:
    """Makes devices, awaited: ``queues``, ``port``, options; all are closed after the test."""
    from pyvnet.testing.rig import DeviceFactory

    factory = DeviceFactory(queues=vnet_queues, port=_vnet_port)  # type: ignore[arg-type]
    request.node.stash[FACTORY] = factory
    try:
        yield factory
    finally:
        await factory.aclose()


@pytest_asyncio.fixture
async def vnet_device(vnet_device_factory: DeviceFactory, vnet_options: dict[str, Any]) -> Device:
    """An open device of ``vnet_queues`` queue pairs."""
    return await vnet_device_factory(**vnet_options)


@pytest_asyncio.fixture
async def vnet_driver(
    vnet_device_factory: DeviceFactory, vnet_device: Device, vnet_features: Feature | None
) -> Driver:
    """Its driver, which has negotiated ``vnet_features``."""
    return await vnet_device_factory.driver(vnet_device, vnet_features)


@pytest.fixture
def _vnet_wire(vnet_device_factory: DeviceFactory, vnet_device: Device) -> Wire:
    return vnet_device_factory.wire(vnet_device)


@pytest.fixture
def wire(_vnet_wire: Wire) -> Wire:
    """The host's side of ``vnet_device``."""
    return _vnet_wire


@pytest_asyncio.fixture
async def vnet(
    request: pytest.FixtureRequest, vnet_device: Device, vnet_driver: Driver, _vnet_wire: Wire
) -> AsyncIterator[Vnet]:
    """All three, with the verbs of a scenario."""
    from pyvnet.testing.script import Vnet

    script = Vnet(vnet_device, vnet_driver, _vnet_wire)
    request.node.stash.setdefault(SCRIPTS, []).append(script)
    yield script
    if forgotten := script.forgotten():
        pytest.fail(forgotten, pytrace=False)
