# SPDX-License-Identifier: MIT
"""The fixtures.  Importing this costs next to nothing: a device is imported when a test wants one.

Overriding one of `vnet_features`, `vnet_queues`, `vnet_port` or `vnet_options`,
in a module, a class or a conftest, changes everything built on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from pyvnet.testing import keep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pyvnet.driver.driver import Driver
    from pyvnet.runtime import Device
    from pyvnet.spec.features import Feature
    from pyvnet.testing.plain import PlainVnet
    from pyvnet.testing.rig import DeviceFactory
    from pyvnet.testing.script import Vnet
    from pyvnet.testing.wire import Wire


@pytest.fixture
def vnet_features() -> Feature | None:
    """Features the driver accepts; None: all that the device offers.  To be overridden."""
    return None


@pytest.fixture
def vnet_queues() -> int:
    """Queue pairs of the device.  To be overridden."""
    return 4


@pytest.fixture
def vnet_options() -> dict[str, Any]:
    """Options of `pyvnet.Device`: ``features`` offered, ``mtu``, ``mac``, …  To be overridden."""
    return {}


@pytest.fixture
def vnet_port(request: pytest.FixtureRequest) -> str:
    """Host port: ``tap`` for tests marked ``vnet_tap``, else ``pair``.  To be overridden."""
    return "tap" if request.node.get_closest_marker("vnet_tap") else "pair"


@pytest.fixture
def _vnet_port(request: pytest.FixtureRequest, vnet_port: str) -> str:
    """A port that this machine has."""
    from pyvnet.testing.rig import lacking

    if reason := lacking(vnet_port):  # type: ignore[arg-type]  # judged when a device is made
        if request.config.getoption("--vnet-missing") == "fail":
            pytest.fail(f"no tap: {reason}", pytrace=False)
        pytest.skip(f"no tap: {reason}")
    return vnet_port


@pytest_asyncio.fixture
async def vnet_device_factory(vnet_queues: int, _vnet_port: str) -> AsyncIterator[DeviceFactory]:
    """Makes devices, awaited: ``queues``, ``port``, options; all are closed after the test."""
    from pyvnet.testing.rig import DeviceFactory

    factory = DeviceFactory(queues=vnet_queues, port=_vnet_port)  # type: ignore[arg-type]
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
    keep.watch(request.node, script)
    yield script
    if forgotten := script.forgotten():
        pytest.fail(forgotten, pytrace=False)


@pytest.fixture
def vnet_plain(
    request: pytest.FixtureRequest,
    vnet_queues: int,
    _vnet_port: str,
    vnet_features: Feature | None,
    vnet_options: dict[str, Any],
) -> Iterator[PlainVnet]:
    """The same in plain calls, for tests that are no coroutines."""
    from pyvnet.testing.plain import PlainVnet

    options = {"queues": vnet_queues, "port": _vnet_port, "features": vnet_features}
    with PlainVnet(**options, **vnet_options) as plain:
        keep.watch(request.node, plain.script)
        yield plain
