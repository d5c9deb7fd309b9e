# SPDX-License-Identifier: MIT
"""The receiveqs: buffers out, frames in.

"Setting Up Receive Buffers" and "Processing of Incoming Packets".

A receive buffer goes through one circle: filled into the ring, used by the
device, copied out, filled in again at once.  Frames wait in a backlog until
somebody asks for them; when it is full, queues are left alone (and their
interrupts off) until it has room again, so a device can never make us grow.

What a device may not do with a buffer is checked here and comes out of
`Receiver.receive` as `DeviceViolation` in place of the frame.  A violation
after which the ring cannot be followed any more ends its queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pyvnet.driver.chain import cut_buffer
from pyvnet.driver.errors import DeviceViolation
from pyvnet.driver.header_rules import GUEST_GSO, OffloadSwitch
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import NetHdr, header_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.driver.chain import Buffer, Used
    from pyvnet.driver.memory import GuestMemory
    from pyvnet.driver.queue import DriverQueue
    from pyvnet.driver.recorder import Recording
    from pyvnet.driver.ring_split import SplitRing

# "Setting Up Receive Buffers": 65550 bytes of frame with a guest GSO feature, 1514 without,
# and as little as the header if buffers merge.
_GSO_FRAME: Final = 65550
_PLAIN_BUFFER: Final = 2048


@dataclass(slots=True)
class Frame:
    """One received frame.

    Attributes:
        data: the frame, without the virtio header.
        queue: pair number of the receiveq it arrived on (0-based).
        header: the virtio header; hash fields are 0 without HASH_REPORT.
        buffers: used.len of each receive buffer it was spread over; the first includes the header.
    """

    data: bytes
    queue: int
    header: NetHdr
    buffers: tuple[int, ...]

    @property
    def hash_value(self) -> int:
        """The reported 32-bit hash; 0 when nothing is reported."""
        return self.header.hash_value

    @property
    def hash_report(self) -> int:
        """The reported hash type, a `HashReport` value."""
        return self.header.hash_report


class ReceiveBuffer:
    """One receive buffer for life.

    ``pieces``: what it is cut into, in the order they are filled; empty: one
    run of ``size`` bytes at ``gpa``.
    """

    __slots__ = ("gpa", "pieces", "size")

    def __init__(self, gpa: int, size: int, pieces: Sequence[Buffer] = ()) -> None:
        self.gpa = gpa
        self.size = size
        self.pieces = pieces

    def stage(self, ring: SplitRing) -> None:
        """Give it to the device, at the next `publish`."""
        if self.pieces:
            ring.add(self.pieces, self)
        else:
            ring.add_one(self.gpa, self.size, self, writable=True)

    def read(self, memory: GuestMemory, length: int) -> bytes:
        """The first ``length`` bytes the device wrote."""
        if not self.pieces:
            return memory.read(self.gpa, length)
        parts = []
        for piece in self.pieces:
            parts.append(memory.read(piece.gpa, min(length, piece.length)))
            length -= len(parts[-1])
        return b"".join(parts)


def default_buffer_size(features: Feature) -> int:
    """Bytes of a receive buffer, header included, that the negotiated features call for."""
    if features & GUEST_GSO and not features & Feature.MRG_RXBUF:
        return header_size(features) + _GSO_FRAME
    return _PLAIN_BUFFER


class Receiver:
    """All receiveqs of a driver.

    Attributes:
        returned: buffers that came back without a frame.

    Args:
        queues: the receiveqs, pair 0 first.
        features: what was negotiated.
        buffer_size: bytes of each receive buffer, header included.
        cuts: lengths of the pieces each buffer is cut into; the rest is one more.
        backlog: frames kept for whoever asks, at most.
        recording: is told of every frame.
    """

    def __init__(
        self,
        queues: Sequence[DriverQueue],
        features: Feature,
        *,
        buffer_size: int,
        cuts: Sequence[int] = (),
        backlog: int = 4096,
        recording: Recording | None = None,
    ) -> None:
        self._recording = recording
        self._queues = list(queues)
        self._header = header_size(features)
        self._mergeable = bool(features & Feature.MRG_RXBUF)
        self._rules = OffloadSwitch(features)
        self._size = buffer_size
        self._cuts = tuple(cuts)
        self._backlog = backlog
        self._frames: deque[Frame | DeviceViolation] = deque()
        self._stalled: set[DriverQueue] = set()
        self._available = asyncio.Event()
        self._failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.returned = 0

    def fill(self, queue: DriverQueue, count: int) -> None:
        """Stage up to ``count`` fresh buffers, as many as the ring takes; nothing is published."""
        ring = queue.ring
        needed = 1 if ring.indirect else 1 + len(self._cuts)
        gpas = ring.memory.alloc_many(self._size, min(count, ring.free_descriptors // needed))
        if not self._cuts:
            ring.add_each(gpas, self._size, ReceiveBuffer)
            return
        for gpa in gpas:
            self.add(queue, cut_buffer(gpa, self._size, self._cuts, writable=True))

    @staticmethod
    def add(queue: DriverQueue, pieces: Sequence[Buffer]) -> None:
        """Stage one receive buffer of any shape; it is staged again whenever it comes back."""
        size = sum(piece.length for piece in pieces)
        ReceiveBuffer(pieces[0].gpa, size, pieces).stage(queue.ring)

    def start(self) -> None:
        """Take interrupts from now on, on the running loop."""
        self._loop = asyncio.get_running_loop()
        for queue in self._queues:
            queue.watch(self._harvest)
            self._harvest(queue)

    def fail(self, reason: Exception) -> None:
        """Make `receive` raise once the backlog is empty."""
        self._failure = reason
        self._available.set()

    def revive(self) -> None:
        """Take back what `fail` was told, and look at every ring."""
        self._failure = None
        for queue in self._queues:
            self._harvest(queue)

    # --- offloads -------------------------------------------------------------------

    def offloads_change(self, offloads: int) -> None:
        """GUEST_OFFLOADS_SET is about to be sent with this mask."""
        self._rules.begin(offloads)

    def offloads_changed(self, *, obeyed: bool) -> None:
        """It was answered; what is in the rings by now may still be from before."""
        visible = {}
        for queue in self._queues:
            with suppress(DeviceViolation):  # found again, and reported, by the next look
                visible[queue.index] = queue.ring.ready()
        self._rules.end(obeyed=obeyed, visible=visible)

    def look(self) -> None:
        """Take what the rings have by now."""
        for queue in self._queues:
            if not queue.ring.quiet():
                self._harvest(queue)

    # --- frames out -----------------------------------------------------------------

    def receive_nowait(self) -> Frame | None:
        """The next frame, or None; looks at every ring when the backlog is empty.

        Raises:
            DeviceViolation: in place of a frame that broke a rule.
        """
        if not self._frames:
            self.look()
        return self.pop()

    async def receive(self) -> Frame:
        """Wait for the next frame; raises as `receive_nowait` does, and what `fail` was told."""
        while (frame := self.pop()) is None:
            if self._failure is not None:
                raise self._failure
            self._available.clear()
            await self._available.wait()
        return frame

    def pop(self) -> Frame | None:
        """The next frame of the backlog, or None; raises a DeviceViolation found in it."""
        if not self._frames:
            return None
        item = self._frames.popleft()
        if self._stalled and self._loop and len(self._frames) <= self._backlog // 2:
            stalled, self._stalled = self._stalled, set()
            for queue in stalled:  # not now: a caller with frames at hand never yields
                self._loop.call_soon(self._harvest, queue)
        if isinstance(item, DeviceViolation):
            raise item
        return item

    # --- frames in ------------------------------------------------------------------

    def _harvest(self, queue: DriverQueue) -> None:
        """Take what the ring has, give the buffers back, and ask for an interrupt."""
        if queue.failure is not None:
            return
        self._stalled.discard(queue)
        ring = queue.ring
        ring.disarm()
        try:
            while True:
                while len(self._frames) < self._backlog:
                    used = ring.poll()
                    if used is None:
                        break
                    self._take(queue, used)
                else:
                    self._stalled.add(queue)
                queue.publish()
                if queue in self._stalled or not ring.arm():
                    break
                ring.disarm()
        except DeviceViolation as violation:
            queue.fail(violation)
            queue.unwatch()
            self._frames.append(violation)
        if self._frames:
            self._available.set()

    def _take(self, queue: DriverQueue, used: Used) -> None:
        """Turn one used buffer, or the several of a merged frame, into a frame."""
        buffer = used.chain.token
        if not isinstance(buffer, ReceiveBuffer):
            queue.others.append(used)
            return
        pair = queue.index // 2
        data = self._recycle(queue, buffer, used.length)
        if len(data) < self._header:
            self._no_frame(pair, buffer, len(data))
            return
        header = NetHdr.unpack(data, self._header)
        data = data[self._header :]
        lengths: tuple[int, ...] = (used.length,)
        wrong = None
        if header.num_buffers != 1:
            if self._mergeable and header.num_buffers:
                data, lengths, brimful = self._merge(queue, header.num_buffers, data, used)
                if not brimful:
                    wrong = f"merged buffers were filled with {lengths} bytes (NET-RX-02)"
            else:
                wrong = f"num_buffers is {header.num_buffers} (NET-RX-01)"
        if self._recording is not None:
            self._recording.received(pair, data, header)
        judged = self._rules.check(header, data, queue.index, len(lengths))
        wrong = wrong or judged
        if wrong is None:
            self._frames.append(Frame(data, pair, header, lengths))
        else:
            self._frames.append(DeviceViolation(f"receiveq {pair}: {wrong}"))

    def _merge(
        self, queue: DriverQueue, count: int, data: bytes, used: Used
    ) -> tuple[bytes, tuple[int, ...], bool]:
        """Collect the other buffers of a frame; all must be visible by now (NET-RX-04).

        Returns the whole frame, used.len of every buffer, and whether all but
        the last were filled to the brim and the last was needed.
        """
        ring = queue.ring
        if ring.visible < count - 1:
            raise DeviceViolation(
                f"receiveq {queue.index // 2}: num_buffers is {count}, but only "
                f"{1 + ring.visible} buffers became visible together (NET-RX-04)"
            )
        parts, lengths, brimful = [data], [used.length], True
        for _ in range(count - 1):
            brimful = brimful and used.length == used.chain.writable
            following = ring.poll()
            if following is None or not isinstance(following.chain.token, ReceiveBuffer):
                raise DeviceViolation("a merged frame runs into a buffer that is not one")
            used = following
            parts.append(self._recycle(queue, following.chain.token, used.length))
            lengths.append(used.length)
        return b"".join(parts), tuple(lengths), brimful and used.length > 0

    @staticmethod
    def _recycle(queue: DriverQueue, buffer: ReceiveBuffer, length: int) -> bytes:
        """Copy a used buffer out and stage it again."""
        data = buffer.read(queue.ring.memory, length)
        buffer.stage(queue.ring)
        return data

    def _no_frame(self, pair: int, buffer: ReceiveBuffer, length: int) -> None:
        """A buffer came back without a frame: in order when it cannot hold a header (U-55)."""
        self.returned += 1
        if length or buffer.size >= self._header:
            self._frames.append(
                DeviceViolation(f"receiveq {pair}: {length} bytes are less than a header")
            )
