# SPDX-License-Identifier: MIT
"""The control virtqueue's loop: a kick, then commands one at a time, each answered before the next.

A command that asks for frames to move differently is answered when they do
(U-41), so the driver's order of events is kept whatever the workers are at.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import TYPE_CHECKING, Final

from pyvnet.datapath.engine import MalformedCommandError
from pyvnet.errors import DriverError, FrontendError, HostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.datapath.engine import Engine

_log = logging.getLogger("pyvnet")

_BURST: Final = 16  # commands carried out in one go, before other callbacks have their turn
_POLL_SECONDS: Final = 0.01  # between two looks at a ring without a kick fd
_FDS_CURE: Final = "raise RLIMIT_NOFILE"


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

        Raises FrontendError for a kick fd that cannot be waited for, HostError
        when there is no descriptor left for our own copy.
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
        copy = _duplicate(kick_fd)
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
        if not _drain(self._kick) and self._loop is not None:
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
            except DriverError:
                return  # the ring broke, which is an event of its own
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


def _duplicate(fd: int) -> int:
    if fd < 0:
        return -1
    try:
        return os.dup(fd)
    except OSError as error:
        raise HostError("cannot watch a kick fd", error.errno, _FDS_CURE) from error


def _drain(fd: int) -> bool:
    """Consume a kick; whether another can come.

    Never waits.  Others have the file too: they may have emptied it since it was
    readable, and O_NONBLOCK is theirs to take away.
    """
    try:
        try:
            return bool(os.preadv(fd, [bytearray(8)], -1, os.RWF_NOWAIT))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        return bool(os.read(fd, 8))  # a pipe or socket before Linux 6.5
    except BlockingIOError:
        return True
    except OSError:
        return False
