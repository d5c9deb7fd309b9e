# SPDX-License-Identifier: MIT
"""The driver: from reset to frames ("General Initialization And Device Operation").

    async with Driver(transport) as drv:
        await drv.negotiate(Feature.CTRL_VQ | Feature.RSS | Feature.HASH_REPORT)
        await drv.ctrl.rss_config(RssConfig(…))
        await drv.send(frame, queue=1)
        frame = await drv.receive(timeout=1)

Everything runs on the loop it is used on; there are no threads and no tasks but
one, short-lived, upon a configuration change notification.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Self, SupportsBytes

from pyvnet.driver.config import ConfigWatch
from pyvnet.driver.control import DEFAULT_TIMEOUT, Control
from pyvnet.driver.errors import DeviceViolation, NegotiationError
from pyvnet.driver.memory import GuestMemory
from pyvnet.driver.negotiation import choose_features, memory_needed, pairs_offered
from pyvnet.driver.queue import DriverQueue
from pyvnet.driver.receive import Receiver, default_buffer_size
from pyvnet.driver.ring_split import SplitRing
from pyvnet.driver.transmit import Transmitter, transmit_memory
from pyvnet.errors import UsageError
from pyvnet.spec.features import NO_FEATURES, Feature, feature_names
from pyvnet.spec.status import DeviceStatus
from pyvnet.spec.transport import receiveq, transmitq

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyvnet.driver.queue import QueueStatistics
    from pyvnet.driver.receive import Frame
    from pyvnet.driver.ring_split import Buffer
    from pyvnet.driver.transport import Transport
    from pyvnet.spec.config import NetConfig
    from pyvnet.spec.net_hdr import NetHdr


class Driver:
    """A virtio-net driver on the other end of a transport, which it owns.

    Args:
        transport: the way to one device.
        memory: guest memory to use (and leave open); None: made to measure at each negotiation.
        control_timeout: seconds to wait for the answer to a control command; None: for ever.
        backlog: received frames kept until asked for; beyond that they stay in the rings.
        on_config_change: called with the new configuration space after every change.

    Attributes:
        transport: the way to the device.
        features: what was negotiated.
        pairs: queue pairs set up.
        receiveqs: one per pair, for whoever wants to look closer.
        transmitqs: the same.
        controlq: None without CTRL_VQ.
        ctrl: control commands.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        memory: GuestMemory | None = None,
        control_timeout: float | None = DEFAULT_TIMEOUT,
        backlog: int = 4096,
        on_config_change: Callable[[NetConfig], None] | None = None,
    ) -> None:
        self.transport: Final = transport
        self.features = NO_FEATURES
        self.pairs = 0
        self.receiveqs: tuple[DriverQueue, ...] = ()
        self.transmitqs: tuple[DriverQueue, ...] = ()
        self.controlq: DriverQueue | None = None
        self.ctrl = Control(None, timeout=control_timeout)
        self._control_timeout = control_timeout
        self._backlog = backlog
        self._watch = ConfigWatch(transport, on_config_change)
        self._given_memory = memory
        self._memory = memory
        self._receiver: Receiver | None = None
        self._transmitters: list[Transmitter] = []
        self._closed = False

    # --- initialization ---------------------------------------------------------------

    async def negotiate(
        self,
        features: Feature | None = None,
        *,
        queue_size: int = 256,
        pairs: int | None = None,
        rx_buffer_size: int | None = None,
        rx_buffers: int | None = None,
        rx_cuts: Sequence[int] = (),
        verbatim: bool = False,
    ) -> None:
        """Reset the device and bring it to DRIVER_OK; may be repeated with other choices.

        Args:
            features: bits to accept; VERSION_1 comes along.  None: all that both sides have.
            queue_size: of every queue.
            pairs: queue pairs to set up; None: all the device has with MQ or RSS, else 1.
            rx_buffer_size: bytes of each receive buffer, header included; None: what the
                features call for.
            rx_buffers: receive buffers per receiveq; None: as many as fit, 0: none.
            rx_cuts: lengths of the pieces each receive buffer is cut into, one more for the rest.
            verbatim: write exactly ``features``, offered and consistent or not, to see what the
                device makes of it.

        Raises:
            NegotiationError: bits not offered, not implemented here or inconsistent; FEATURES_OK
                refused.
            UsageError: more pairs than the device has, or not a queue size.
            DeviceViolation: status not 0 after a reset.
        """
        await self.reset()
        status = DeviceStatus.ACKNOWLEDGE
        await self.transport.set_status(status)
        status |= DeviceStatus.DRIVER
        await self.transport.set_status(status)
        try:
            self.features = await self._choose(features, verbatim=verbatim)
            status |= DeviceStatus.FEATURES_OK
            await self.transport.set_status(status)
            await self._check_accepted()
            await self._watch.read()
            self._set_up(queue_size, pairs, rx_buffer_size, rx_buffers, rx_cuts)
            await self._hand_over()
        except BaseException:
            self._tear_down()
            with contextlib.suppress(ConnectionError):
                await self.transport.set_status(status | DeviceStatus.FAILED)
            raise
        status |= DeviceStatus.DRIVER_OK
        await self.transport.set_status(status)
        self._start()

    async def _choose(self, wanted: Feature | None, *, verbatim: bool) -> Feature:
        offered = Feature(await self.transport.device_features())
        if not verbatim:
            wanted = choose_features(wanted, offered)
        chosen = offered if wanted is None else wanted
        await self.transport.set_driver_features(int(chosen))
        return chosen

    async def _check_accepted(self) -> None:
        if not await self.transport.get_status() & DeviceStatus.FEATURES_OK:
            names = ",".join(feature_names(self.features))
            raise NegotiationError(f"the device refused FEATURES_OK for {names}")

    def _set_up(
        self,
        queue_size: int,
        pairs: int | None,
        buffer_size: int | None,
        buffers: int | None,
        cuts: Sequence[int],
    ) -> None:
        """Lay out memory, rings and receive buffers; nothing is visible to the device yet."""
        most = pairs_offered(self.features, self._watch.config)
        self.pairs = most if pairs is None else pairs
        if not 0 < self.pairs <= most:
            raise UsageError(f"{self.pairs} queue pairs, the device has {most}")
        size = default_buffer_size(self.features) if buffer_size is None else buffer_size
        count = queue_size if buffers is None else buffers
        if self._given_memory is None:
            per_pair = transmit_memory(queue_size) + count * (size + 16)
            needed = memory_needed(2 * self.pairs + 1, queue_size, self.pairs * per_pair)
            self._memory = GuestMemory(needed)
        else:
            self._given_memory.reset()
        self.receiveqs = tuple(self._queue(receiveq(i), queue_size) for i in range(self.pairs))
        self.transmitqs = tuple(self._queue(transmitq(i), queue_size) for i in range(self.pairs))
        if self.features & Feature.CTRL_VQ:
            self.controlq = self._queue(2 * most, queue_size)
        self.ctrl = Control(self.controlq, timeout=self._control_timeout)
        self._transmitters = [Transmitter(queue, self.features) for queue in self.transmitqs]
        self._receiver = Receiver(
            self.receiveqs, self.features, buffer_size=size, cuts=cuts, backlog=self._backlog
        )
        for queue in self.receiveqs:
            self._receiver.fill(queue, count)

    def _queue(self, index: int, size: int) -> DriverQueue:
        ring = SplitRing(
            self.memory,
            size,
            event_idx=bool(self.features & Feature.EVENT_IDX),
            indirect=bool(self.features & Feature.INDIRECT_DESC),
        )
        return DriverQueue(index, ring)

    async def _hand_over(self) -> None:
        await self.transport.set_memory(self.memory.regions)
        for queue in self.queues:
            await self.transport.set_queue(queue.setup())

    def _start(self) -> None:
        """Notify and be notified: allowed from DRIVER_OK on."""
        self._watch.start()
        for queue in self.queues:
            if queue.index % 2 or queue is self.controlq:
                queue.watch()
        if self._receiver is not None:
            self._receiver.start()

    async def reset(self) -> None:
        """Reset the device and give up queues, buffers and undelivered frames.

        Raises:
            DeviceViolation: the status is not 0 afterwards (VIO-RST-01).
        """
        self._check_open()
        await self.transport.set_status(DeviceStatus.RESET)
        status = await self.transport.get_status()
        self._tear_down()
        self._watch.status = DeviceStatus.RESET
        if status:
            raise DeviceViolation(f"device status is {status:#x} after a reset (VIO-RST-01)")

    def _tear_down(self) -> None:
        gone = UsageError("the driver was reset or closed")
        if self._receiver is not None:
            self._receiver.fail(gone)
        for queue in self.queues:
            queue.fail(gone)
            queue.close()
        self.receiveqs = self.transmitqs = ()
        self.controlq = self._receiver = None
        self.ctrl = Control(None, timeout=self._control_timeout)
        self._transmitters = []
        self.pairs = 0
        self.features = NO_FEATURES
        if self._given_memory is None and self._memory is not None:
            self._memory.close()
            self._memory = None

    # --- frames -----------------------------------------------------------------------

    async def receive(self, timeout: float | None = None) -> Frame:  # noqa: ASYNC109 (contract)
        """The next frame of any receiveq.

        Args:
            timeout: seconds to wait; None: for ever.

        Raises:
            TimeoutError: none came.
            DeviceViolation: the device handed over something a device may not.
            UsageError: not negotiated, or reset meanwhile.
        """
        receiver = self._running()
        if (frame := receiver.pop()) is not None:
            return frame
        try:
            async with asyncio.timeout(timeout):
                return await receiver.receive()
        except TimeoutError:
            why = " (the device has set DEVICE_NEEDS_RESET)" if self.needs_reset else ""
            raise TimeoutError(f"no frame within {timeout} s{why}") from None

    def receive_nowait(self) -> Frame | None:
        """The next frame, or None; looks at the rings without waiting for an interrupt."""
        return self._running().receive_nowait()

    async def send(
        self,
        frame: SupportsBytes | bytearray | memoryview,
        *,
        queue: int = 0,
        header: NetHdr | bytes | None = None,
        cuts: Sequence[int] = (),
    ) -> None:
        """Send one frame; returns when the device was told, not when it is done (`flush`).

        Args:
            frame: bytes, or anything with ``__bytes__`` (a scapy packet), Ethernet header first.
            queue: pair number of the transmitq.
            header: virtio header, as raw bytes to send it as they are; None: all zero.
            cuts: lengths of the descriptors header and frame together are cut into.
        """
        self._running()
        await self._transmitters[queue].send(bytes(frame), header, cuts)

    def send_nowait(
        self,
        frame: SupportsBytes | bytearray | memoryview,
        *,
        queue: int = 0,
        header: NetHdr | bytes | None = None,
        cuts: Sequence[int] = (),
    ) -> None:
        """As `send`, but raises RingFullError instead of waiting for room."""
        self._running()
        self._transmitters[queue].send_nowait(bytes(frame), header, cuts)

    async def flush(self, queue: int | None = None) -> None:
        """Wait until the device has given back every frame sent (on one queue, or on all)."""
        self._running()
        chosen = self._transmitters if queue is None else [self._transmitters[queue]]
        for transmitter in chosen:
            await transmitter.flush()

    def add_receive_buffer(self, pair: int, pieces: Sequence[Buffer]) -> None:
        """Give a receiveq one more buffer, of any shape, for good; to be used with ``rx_buffers``.

        The pieces are writable and the caller's to lay out in `memory`.
        """
        self._running().add(self.receiveqs[pair], pieces)
        self.receiveqs[pair].publish()

    def _running(self) -> Receiver:
        self._check_open()
        if self._receiver is None:
            raise UsageError("negotiate first")
        return self._receiver

    # --- queues -----------------------------------------------------------------------

    @property
    def memory(self) -> GuestMemory:
        """The guest memory in use."""
        if self._memory is None:
            raise UsageError("negotiate first")
        return self._memory

    @property
    def queues(self) -> tuple[DriverQueue, ...]:
        """Every queue that is set up, by virtqueue index."""
        control = () if self.controlq is None else (self.controlq,)
        both = zip(self.receiveqs, self.transmitqs, strict=True)
        return (*(queue for pair in both for queue in pair), *control)

    def statistics(self) -> tuple[QueueStatistics, ...]:
        """Counters of every queue, by virtqueue index."""
        return tuple(queue.statistics() for queue in self.queues)

    # --- configuration space ----------------------------------------------------------

    @property
    def config(self) -> NetConfig:
        """Configuration space as it was at negotiation or at the last change notification."""
        return self._watch.config

    @property
    def needs_reset(self) -> bool:
        """Whether DEVICE_NEEDS_RESET was set at the last change notification."""
        return bool(self._watch.status & DeviceStatus.DEVICE_NEEDS_RESET)

    async def read_config(self) -> NetConfig:
        """Read configuration space afresh, in one consistent piece."""
        return await self._watch.read()

    async def wait_config_change(self) -> NetConfig:
        """Wait for a change notification not yet returned by this method; the new contents."""
        return await self._watch.wait_change()

    # --- lifetime ---------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the driver is closed")

    async def aclose(self) -> None:
        """Reset the device, free everything, close the transport; harmless twice."""
        if self._closed:
            return
        self._closed = True
        try:
            with contextlib.suppress(ConnectionError):
                await self.transport.set_status(DeviceStatus.RESET)
        finally:
            self._tear_down()
            await self._watch.stop(UsageError("the driver is closed"))
            await self.transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
