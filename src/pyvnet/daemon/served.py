# SPDX-License-Identifier: MIT
"""One served device: host port, device, back-end and endpoint, in the order they go.

Whatever goes wrong here is this device's affair: it is logged under its name
and shown in its status, and no other device hears of it.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pyvnet.daemon import logs, server, sockets
from pyvnet.daemon.helper import protocol, request
from pyvnet.device.settings import IMPLEMENTED
from pyvnet.errors import HostError, PyvnetError, UsageError
from pyvnet.netdev import NetDevice, Null, PairFds, Tap, TapFds
from pyvnet.runtime import Device
from pyvnet.spec.features import NO_FEATURES, Feature, feature_names, missing_dependencies
from pyvnet.transport.vhost_user.connection import MESSAGE_FDS, Backend

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.daemon.options import DeviceOptions

_log = logging.getLogger("pyvnet")

_TUN_KNOWS_USO: Final = (6, 2)  # kernel version
_USO: Final = Feature.GUEST_USO4 | Feature.GUEST_USO6 | Feature.HOST_USO

# What a device and its front-end may hold open at once, to be set aside before it starts.
_FDS_PER_RING: Final = 6  # kick, call and err: the session's and the engine's own
_FDS_PER_PORT_QUEUE: Final = 2
_FDS_PER_WORKER: Final = 3  # epoll, wake and io_uring
# Listener, connection, back-end channel, controlq's kick, engine events, namespace, carrier,
# steering program, its map, a program under way, a capture's file and what wakes its thread;
# fds of a message under way, and of memory regions.
_FDS_PER_DEVICE: Final = 12 + MESSAGE_FDS + 8
_FDS_PER_HELPER: Final = 3  # its connection, and a program and a map beside our own


class ServedDevice:
    """``start()`` and ``close()`` may raise; nothing else does for what a front-end did."""

    def __init__(self, options: DeviceOptions) -> None:
        self.options = options
        self.name: Final = options.name
        self.failure: str | None = None
        self.device: Device | None = None
        self.backend: Backend | None = None
        self.endpoint: server.Endpoint | None = None
        self._netdev: NetDevice | None = None
        self._plugged = True  # the operator's word
        self._carrier = True  # the host port's
        self._undo = AsyncExitStack()

    @property
    def fds_needed(self) -> int:
        """File descriptors it may hold open at once."""
        pairs = self.options.pairs
        workers = self.options.workers or pairs
        return (
            (2 * pairs + 1) * _FDS_PER_RING
            + pairs * _FDS_PER_PORT_QUEUE
            + workers * _FDS_PER_WORKER
            + _FDS_PER_DEVICE
            + (_FDS_PER_HELPER + pairs if self.options.helper is not None else 0)
        )

    async def start(self) -> None:
        """Bring it up, ready for a front-end; on failure nothing is left behind.

        Raises:
            PyvnetError: why not.
        """
        with logs.about(self.name):
            async with AsyncExitStack() as undo:
                await self._start(undo)
                self._undo = undo.pop_all()

    async def _start(self, undo: AsyncExitStack) -> None:
        options = self.options
        endpoint = make_endpoint(options)
        undo.push_async_callback(endpoint.close)
        if options.helper is not None:
            options = self._ask(options.helper, undo)
        netdev = make_port(options)
        features = offer(options)
        device = Device(
            netdev=netdev,
            queues=options.pairs,
            features=features,
            mac=options.mac,
            workers=options.workers,
            engine_config=options.engine_config,
            steering=options.steering,
            steering_program=options.steering_program,
            bpf_fds=options.bpf_fds,
            compat=options.compat,
            mtu=options.mtu if features & Feature.MTU else None,
            relaxed_dependencies=True,
        )
        await undo.enter_async_context(device)
        if options.capture is not None:
            self._begin_capture(device, options.capture)
        backend = Backend(device, name=self.name, queue_num_unit=options.queue_num_unit)
        undo.callback(backend.disconnect, "this back-end ends")
        self.device, self.backend, self._netdev = device, backend, netdev
        netdev.watch_carrier(self._on_carrier)
        _log.info("%s: %d queue pairs", _port_text(netdev.describe()), options.pairs)
        endpoint.start(backend)
        self.endpoint = endpoint

    def _ask(self, helper: str, undo: AsyncExitStack) -> DeviceOptions:
        """Have a tap and a steering program made; returns the options with what was handed over."""
        options = self.options
        # The connection says how long the broker is to keep what it holds for us.
        session = undo.enter_context(request.Session(helper))
        tap = session.make_tap(options.pairs, options.tap, options.mtu, options.bridge)
        undo.callback(protocol.close_all, tap)
        bpf = None
        if options.steering in {"auto", "ebpf"}:
            try:
                bpf = session.load_steering()
            except HostError as error:
                _log.warning("no steering program: %s", error)
            else:
                undo.callback(protocol.close_all, bpf)
        return replace(options, helper=None, tap=None, bridge=None, tap_fds=tap, bpf_fds=bpf)

    async def close(self) -> None:
        """Let go of everything and put the host back as it was; harmless when not started."""
        with logs.about(self.name):
            undo, self._undo = self._undo, AsyncExitStack()
            await undo.aclose()

    def fail(self, reason: str) -> None:
        """A fault of ours in this device's callbacks: its front-end goes, and may come again."""
        self.failure = reason
        if self.backend is not None:
            self.backend.disconnect(reason)

    # What operators ask.

    def status(self) -> dict[str, Any]:
        """Plain JSON types; what is missing in a device that did not start is left out."""
        status: dict[str, Any] = {"name": self.name, "state": "serving"}
        if self.failure is not None:
            status["failure"] = self.failure
        if self.device is None or self.backend is None or self.endpoint is None:
            return status | {"state": "failed"}
        return status | {
            "socket": self.endpoint.description,
            "frontend": self.backend.status(),
            "carrier": self._carrier,
            "plugged": self._plugged,
            **self.device.status(),
        }

    def set_link(self, *, up: bool) -> dict[str, Any]:
        """Plug the cable in or out at both ends; out wins over whatever the carrier says."""
        device, netdev = self._running(), self._netdev
        self._plugged = up
        self._show_link(device)
        if netdev is not None:
            netdev.set_carrier(on=up)
        _log.info("the operator plugged the cable %s", "in" if up else "out")
        return {"device": self.name, "plugged": up, "carrier": self._carrier}

    def set_steering_program(self, program: str | None) -> dict[str, Any]:
        """A program of the operator's steers from now on; None: as without one again."""
        device = self._running()
        if program is None:
            device.detach_steering_program()
        else:
            device.attach_steering_program(program)
        return {"device": self.name, "steering": device.steering_owner}

    def set_capture(self, path: str | None) -> dict[str, Any]:
        """Write every frame to a file from now on; None: no more."""
        device = self._running()
        if path is None:
            device.stop_capture()
        else:
            self._begin_capture(device, path)
        return {"device": self.name, "capture": device.capture_status()}

    def _begin_capture(self, device: Device, path: str) -> None:
        device.capture(
            path,
            name=self.name,
            snap_length=self.options.capture_snap,
            rotation=self.options.capture_rotate,
        )

    def announce(self) -> dict[str, Any]:
        """Ask the driver to announce its addresses."""
        return {"device": self.name, "announced": self._running().announce()}

    def _running(self) -> Device:
        if self.device is None:
            raise UsageError(f"{self.name} did not start: {self.failure}")
        return self.device

    # The cable.

    def _on_carrier(self, carrier: bool) -> None:  # noqa: FBT001 - a callback's one argument
        if carrier is not self._carrier:
            self._carrier = carrier
            if self._plugged:
                _log.info("the host port %s its carrier", "has" if carrier else "lost")
        if self.device is not None:
            self._show_link(self.device)

    def _show_link(self, device: Device) -> None:
        up = self._plugged and self._carrier
        if device.device.state.host.link_up is not up:
            device.set_link(up=up)


def make_endpoint(options: DeviceOptions) -> server.Endpoint:
    """Where its front-ends come from; raises HostError or UsageError."""
    if options.socket_path is not None:
        file = sockets.listen(
            options.socket_path, mode=options.socket_mode, group=options.socket_group
        )
        return server.Listening(file.socket, file.path, file)
    if options.fd is not None:
        return server.of_fd(options.fd)
    path = str(options.connect)
    sockets.check_path(path)
    return server.Connecting(path)


def make_port(options: DeviceOptions) -> NetDevice:
    """Its host port, not open yet; raises UsageError."""
    if options.tap_fds is not None:
        return TapFds(options.tap_fds)
    if options.port is not None and options.port.kind == "pair":
        return PairFds(options.port.fds)
    if options.port is not None and options.port.kind == "null":
        return Null(options.pairs, endless=options.port.endless)
    return Tap(
        options.tap,
        queues=options.pairs,
        mtu=options.mtu,
        persist=options.tap_persist,
        netns=options.netns,
        bridge=options.bridge,
    )


def offer(options: DeviceOptions) -> Feature:
    """The features to offer; MTU with one that is given, unless told otherwise."""
    if options.features is not None:
        chosen = _without(options.features | Feature.VERSION_1, options.no_features)
    else:
        chosen = _without(IMPLEMENTED, options.no_features)
        chosen = _without(chosen, _host_lacks(options))
        if options.mtu is None:
            chosen = _without(chosen, Feature.MTU)
        while needless := missing_dependencies(chosen):
            for bit in needless:
                _log.info("%s is not offered either", feature_names(bit)[0])
                chosen = _without(chosen, bit)
    return chosen


def _host_lacks(options: DeviceOptions) -> Feature:
    """What this kernel's taps cannot do; sockets carry whatever they are given."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    old = found is not None and (int(found[1]), int(found[2])) < _TUN_KNOWS_USO
    tap = options.port is None or options.port.kind == "tap"
    return _USO if old and tap else NO_FEATURES


def _without(features: Feature, removed: Feature) -> Feature:
    # Integers, because inverting an IntFlag forgets bits it has no name for.
    return Feature(int(features) & ~int(removed))


def _port_text(described: dict[str, Any]) -> str:
    name = described.get("name")
    return f"{described['kind']} {name}" if name else str(described["kind"])


async def close_all(
    devices: list[ServedDevice], report: Callable[[str, PyvnetError], None]
) -> None:
    """Close every device, whatever happens to the others."""
    for device in reversed(devices):
        try:
            await device.close()
        except PyvnetError as error:
            report(device.name, error)
