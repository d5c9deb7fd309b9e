# SPDX-License-Identifier: MIT
"""The transmitqs: frames out, buffers back ("Packet Transmission").

Transmit interrupts stay off: buffers that came back are collected when the
next frame is sent, and only a sender that found the ring full sleeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyvnet.driver.chain import cut_buffer
from pyvnet.driver.errors import RingFullError
from pyvnet.errors import UsageError
from pyvnet.spec.net_hdr import NetHdr, header_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.driver.chain import Used
    from pyvnet.driver.queue import DriverQueue
    from pyvnet.driver.recorder import Recording
    from pyvnet.spec.features import Feature

SMALL_BUFFER: Final = 2048
# Header, 65535 bytes of payload, Ethernet header with two VLAN tags.
BIG_BUFFER: Final = 66 * 1024
BIG_COUNT: Final = 32


def transmit_memory(queue_size: int) -> int:
    """Bytes of guest memory a `Transmitter` takes for its buffers."""
    return SMALL_BUFFER * queue_size + BIG_BUFFER * BIG_COUNT


class Transmitter:
    """One transmitq with its buffers: as many small ones as the ring may hold, a few big ones.

    Args:
        queue: the transmitq.
        features: what was negotiated; decides the size of the header.
        recording: is told of every frame.
    """

    def __init__(
        self, queue: DriverQueue, features: Feature, recording: Recording | None = None
    ) -> None:
        self._recording = recording
        self.queue: Final = queue
        self._header_size = header_size(features)
        self._no_header = NetHdr().pack(self._header_size)
        memory = queue.ring.memory
        small = memory.alloc(SMALL_BUFFER * queue.ring.size)
        big = memory.alloc(BIG_BUFFER * BIG_COUNT)
        self._small = list(range(small, small + SMALL_BUFFER * queue.ring.size, SMALL_BUFFER))
        self._big = list(range(big, big + BIG_BUFFER * BIG_COUNT, BIG_BUFFER))
        self._big_gpa = big
        queue.ring.disarm()

    def send_nowait(
        self, data: bytes, header: NetHdr | bytes | None = None, cuts: Sequence[int] = ()
    ) -> None:
        """Stage, publish and kick one frame.

        Args:
            data: the frame, Ethernet header first.
            header: the virtio header, raw bytes to send it as they are; None: all zero.
            cuts: lengths of the pieces header and frame together are cut into; one more takes
                the rest.

        Raises:
            RingFullError: no descriptor or buffer is free; nothing was sent.
            UsageError: header and frame are empty or longer than 66 KiB.
        """
        if header is None:
            head = self._no_header
        else:
            head = header.pack(self._header_size) if isinstance(header, NetHdr) else header
        message = head + data
        self.reap()
        pool = self._small if len(message) <= SMALL_BUFFER else self._big
        if len(message) > BIG_BUFFER:
            raise UsageError(f"{len(message)} bytes are more than a transmit buffer holds")
        if not pool:
            raise RingFullError("no transmit buffer free")
        ring = self.queue.ring
        gpa = pool[-1]
        ring.memory.write(gpa, message)
        if cuts:
            ring.add(cut_buffer(gpa, len(message), cuts, writable=False), gpa)
        else:
            ring.add_one(gpa, len(message), gpa, writable=False)
        pool.pop()
        if self._recording is not None:
            self._recording.sent(self.queue.index // 2, data, head)
        self.queue.publish()

    async def send(
        self, data: bytes, header: NetHdr | bytes | None = None, cuts: Sequence[int] = ()
    ) -> None:
        """`send_nowait`, but wait for room."""

        def attempt() -> bool | None:
            try:
                self.send_nowait(data, header, cuts)
            except RingFullError:
                return None
            return True

        if not attempt():
            await self.queue.wait_for(attempt)

    async def flush(self) -> None:
        """Wait until the device has given every frame back."""
        if not self.flushed():
            await self.queue.wait_for(lambda: self.flushed() or None)

    def flushed(self) -> bool:
        """Whether the device has given every frame back; raises DeviceViolation."""
        self.reap()
        return not self.queue.ring.outstanding

    def reap(self) -> None:
        """Collect what the device has given back; raises DeviceViolation."""
        poll = self.queue.ring.poll
        while (used := poll()) is not None:
            self._collect(used)
            self.queue.called.set()

    def _collect(self, used: Used) -> None:
        gpa = used.chain.token
        if not isinstance(gpa, int):
            self.queue.others.append(used)
        elif gpa >= self._big_gpa:
            self._big.append(gpa)
        else:
            self._small.append(gpa)
