# SPDX-License-Identifier: MIT
"""What a driver has between negotiation and reset: memory, queues, buffers, commands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from pyvnet.driver.control import Control
from pyvnet.driver.memory import GuestMemory
from pyvnet.driver.negotiation import memory_needed, pairs_offered
from pyvnet.driver.queue import DriverQueue
from pyvnet.driver.receive import Receiver, default_buffer_size
from pyvnet.driver.recorder import Recording
from pyvnet.driver.ring_split import SplitRing
from pyvnet.driver.transmit import Transmitter, transmit_memory
from pyvnet.errors import UsageError
from pyvnet.spec.features import Feature
from pyvnet.spec.transport import receiveq, transmitq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.driver.recorder import Recorder
    from pyvnet.spec.config import NetConfig


@dataclass(frozen=True, slots=True)
class Layout:
    """What `Driver.negotiate` was asked for beside features; see there."""

    queue_size: int
    pairs: int | None
    rx_buffer_size: int | None
    rx_buffers: int | None
    rx_cuts: Sequence[int]
    ring_start: int = 0


class Running:
    """Laid out when made; nothing is visible to the device before the transport has it.

    Args:
        features: what was negotiated.
        config: configuration space, for the number of pairs.
        layout: sizes and numbers.
        memory: guest memory to use and leave open; None: made to measure.
        backlog: as for `Driver`.
        control_timeout: as for `Driver`.
        recorder: as for `Driver`.

    Raises:
        UsageError: more pairs than the device has, not a queue size, or out of guest memory.
    """

    def __init__(
        self,
        features: Feature,
        config: NetConfig,
        layout: Layout,
        memory: GuestMemory | None,
        *,
        backlog: int,
        control_timeout: float | None,
        recorder: Recorder | None = None,
    ) -> None:
        most = pairs_offered(features, config)
        self.features: Final = features
        self.pairs: Final = most if layout.pairs is None else layout.pairs
        if not 0 < self.pairs <= most:
            raise UsageError(f"{self.pairs} queue pairs, the device has {most}")
        size = layout.rx_buffer_size
        size = default_buffer_size(features) if size is None else size
        buffers = layout.queue_size if layout.rx_buffers is None else layout.rx_buffers
        self._own_memory = memory is None
        self._made: list[DriverQueue] = []
        if memory is None:
            per_pair = transmit_memory(layout.queue_size) + buffers * (size + 16)
            memory = GuestMemory(
                memory_needed(2 * self.pairs + 1, layout.queue_size, self.pairs * per_pair)
            )
        else:
            memory.reset()
        self.memory: Final = memory
        try:
            make = partial(self._make, start=layout.ring_start)
            queue_size = layout.queue_size
            self.receiveqs = tuple(make(receiveq(i), queue_size) for i in range(self.pairs))
            self.transmitqs = tuple(make(transmitq(i), queue_size) for i in range(self.pairs))
            self.controlq = make(2 * most, queue_size) if features & Feature.CTRL_VQ else None
            told = None if recorder is None else Recording(recorder, features)
            self.transmitters = [Transmitter(queue, features, told) for queue in self.transmitqs]
            self.receiver = Receiver(
                self.receiveqs,
                features,
                buffer_size=size,
                cuts=layout.rx_cuts,
                backlog=backlog,
                recording=told,
            )
            self.ctrl = Control(
                self.controlq, timeout=control_timeout, receiver=self.receiver, recording=told
            )
            for queue in self.receiveqs:
                self.receiver.fill(queue, buffers)
        except BaseException:
            self._release()
            raise

    def _make(self, index: int, size: int, *, start: int) -> DriverQueue:
        ring = SplitRing(
            self.memory,
            size,
            event_idx=bool(self.features & Feature.EVENT_IDX),
            indirect=bool(self.features & Feature.INDIRECT_DESC),
            in_order=bool(self.features & Feature.IN_ORDER),
            start=start,
        )
        self._made.append(DriverQueue(index, ring))
        return self._made[-1]

    @property
    def queues(self) -> tuple[DriverQueue, ...]:
        """Every queue, by virtqueue index."""
        return tuple(sorted(self._made, key=lambda queue: queue.index))

    def start(self) -> None:
        """Notify and be notified: allowed from DRIVER_OK on."""
        for queue in (*self.transmitqs, *([self.controlq] if self.controlq else [])):
            queue.watch()
        self.receiver.start()

    def flushed(self) -> bool:
        """Whether the device has given back every frame sent; raises DeviceViolation."""
        return all(transmitter.flushed() for transmitter in self.transmitters)

    def fail(self, reason: Exception) -> None:
        """Wake everybody who waits, with ``reason``."""
        self.receiver.fail(reason)
        for queue in self._made:
            if queue.failure is None:
                queue.fail(reason)

    def revive(self, reason: Exception) -> None:
        """Take `fail` back, and look at every ring; queues that failed by themselves stay so."""
        for queue in self._made:
            queue.revive(reason)
        self.receiver.revive()

    def close(self, reason: Exception) -> None:
        """Wake everybody with ``reason`` and give everything up."""
        self.receiver.fail(reason)
        for queue in self._made:
            queue.fail(reason)
        self._release()

    def _release(self) -> None:
        for queue in self._made:
            queue.close()
        if self._own_memory:
            self.memory.close()
