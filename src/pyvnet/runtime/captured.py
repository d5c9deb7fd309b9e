# SPDX-License-Identifier: MIT
"""The part of a device that is about captures of it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from pyvnet.errors import UsageError
from pyvnet.runtime import report
from pyvnet.runtime.capture import DeviceCapture
from pyvnet.runtime.core import DeviceCore

if TYPE_CHECKING:
    import os

    from pyvnet.capture import Rotation

_log = logging.getLogger("pyvnet")


class CapturedDevice(DeviceCore):
    """One capture at a time; the last one is remembered for the status."""

    _capture: DeviceCapture | None = None

    def capture(
        self,
        path: str | os.PathLike[str],
        *,
        name: str = "vnet",
        snap_length: int = 0,
        rotation: Rotation | None = None,
    ) -> DeviceCapture:
        """Write every frame of every queue to a pcapng file, until stopped or closed.

        ``name``: of the device in the names of interfaces.  Frames come with hash, report
        and queue as decided by the frame path.  Call it in the event loop.  Raises UsageError
        while another capture runs, CaptureError when the file cannot be written.
        """
        engine = self.engine
        if self._capture is not None and self._capture.running:
            raise UsageError("the device is captured already: stop that capture first")
        loop = asyncio.get_running_loop()
        self._end_capture()
        self._capture = DeviceCapture(
            engine,
            path,
            name=name,
            snap_length=snap_length,
            rotation=rotation,
            ended=lambda: loop.call_soon_threadsafe(self._capture_ended),
        )
        _log.info("capturing to %s", path)
        return self._capture

    def stop_capture(self) -> bool:
        """End the capture with all frames so far; whether there was one."""
        capture = self._capture
        if capture is None or not capture.running:
            return False
        capture.stop()
        return True

    def capture_status(self) -> dict[str, Any]:
        """Plain JSON types: the capture that runs, or the last one."""
        return {"state": "off"} if self._capture is None else self._capture.status()

    def status(self) -> dict[str, Any]:
        """Plain JSON types: the device as status output shows it."""
        return report.device(self)

    def _end_capture(self) -> None:
        """Before the engine goes; harmless twice."""
        if self._capture is not None:
            self._capture.stop()

    def _capture_ended(self) -> None:
        """The medium refused; the workers must not go on copying."""
        if self._capture is not None and self._capture.failure is not None:
            self._capture.stop()
            _log.error("%s; the device goes on", self._capture.failure)
