# SPDX-License-Identifier: MIT
"""The two lines through a device as a script sees them: what goes in, what comes, until silence."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from pyvnet.testing.settle import Settling
from pyvnet.testing.steering import SteeringWatch

if TYPE_CHECKING:
    from pyvnet.driver.driver import Driver
    from pyvnet.driver.receive import Frame
    from pyvnet.runtime import Device
    from pyvnet.spec.net_hdr import NetHdr
    from pyvnet.testing.expectation import Expected
    from pyvnet.testing.steering import Steering
    from pyvnet.testing.wire import SentFrame, Wire

_T = TypeVar("_T", bound="Frame | SentFrame")
_TICK: Final = 0.002
_LOOK: Final = 0.05
_FLUSH: Final = 2.0  # seconds a device may take for what it was given, however short the wait
_KEPT: Final = 10_000
_BUFFER: Final = 1500  # bytes of frame a receive buffer surely holds


class Seen(NamedTuple):
    """One frame that passed: injected, received, sent, or out (on the wire)."""

    at: int  # ns since the epoch
    way: str
    queue: int
    data: bytes
    header: NetHdr | bytes | None
    steering: Steering | None  # in force for a frame towards the driver


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
        steering: Steering | None = None,
    ) -> None:
        """One more, now."""
        self.append(Seen(time.time_ns(), way, queue, data, header, steering))


class Shelf(list[_T]):
    """Frames in the order in which they came, until an expectation takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0


class Search(Generic[_T]):
    """Looks for one frame on a shelf, at each once, as long as nobody else takes some."""

    def __init__(self, shelf: Shelf[_T], wanted: Expected) -> None:
        self._shelf = shelf
        self._wanted = wanted
        self._from = 0
        self._taken = shelf.taken

    def take(self) -> _T | None:
        """The first frame that is the one wanted, taken from the shelf; None: there is none."""
        shelf = self._shelf
        if shelf.taken != self._taken:
            self._from, self._taken = 0, shelf.taken
        for position in range(self._from, len(shelf)):
            if not self._wanted.differences(shelf[position]):
                shelf.taken += 1
                return shelf.pop(position)
        self._from = len(shelf)
        return None


class Arrivals:
    """From the wire to the driver.

    Attributes:
        frames: received and not taken by anybody, oldest first.
        waiting: bytes, header and queue of what will go in when the rings have room.
        settling: the device's account.
        steering: the device's; None where there is none.
    """

    def __init__(self, device: Device | None, driver: Driver, wire: Wire, history: History) -> None:
        self.frames: Shelf[Frame] = Shelf()
        self.waiting: deque[tuple[bytes, bytes | None, int]] = deque()
        self.settling: Final = Settling(device, wire)
        self.steering: Final = None if device is None else SteeringWatch(device)
        self._driver = driver
        self._wire = wire
        self._history = history

    def wait(self, within: float | None, otherwise: float) -> Arriving:
        """Begin to wait for frames, for ``within`` seconds.

        None: until nothing more can come; where that cannot be told, ``otherwise`` seconds.
        """
        self.settling.begin()
        told = within is None
        return Arriving(self, otherwise if within is None else within, told=told)

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
            self._history.note("injected", queue, data, header, self._now())

    def drain(self) -> bool:
        """Take what the driver has; whether it had anything."""
        before = self.settling.taken
        while (frame := self._driver.receive_nowait()) is not None:
            self._take(frame)
        return self.settling.taken > before

    async def next(self, timeout: float) -> bool:  # noqa: ASYNC109 - the driver's contract
        """Wait for a frame; whether one came."""
        try:
            self._take(await self._driver.receive(timeout))
        except TimeoutError:
            return False
        return True

    def settled(self) -> bool:
        """Whether nothing more can come but what is in the rings now."""
        return self.settling.done(len(self._driver.receiveqs)) and not self.waiting

    def _take(self, frame: Frame) -> None:
        self.settling.taken += 1
        self.frames.append(frame)
        self._history.note("received", frame.queue, frame.data, frame.header, self._now())

    def _now(self) -> Steering | None:
        return None if self.steering is None else self.steering.now()


class Arriving:
    """One wait for frames; several may go on at once, and share what comes."""

    def __init__(self, arrivals: Arrivals, within: float, *, told: bool) -> None:
        self._arrivals = arrivals
        self._told = told  # the counters may end it
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + within
        self._known = arrivals.settling.taken

    async def more(self) -> bool:
        """Wait until there are frames not yet looked at; False when none can come."""
        arrivals = self._arrivals
        while True:
            arrivals.drain()
            arrivals.pump()
            if self._news():
                return True
            left = self._deadline - self._loop.time()
            if left <= 0:
                return False
            # The counters are looked at when it is quiet: they cost more than a frame.
            came = await arrivals.next(min(left, _TICK))
            if not came and arrivals.settled() and self._told:
                arrivals.drain()
                return self._news()

    def _news(self) -> bool:
        known, self._known = self._known, self._arrivals.settling.taken
        return self._known > known


class Departures:
    """From the driver to the wire.

    Attributes:
        frames: came out and not taken by anybody, oldest first.
    """

    def __init__(self, driver: Driver, wire: Wire, history: History, *, sure: bool) -> None:
        self.frames: Shelf[SentFrame] = Shelf()
        self._driver = driver
        self._wire = wire
        self._history = history
        self._sure = sure  # a buffer that came back is on the wire, and can be read
        self._loop = asyncio.get_running_loop()
        self._deadline = 0.0

    async def begin(self, within: float | None, otherwise: float) -> None:
        """Begin to wait, as `Arrivals.wait`; what the device is done with is in `frames` then.

        A device gives a buffer back when its frame is on the wire, not before.
        """
        seconds = otherwise if within is None else within
        told = within is None and self._sure
        self._deadline = 0.0 if told else self._loop.time() + seconds
        try:
            if not self._driver.pairs or not self._driver.running.flushed():
                async with asyncio.timeout(max(seconds, _FLUSH)):
                    await self._driver.flush()
        except TimeoutError:
            self._deadline = 0.0
        self._drain()

    async def more(self) -> bool:
        """Wait until `frames` may have grown; False when nothing more can come."""
        left = self._deadline - self._loop.time()
        if left <= 0:
            return False
        # Not for long: several may wait, and a loop tells one of them that there is something.
        await self._wire.readable(min(left, _LOOK))
        self._drain()
        return True

    def _drain(self) -> None:
        while (frame := self._wire.recv()) is not None:
            self.frames.append(frame)
            self._history.note("out", frame.queue, frame.data, frame.header)
