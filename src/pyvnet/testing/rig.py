# SPDX-License-Identifier: MIT
"""Devices for tests, on a socket pair or on a tap in a network namespace of its own."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev import Pair
from pyvnet.runtime import Device, EngineConfig
from pyvnet.testing.script import Vnet
from pyvnet.testing.wire import PairWire, TapWire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyvnet.driver.driver import Driver
    from pyvnet.netdev import NetDevice
    from pyvnet.spec.features import Feature
    from pyvnet.testing.wire import Wire

Port: TypeAlias = Literal["pair", "tap"]
PORTS: Final = ("pair", "tap")
_LOOK_ON: Final = 500  # microseconds
_NO_IPV6: Final = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")


class DeviceFactory:
    """Opens devices, and closes them all, newest first.

    Attributes:
        devices: all of them.

    Args:
        queues: queue pairs of a device, unless it is told otherwise.
        port: ``pair`` or ``tap``, unless it is told otherwise.
    """

    def __init__(self, *, queues: int = 4, port: Port = "pair") -> None:
        self._queues = queues
        self._port = port
        self._open = AsyncExitStack()
        self.devices: list[Device] = []
        self._wires: dict[int, Wire] = {}

    async def __call__(
        self,
        *,
        queues: int | None = None,
        port: Port | None = None,
        netdev: NetDevice | None = None,
        offered: Feature | None = None,
        **options: Any,
    ) -> Device:
        """Open one more device.

        Args:
            queues: queue pairs.
            port: ``pair``, which needs no privilege, or ``tap``.
            netdev: a host port of your own instead, which has no wire here.
            offered: features it offers; None: all it knows.
            options: for `pyvnet.Device`: ``mac``, ``mtu``, ``steering``, ``workers`` (1, unless
                it is told otherwise: threads take time to start and end, and suites run side
                by side), ``engine_config`` (a worker looks on for longer than a test takes
                from a frame to the next, unless it is told otherwise, here or by
                PYVNET_POLL_US: to be woken takes longer than the frame), …
        """
        options.setdefault("workers", 1)
        if "PYVNET_POLL_US" not in os.environ:
            options.setdefault("engine_config", EngineConfig(poll_us=_LOOK_ON))
        if "features" in options:
            raise UsageError("`features` are the driver's choice; what a device offers: `offered`")
        if offered is not None:
            options["features"] = offered
        count = self._queues if queues is None else queues
        kind = self._port if port is None else port
        if netdev is not None:
            return await self._enter(Device(netdev=netdev, **options))
        if kind not in PORTS:
            raise UsageError(f"{kind!r} is no kind of port: {', '.join(PORTS)}")
        if kind == "pair":
            pair = Pair(queues=count)
            device = await self._enter(Device(netdev=pair, **options))
            self._wires[id(device)] = PairWire(pair)
            return device
        return await self._tap(count, options)

    async def _enter(self, device: Device) -> Device:
        self.devices.append(await self._open.enter_async_context(device))
        return device

    async def _tap(self, queues: int, options: dict[str, Any]) -> Device:
        # Late: netlink is a heavy import, and a pair needs none of it.
        from pyvnet.netdev import Tap
        from pyvnet.netdev.netns import NetNamespace

        namespace = self._open.enter_context(NetNamespace())
        # Else its own neighbour discovery would be among the frames of the test.
        if _NO_IPV6.exists():
            namespace.call(lambda: _NO_IPV6.write_text("1"))
        tap = Tap("vnet0", queues=queues, netns=f"/proc/self/fd/{namespace.fileno()}")
        device = await self._enter(Device(netdev=tap, **options))
        wire = TapWire(tap, namespace)
        self._open.callback(wire.close)
        self._wires[id(device)] = wire
        return device

    def wire(self, device: Device) -> Wire:
        """The far end of a device's wire; the same object every time."""
        if id(device) not in self._wires:
            raise UsageError("no wire: this device has a host port of its own")
        return self._wires[id(device)]

    async def driver(
        self, device: Device, features: Feature | None = None, **options: Any
    ) -> Driver:
        """A driver, negotiated; closed before the device.

        Args:
            device: an open one.
            features: to accept; VERSION_1 comes along.  None: all that is offered.
            options: for `pyvnet.Driver.negotiate`.
        """
        driver = await self._open.enter_async_context(device.driver())
        await driver.negotiate(features, **options)
        return driver

    async def aclose(self) -> None:
        """Close everything; harmless twice."""
        await self._open.aclose()


@asynccontextmanager
async def scenario(
    *,
    queues: int = 4,
    port: Port = "pair",
    features: Feature | None = None,
    **options: Any,
) -> AsyncIterator[Vnet]:
    """A device, its negotiated driver and the wire, for ``async with``; the rest as in fixtures.

    Args:
        queues: queue pairs.
        port: ``pair``, which needs no privilege, or ``tap``, which needs root.
        features: the driver accepts; None: all that is offered.
        options: for `DeviceFactory`: ``offered``, ``mtu``, …

    Raises:
        HostError: no tap can be made here.
        UsageError: at the end, where a verb was not awaited.
    """
    factory = DeviceFactory(queues=queues, port=port)
    try:
        device = await factory(**options)
        vnet = Vnet(device, await factory.driver(device, features), factory.wire(device))
        yield vnet
        if forgotten := vnet.forgotten():
            raise UsageError(forgotten)
    finally:
        await factory.aclose()


def lacking(port: Port) -> str:
    """Why there can be no such port here, and the cure; "" where there can."""
    if port != "tap":
        return ""
    from pyvnet.netdev.netns import NetNamespace

    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
        NetNamespace().close()
    except HostError as error:
        return str(error)
    except OSError as error:
        return f"/dev/net/tun: {error.strerror}; modprobe tun, and run as root"
    return ""
