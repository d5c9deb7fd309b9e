# SPDX-License-Identifier: MIT
"""Log lines of the daemon: on stderr, each with the device it is about.

The device is known from the context a callback runs in: whoever starts a
device does so inside ``about(name)``, and the event loop hands the context on
to every callback and task registered there.  So what the runtime or a transport
logs is named without their knowing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = "pyvnet"
DEVICE: Final[ContextVar[str | None]] = ContextVar("device", default=None)


@contextlib.contextmanager
def about(device: str) -> Iterator[None]:
    """Everything started inside is about ``device``."""
    token = DEVICE.set(device)
    try:
        yield
    finally:
        DEVICE.reset(token)


def start(level: str, form: str) -> None:
    """Log everything of ours from ``level`` on to stderr, as ``text`` or ``json`` lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    for name in (ROOT, "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())


class _Line(logging.Formatter):
    """What both forms are made of."""

    def parts(self, record: logging.LogRecord) -> dict[str, str]:
        moment = datetime.fromtimestamp(record.created, UTC)
        parts = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
        }
        device = DEVICE.get()
        if device is not None:
            parts["device"] = device
        # A transport names its device itself.
        parts["message"] = record.getMessage().removeprefix(f"{device}: ")
        if record.exc_info:
            parts["traceback"] = self.formatException(record.exc_info)
        return parts


class _Text(_Line):
    """``TIME LEVEL DEVICE: MESSAGE``, on one line; a traceback follows."""

    def format(self, record: logging.LogRecord) -> str:
        parts = self.parts(record)
        device = f"{parts['device']}: " if "device" in parts else ""
        message = parts["message"].replace("\n", "\\n")
        line = f"{parts['time']} {parts['level']} {device}{message}"
        return f"{line}\n{parts['traceback']}" if "traceback" in parts else line


class _Json(_Line):
    """One JSON object per line: time, level, device, message, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.parts(record))
