# SPDX-License-Identifier: MIT
"""The process behind ``pyvnet serve``: devices, admin socket, signals, and how it ends.

A device that cannot start is logged and shown in the status; the others are
served.  Only when none starts does the start fail.  From then on nothing that
happens to one device ends the process.  It ends by SIGTERM or SIGINT, or when no
front-end can come any more.  A further signal does not keep it from putting the
host back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import uvloop

from pyvnet.daemon import logs, sockets
from pyvnet.daemon.admin import CLIENTS_MAX, SCHEMA, AdminServer
from pyvnet.daemon.notify import notify
from pyvnet.daemon.readers import nearest
from pyvnet.daemon.served import ServedDevice, close_all
from pyvnet.errors import HostError, PyvnetError, UsageError
from pyvnet.netdev.limits import raise_open_files

if TYPE_CHECKING:
    from pyvnet.daemon.config import ServiceOptions

_log = logging.getLogger("pyvnet")

# Signal pipe, loop, netlink requests, the log, a thread's pipe; and what the admin socket takes.
_FDS_OF_PROCESS: Final = 16
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_DONE, _FAILED = 0, 1


def run(options: ServiceOptions) -> int:
    """Serve until told to stop, on uvloop (or PYVNET_LOOP=asyncio); returns the exit status.

    Raises:
        PyvnetError: it could not start; nothing is left behind.
    """
    logs.start(options.log_level, options.log_format)
    stock = os.environ.get("PYVNET_LOOP") == "asyncio"
    make = asyncio.new_event_loop if stock else uvloop.new_event_loop
    with asyncio.Runner(loop_factory=make) as runner:
        return runner.run(_serve(options))


async def _serve(options: ServiceOptions) -> int:
    try:
        return await Service(options).run()
    finally:
        _be_deaf(asyncio.get_running_loop())


def _be_deaf(loop: asyncio.AbstractEventLoop) -> None:
    """All that is left is to return the status; no signal may come between two handlers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    for number in _SIGNALS:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


async def _all(endings: list[asyncio.Future[None]]) -> bool:
    await asyncio.gather(*endings)
    return True


class Service:
    """The devices of one process."""

    def __init__(self, options: ServiceOptions) -> None:
        self._options = options
        self._devices = {device.name: ServedDevice(device) for device in options.devices}
        self._admin: AdminServer | None = None
        self._stop = asyncio.Event()
        self._status = _DONE

    async def run(self) -> int:
        """Start, serve, end; returns the exit status."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_exception)
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            await self._start()
            if not self._stop.is_set():
                _log.info("ready")
                notify("READY=1")
            await self._until_over()
        finally:
            notify("STOPPING=1")
            await self._close()
        return self._status

    async def _start(self) -> None:
        raise_open_files(
            _FDS_OF_PROCESS
            + (CLIENTS_MAX + 1 if self._options.admin else 0)
            + sum(device.fds_needed for device in self._devices.values())
        )
        if self._options.admin:
            self._admin = AdminServer(self, sockets.listen(self._options.admin, mode=0o600))
        failures: dict[str, PyvnetError] = {}
        for device in self._devices.values():
            try:
                await device.start()
            except PyvnetError as error:
                device.failure = str(error)
                failures[device.name] = error
        self._judge(failures)
        if self._admin is not None:
            await self._admin.start()

    def _judge(self, failures: dict[str, PyvnetError]) -> None:
        """Go on without those that did not start, if any did."""
        if len(self._devices) == 1:
            for error in failures.values():
                raise error
        for name, error in failures.items():
            with logs.about(name):
                _log.error("did not start: %s", error)
        if len(failures) == len(self._devices):
            raise HostError(f"none of {len(failures)} devices started", cure="see the log")

    async def _until_over(self) -> None:
        """Wait for a signal, or until no device can have a front-end any more."""
        endings = [d.endpoint.over for d in self._devices.values() if d.endpoint is not None]
        stop = asyncio.ensure_future(self._stop.wait())
        over = asyncio.ensure_future(_all(endings))
        try:
            await asyncio.wait({stop, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            over.cancel()
            await asyncio.gather(stop, over, return_exceptions=True)

    async def _close(self) -> None:
        if self._admin is not None:
            await self._admin.close()
        await close_all(list(self._devices.values()), self._could_not_restore)

    def _could_not_restore(self, name: str, error: PyvnetError) -> None:
        with logs.about(name):
            _log.error("%s", error)
        self._status = _FAILED

    def _on_signal(self, number: int) -> None:
        if not self._stop.is_set():
            _log.info("%s: ending", signal.Signals(number).name)
            self._stop.set()

    def _on_exception(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A fault of ours in some callback: it costs one device its front-end, no more."""
        error = context.get("exception")
        # uvloop calls us in the callback's context; the stock loop keeps it in the handle.
        of_handle = getattr(context.get("handle"), "_context", None)
        name = (of_handle or {}).get(logs.DEVICE) or logs.DEVICE.get()
        with logs.about(name or "-"):
            _log.error("this should not have happened: %s", context["message"], exc_info=error)
            if name in self._devices:
                self._devices[name].fail(f"internal error: {error!r}")

    # What the admin socket asks.

    def status(self, device: str | None) -> dict[str, Any]:
        """Every device, or one."""
        chosen = self._devices.values() if device is None else [self._find(device)]
        return {
            "schema": SCHEMA,
            "version": version("pyvnet"),
            "pid": os.getpid(),
            "devices": [each.status() for each in chosen],
        }

    def set_link(self, device: str | None, *, up: bool) -> dict[str, Any]:
        """Plug a device's cable in or out."""
        found = self._find(device)
        with logs.about(found.name):
            return found.set_link(up=up)

    def announce(self, device: str | None) -> dict[str, Any]:
        """Let a device's driver announce itself."""
        found = self._find(device)
        with logs.about(found.name):
            return found.announce()

    def set_steering_program(self, device: str | None, program: str | None) -> dict[str, Any]:
        """Attach a program of the operator's to a device's tap, or detach it."""
        found = self._find(device)
        with logs.about(found.name):
            return found.set_steering_program(program)

    def set_capture(self, device: str | None, path: str | None) -> dict[str, Any]:
        """Begin a capture of a device, or end it."""
        found = self._find(device)
        with logs.about(found.name):
            return found.set_capture(path)

    def _find(self, name: str | None) -> ServedDevice:
        if name is None:
            if len(self._devices) > 1:
                raise UsageError(f"which device? one of {', '.join(self._devices)}")
            return next(iter(self._devices.values()))
        if name not in self._devices:
            raise UsageError(f"there is no device {name!r}{nearest(name, self._devices)}")
        return self._devices[name]
