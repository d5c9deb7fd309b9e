# SPDX-License-Identifier: MIT
"""One virtqueue of the driver: its ring, its eventfds, and how to wait for it.

Sleeping is race-free in one way everywhere: take everything there is, ask for
an interrupt, look again, and only sleep when the second look finds nothing.
The device that published before it could see the request is caught by the
second look; the one that published after it sends the interrupt.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.driver.chain import Used
    from pyvnet.driver.ring_split import SplitRing
    from pyvnet.spec.transport import QueueSetup

_T = TypeVar("_T")


def new_eventfd() -> int:
    """An eventfd that blocks nobody and is not inherited."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def drain_eventfd(fd: int) -> int:
    """Consume what made an eventfd readable; returns its counter, 0 if it was not."""
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """What passed one virtqueue since it was set up.

    ``kicks`` and ``interrupts`` are notifications sent and taken; several that
    fell together count once.
    """

    index: int
    kicks: int
    interrupts: int
    outstanding: int


class DriverQueue:
    """A ring with its kick, call and err eventfds; owns the fds.

    Attributes:
        index: virtqueue index.
        ring: the driver's end of it.
        called: set upon every interrupt, when somebody took used elements, and upon failure.
        others: chains that came back and were not put there by the driver itself.
        failure: why the ring cannot be used any more, if so.
    """

    def __init__(self, index: int, ring: SplitRing) -> None:
        self.index: Final = index
        self.ring: Final = ring
        self.called: Final = asyncio.Event()
        self.kicks = 0
        self.interrupts = 0
        self.others: list[Used] = []
        self.failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_call: Callable[[DriverQueue], None] | None = None
        self._fds: list[int] = []
        self._waiting = 0
        try:
            self._fds = [new_eventfd()]
            self._fds.append(new_eventfd())
            self._fds.append(new_eventfd())
        except OSError:
            self.close()
            raise
        self.kick_fd, self.call_fd, self.err_fd = self._fds

    def setup(self) -> QueueSetup:
        """The queue as the transport wants it."""
        return self.ring.setup(self.index, self.kick_fd, self.call_fd, self.err_fd)

    def publish(self) -> None:
        """Show the device what was staged and kick it if it asked for that."""
        if self.ring.publish():
            self.kick()

    def kick(self) -> None:
        """Notify the device, asked or not."""
        self.kicks += 1
        os.eventfd_write(self.kick_fd, 1)

    def broken(self) -> bool:
        """Tell whether the device has signalled, since the last call, that it gave this ring up."""
        return drain_eventfd(self.err_fd) > 0

    def watch(self, on_call: Callable[[DriverQueue], None] | None = None) -> None:
        """Take interrupts on the running loop; ``on_call`` is called after `called` is set."""
        self._loop = asyncio.get_running_loop()
        self._on_call = on_call
        self._loop.add_reader(self.call_fd, self._interrupt)

    def unwatch(self) -> None:
        """Take no more interrupts; harmless twice."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self.call_fd)
        self._loop = None

    def _interrupt(self) -> None:
        # Drained before the ring is looked at: what comes later makes it readable again.
        if not drain_eventfd(self.call_fd):
            return
        self.interrupts += 1
        self.called.set()
        if self._on_call is not None:
            self._on_call(self)

    def fail(self, reason: Exception) -> None:
        """Wake everybody who waits for this queue with ``reason``."""
        self.failure = reason
        self.called.set()

    def revive(self, reason: Exception) -> None:
        """Take back what `fail` was told, if it was this."""
        if self.failure is reason:
            self.failure = None

    async def wait_for(self, attempt: Callable[[], _T | None]) -> _T:
        """Try until ``attempt`` gives something, sleeping until the device moves in between.

        Several may wait at once.  Who takes used elements must set `called`, so
        that others who wait for the same room look again; and interrupts are
        turned off only by the last to leave.  Raises what `fail` was told.
        """
        self._waiting += 1
        try:
            while (result := attempt()) is None:
                if self.failure is not None:
                    raise self.failure
                self.called.clear()
                if not self.ring.arm():
                    await self.called.wait()
            return result
        finally:
            self._waiting -= 1
            if not self._waiting and self.failure is None:
                self.ring.disarm()

    def statistics(self) -> QueueStatistics:
        """Counters of this queue."""
        return QueueStatistics(self.index, self.kicks, self.interrupts, self.ring.outstanding)

    def close(self) -> None:
        """Stop watching and close the eventfds; harmless twice."""
        self.unwatch()
        while self._fds:
            os.close(self._fds.pop())
