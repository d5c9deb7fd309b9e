# SPDX-License-Identifier: MIT
"""The two lines through a device as a script sees them: what goes in, what comes, until silence."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pyvnet.testing.settle import Settling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyvnet.driver.driver import Driver
    from pyvnet.driver.receive import Frame
    from pyvnet.runtime import Device
    from pyvnet.spec.net_hdr import NetHdr
    from pyvnet.testing.wire import SentFrame, Wire

_TICK: Final = 0.002
_KEPT: Final = 10_000
_BUFFER: Final = 1500  # bytes of frame a receive buffer surely holds


class Seen(NamedTuple):
    """One frame that passed: injected, received, sent, or out (on the wire)."""

    at: int  # ns since the epoch
    way: str
    queue: int
    data: bytes
    header: NetHdr | bytes | None
    policy: Any  # of the device, where the frame was received


class History(deque[Seen]):
    """The last 10 000 frames that passed."""

    def __init__(self) -> None:
        super().__init__(maxlen=_KEPT)

    def note(
        self,
        way: str,
        queue: int,
        data: bytes,
        header: NetHdr | bytes | None,
        policy: Any = None,
    ) -> None:
        """One more, now."""
        self.append(Seen(time.time_ns(), way, queue, data, header, policy))


class Arrivals:
    """From the wire to the driver.

    Attributes:
        frames: received and not taken by anybody, oldest first.
        waiting: bytes, header and queue of what will go in when the rings have room.
        settling: the device's account.
    """

    def __init__(self, device: Device | None, driver: Driver, wire: Wire, history: History) -> None:
        self.frames: list[Frame] = []
        self.waiting: deque[tuple[bytes, bytes | None, int]] = deque()
        self.settling: Final = Settling(device, wire)
        self._device = device
        self._driver = driver
        self._wire = wire
        self._history = history

    async def until_silence(self, within: float) -> AsyncIterator[None]:
        """Come back whenever `frames` may have grown, until nothing more can come."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        self.settling.begin()
        while True:
            more = self._drain()
            self.pump()
            yield
            left = deadline - loop.time()
            if left <= 0:
                return
            if more or await self._next(min(left, _TICK)):
                continue
            # The counters are looked at when it is quiet: they cost more than a frame.
            if self.settling.done(len(self._driver.receiveqs)) and not self.waiting:
                self._drain()
                yield
                return

    def pump(self) -> None:
        """Put in what waits, as far as the driver's rings have room for it."""
        while self.waiting:
            data, header, queue = self.waiting[0]
            ring = self._driver.receiveqs[0].ring.size if self._driver.receiveqs else 2
            if self.settling.under_way() >= max(1, ring // 2 // (1 + len(data) // _BUFFER)):
                return
            try:
                self._wire.send(data, header, queue)
            except BlockingIOError:
                return
            except BaseException:
                self.waiting.popleft()
                raise
            self.waiting.popleft()
            self._history.note("injected", queue, data, header)

    async def _next(self, timeout: float) -> bool:  # noqa: ASYNC109 - the driver's contract
        try:
            self._take(await self._driver.receive(timeout))
        except TimeoutError:
            return False
        return True

    def _drain(self) -> bool:
        more = False
        while (frame := self._driver.receive_nowait()) is not None:
            self._take(frame)
            more = True
        return more

    def _take(self, frame: Frame) -> None:
        self.settling.taken += 1
        self.frames.append(frame)
        policy = None if self._device is None else self._device.device.policy
        self._history.note("received", frame.queue, frame.data, frame.header, policy)


class Departures:
    """From the driver to the wire.

    Attributes:
        frames: came out and not taken by anybody, oldest first.
    """

    def __init__(self, driver: Driver, wire: Wire, history: History, *, sure: bool) -> None:
        self.frames: list[SentFrame] = []
        self._driver = driver
        self._wire = wire
        self._history = history
        self._sure = sure  # a buffer that came back is on the wire, and can be read

    async def until_silence(self, within: float) -> AsyncIterator[None]:
        """Come back whenever `frames` may have grown, until nothing more can come.

        A device gives a buffer back when its frame is on the wire, not before.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        try:
            async with asyncio.timeout(within):
                await self._driver.flush()
        except TimeoutError:
            deadline = 0.0
        while True:
            while (frame := self._wire.recv()) is not None:
                self.frames.append(frame)
                self._history.note("out", frame.queue, frame.data, frame.header)
            yield
            left = deadline - loop.time()
            if self._sure or left <= 0:
                return
            await self._wire.readable(left)
