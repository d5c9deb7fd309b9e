# SPDX-License-Identifier: MIT
"""What the cases about rings share: frames to tell apart, chains by hand, interrupts counted."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pyvnet.driver import Buffer
from pyvnet.driver.errors import DeviceViolation
from pyvnet.driver.queue import drain_eventfd
from pyvnet.spec.net_hdr import NetHdr, header_size

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver, Frame
    from pyvnet.driver.queue import DriverQueue

SMALLEST: Final = 60  # as Ethernet has it, without the checksum: no wire adds anything
LARGEST: Final = 1514
LARGEST_MTU: Final = 60000  # a frame beyond it fits an IP packet and the wires

_TO_ALL: Final = b"\xff" * 6
_FROM: Final = b"\x02ring\x01"
_EXPERIMENTS: Final = b"\x88\xb5"
PAUSE: Final = 0.0005  # seconds between two looks at memory nobody signals
IDLE: Final = 0.1  # seconds, where nothing can be seen of a device that does what it should


def numbered(number: int, size: int = SMALLEST) -> bytes:
    """A frame for everybody that is like no other number's, of any size from 18 bytes on."""
    head = _TO_ALL + _FROM + _EXPERIMENTS + number.to_bytes(4, "big")
    body = bytes((number + i) % 251 for i in range(size - len(head)))
    return head + body


def head_of(drv: Driver) -> bytes:
    """A virtio header of zeros, of the size in force."""
    return NetHdr().pack(header_size(drv.features))


def scatter(
    drv: Driver, message: bytes, cuts: Sequence[int], *, writable: bool = False
) -> list[Buffer]:
    """Put a message into guest memory in pieces that lie apart, at odd addresses too.

    Args:
        drv: whose memory.
        message: the bytes; what a writable piece holds before.
        cuts: lengths of the pieces; the rest is one more.
        writable: for the device to write.
    """
    pieces: list[Buffer] = []
    rest = message
    for cut in (*cuts, len(message)):
        if piece := rest[:cut]:
            gpa = drv.memory.alloc(len(piece) + 3) + len(pieces) % 3
            drv.memory.write(gpa, piece)
            pieces.append(Buffer(gpa, len(piece), writable))
        rest = rest[cut:]
    return pieces


def collect(drv: Driver, pieces: Sequence[Buffer], length: int) -> bytes:
    """The first bytes of a scattered message as they are now."""
    return b"".join(drv.memory.read(piece.gpa, piece.length) for piece in pieces)[:length]


def cuts_of(size: int) -> Iterator[tuple[int, ...]]:
    """Ways to cut a message that begins with a header of so many bytes."""
    yield ()
    for first in (1, size - 1, size, size + 1, size + 14):
        yield (first,)
    yield (size // 2, size - size // 2, 14)


async def until(t: Trial, look: Callable[[], object], what: str) -> None:
    """Wait until a look at guest memory shows something true; fail if it does not in time."""
    t.doing = what
    try:
        async with asyncio.timeout(t.step):
            while not look():  # noqa: ASYNC110 (nobody signals a change of memory)
                await asyncio.sleep(PAUSE)
    except TimeoutError:
        t.fail(f"no {what} within {t.step:.3g} s")


def exceeds(t: Trial, mtu: int) -> None:
    """Go on where a frame larger than the MTU can be had."""
    if mtu > LARGEST_MTU:
        t.not_applicable(f"no wire carries a frame larger than an mtu of {mtu}")


async def goes_out(t: Trial, drv: Driver, data: bytes) -> None:
    """A frame is sent, and something comes out on the wire."""
    await drv.send(data)
    await t.wire.receive(t.step)


async def comes_in(t: Trial, drv: Driver, data: bytes) -> None:
    """A frame is put on the wire, and something is received."""
    await t.inject(data)
    await drv.receive(t.step)


async def undisturbed(
    t: Trial,
    before: object,
    look: Callable[[], object],
    what: str,
    *turns: Callable[[], Awaitable[object]],
) -> None:
    """Look that memory stays as it was although the device has had its turn at it.

    Args:
        t: the trial.
        before: what is looked at, before the device had reason to change it.
        look: what must stay the same.
        what: it, for the report.
        turns: in order, what comes only when the device has worked on since; two make sure that
            it was through everything in between.  A device that owes none of them, or none at all
            being there, is given time: nothing else tells that it does nothing.
    """
    t.doing = f"a turn of the device at {what}"
    try:
        async with asyncio.timeout(t.step / 2):
            for turn in turns:
                await turn()
    except TimeoutError:
        turns = ()
    with suppress(TimeoutError):
        async with asyncio.timeout(0 if turns else min(IDLE, t.step / 4)):
            while look() == before:  # noqa: ASYNC110 (nobody signals a change of memory)
                await asyncio.sleep(PAUSE)
    t.check(look() == before, f"{what} changed")


async def flush(t: Trial, drv: Driver, queue: int = 0) -> None:
    """Wait until every frame sent has been given back."""
    t.doing = "transmit buffers to come back"
    try:
        async with asyncio.timeout(t.step):
            await drv.flush(queue)
    except TimeoutError:
        left = drv.transmitqs[queue].ring.outstanding
        t.fail(f"{left} transmit buffers did not come back within {t.step:.3g} s")


async def leaves(t: Trial, frame: bytes, what: str = "the frame on the wire") -> None:
    """Look that this is the next frame on the wire."""
    t.equal((await t.sent()).data, frame, what)


async def arrives(t: Trial, drv: Driver, frame: bytes, what: str = "the frame received") -> Frame:
    """Send a frame from the wire and look that it is the next one received."""
    await t.inject(frame)
    try:
        seen = await t.receive(drv)
    except DeviceViolation as violation:
        t.fail(f"{what}: {violation}")
    t.equal(seen.data, frame, what)
    return seen


async def crosses(t: Trial, drv: Driver, number: int, size: int = SMALLEST) -> None:
    """Send a numbered frame either way."""
    frame = numbered(number, size)
    await drv.send(frame)
    await leaves(t, frame)
    await arrives(t, drv, frame)


class Calls:
    """The interrupts of one queue, taken out of the driver's hand and counted.

    Args:
        t: the trial.
        queue: it; the driver does not look at it by itself any more.
    """

    def __init__(self, t: Trial, queue: DriverQueue) -> None:
        self._t = t
        self._queue = queue
        queue.unwatch()

    def taken(self) -> int:
        """Signals since the last call."""
        return drain_eventfd(self._queue.call_fd)

    async def come(self, what: str) -> int:
        """Wait for an interrupt; none in time is a failure.  Returns how many there were."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        fd = self._queue.call_fd
        self._t.doing = f"an interrupt: {what}"
        loop.add_reader(fd, ready.set)
        try:
            async with asyncio.timeout(self._t.step):
                await ready.wait()
        except TimeoutError:
            self._t.fail(f"no interrupt within {self._t.step:.3g} s: {what}")
        finally:
            loop.remove_reader(fd)
        return self.taken()

    async def frame(self, drv: Driver, what: str) -> Frame:
        """The next frame, looked for after interrupts only.

        Not before the first either: a frame that was there already would be taken whether or not
        the device told of it.
        """
        while True:
            await self.come(what)
            if (frame := drv.receive_nowait()) is not None:
                return frame
