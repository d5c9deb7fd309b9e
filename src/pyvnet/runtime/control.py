# SPDX-License-Identifier: MIT
"""The control virtqueue's loop: a kick, then commands one at a time, each answered before the next.

A command that asks for frames to move differently is answered when they do
(U-41), so the driver's order of events is kept whatever the workers are at.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Final

from pyvnet.datapath.engine import MalformedCommandError
from pyvnet.errors import DriverError, FrontendError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.datapath.engine import Engine

_log = logging.getLogger("pyvnet")

_BURST: Final = 16  # commands carried out in one go, before other callbacks have their turn
_POLL_SECONDS: Final = 0.01  # between two looks at a ring without a kick fd


class ControlQueue:
    """Watches the control ring of an engine while it runs.

    ``execute`` carries out one command: readable bytes, number of writable
    bytes; returns the answer.  ``malformed`` is told of chains that were
    returned unread.
    """

    def __init__(
        self, execute: Callable[[bytes, int], bytes], malformed: Callable[[], None]
    ) -> None:
        self._execute = execute
        self._malformed = malformed
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kick = -1
        self._poll: asyncio.TimerHandle | None = None
        self._enabled = True
        self._run_number = 0  # tells a late callback that its ring was stopped

    def start(self, engine: Engine, kick_fd: int, *, enabled: bool) -> None:
        """The ring runs now; commands from before the start are looked for at once.

        Raises FrontendError for a kick fd that cannot be waited for.
        """
        self.stop()
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._enabled = enabled
        self.watch(kick_fd)

    def watch(self, kick_fd: int) -> None:
        """Wait for this fd from now on; our own copy: the driver may close its own first."""
        loop = self._loop
        if loop is None:
            return
        copy = os.dup(kick_fd) if kick_fd >= 0 else -1
        if copy >= 0:
            try:
                loop.add_reader(copy, self._on_kick)
            except OSError as error:
                os.close(copy)
                raise FrontendError(f"the kick fd cannot be waited for: {error}") from error
        self._unwatch()
        self._kick = copy
        self._look()

    def enable(self, *, on: bool) -> None:
        """A disabled control queue keeps its commands until it is enabled again."""
        self._enabled = on
        self._look()

    def stop(self) -> None:
        """The ring is about to stop; harmless twice."""
        self._unwatch()
        self._run_number += 1
        self._engine = self._loop = None

    def _unwatch(self) -> None:
        if self._kick >= 0 and self._loop is not None:
            self._loop.remove_reader(self._kick)
            os.close(self._kick)
        self._kick = -1
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None

    def _look(self) -> None:
        if self._loop is not None:
            self._loop.call_soon(self._run, self._run_number)

    def _on_kick(self) -> None:
        try:
            alive = bool(os.read(self._kick, 8))
        except BlockingIOError:
            return
        except OSError:
            alive = False
        if not alive and self._loop is not None:
            # The other end is gone and would be readable for ever: look at the ring now and then.
            self._unwatch()
        self._run(self._run_number)

    def _run(self, number: int) -> None:
        for _ in range(_BURST):
            engine = self._engine
            if number != self._run_number or engine is None or not self._enabled:
                return  # stopped meanwhile
            try:
                command = engine.ctrl_pop()
            except MalformedCommandError:
                self._malformed()  # it has been returned
                continue
            except DriverError as error:
                _log.warning("%s", error)
                return
            if command is None:
                self._wait()
                return
            engine.ctrl_complete(self._execute(*command))
        self._look()

    def _wait(self) -> None:
        """Without a kick fd somebody has to look again."""
        if self._kick < 0 and self._poll is None and self._loop is not None:
            self._poll = self._loop.call_later(_POLL_SECONDS, self._poll_now, self._run_number)

    def _poll_now(self, number: int) -> None:
        self._poll = None
        self._run(number)
