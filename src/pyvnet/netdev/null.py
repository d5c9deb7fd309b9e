# SPDX-License-Identifier: MIT
"""A host port that makes and swallows frames in memory, for measuring rings.

Each queue is an eventfd: its value is how many frames are still to come in.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from pyvnet.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


_ENDLESS: Final = 2**64 - 2  # the most an eventfd holds: thousands of years of frames


class Null:
    """``Null(queues)``; ``inject(queue, n)`` lets ``n`` frames come in.

    Args:
        queues: how many.
        endless: frames come in as fast as the driver takes them, for ever.

    Raises:
        UsageError: less than one queue.
    """

    kind: Final = "null"

    def __init__(self, queues: int, *, endless: bool = False) -> None:
        if queues < 1:
            raise UsageError(f"{queues} queues asked for; at least one is needed")
        self._queues = queues
        self._endless = endless
        self._fds: tuple[int, ...] = ()

    @property
    def queues(self) -> int:
        """Number of queues."""
        return self._queues

    @property
    def fds(self) -> tuple[int, ...]:
        """One eventfd per queue; empty unless open."""
        return self._fds

    def open(self) -> None:
        """Make the eventfds; raises HostError when there are no fds left."""
        if self._fds:
            raise UsageError("this null port is open already; close it first")
        with ExitStack() as undo:
            fds = []
            for _ in range(self._queues):
                try:
                    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                except OSError as error:
                    raise HostError(
                        "no eventfd for a null port", error.errno, "raise the limit of open files"
                    ) from error
                undo.callback(os.close, fd)
                fds.append(fd)
            undo.pop_all()
        self._fds = tuple(fds)
        if self._endless:
            for queue in range(self._queues):
                self.inject(queue, _ENDLESS)

    def inject(self, queue: int, frames: int) -> None:
        """Let ``frames`` frames come in on ``queue``."""
        os.eventfd_write(self._fds[queue], frames)

    def close(self) -> None:
        """Close the eventfds; harmless to repeat."""
        fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)

    def set_carrier(self, *, on: bool) -> None:
        """There is no cable."""

    def watch_carrier(self, callback: Callable[[bool], None]) -> None:
        """There is no cable."""

    def send(self, frame: bytes) -> None:
        """Swallow a frame."""

    def describe(self) -> dict[str, Any]:
        """``kind`` and ``queues``."""
        return {"kind": self.kind, "queues": self.queues}

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
