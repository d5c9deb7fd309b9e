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
from typing import TYPE_CHECKING, Any, Final, Self, SupportsBytes

from pyvnet.driver.config import ConfigWatch
from pyvnet.driver.connect import Connecting, Target, opener
from pyvnet.driver.control import DEFAULT_TIMEOUT as CONTROL_TIMEOUT
from pyvnet.driver.errors import DeviceViolation, NegotiationError, RefusedError
from pyvnet.driver.frontend import VhostUserFrontend
from pyvnet.driver.frontend_link import DEFAULT_TIMEOUT
from pyvnet.driver.negotiation import choose_features
from pyvnet.driver.offload import offload
from pyvnet.driver.running import Layout, Running
from pyvnet.driver.view import View
from pyvnet.errors import UsageError
from pyvnet.spec.features import NO_FEATURES, Feature, feature_names
from pyvnet.spec.status import DeviceStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyvnet.driver.chain import Buffer
    from pyvnet.driver.memory import GuestMemory
    from pyvnet.driver.receive import Frame
    from pyvnet.driver.recorder import Recorder
    from pyvnet.driver.transport import Transport
    from pyvnet.spec.config import NetConfig
    from pyvnet.spec.net_hdr import NetHdr
    from pyvnet.spec.vhost_user import ProtocolFeature

# What telling a device that it is given up may end in, and nobody needs to know.
_GIVEN_UP: Final = (ConnectionError, TimeoutError, RefusedError)


class Driver(View):
    """A virtio-net driver on the other end of a transport, which it owns.

    Args:
        transport: the way to one device.
        memory: guest memory to use (and leave open); None: made to measure at each negotiation.
        control_timeout: seconds to wait for the answer to a control command; None: for ever.
        backlog: received frames kept until asked for; beyond that they stay in the rings.
        on_config_change: called with the new configuration space after every change.
        capture: told of every frame, with what the device said of it (`pyvnet.capture.Writer`).
    """

    def __init__(
        self,
        transport: Transport,
        *,
        memory: GuestMemory | None = None,
        control_timeout: float | None = CONTROL_TIMEOUT,
        backlog: int = 4096,
        on_config_change: Callable[[NetConfig], None] | None = None,
        capture: Recorder | None = None,
    ) -> None:
        self.transport: Final = transport
        super().__init__(ConfigWatch(transport, on_config_change, self._connection_lost))
        self._control_timeout = control_timeout
        self._backlog = backlog
        self._given_memory = memory
        self._recorder = capture
        self._closed = False

    @classmethod
    def connect(
        cls,
        target: Target,
        *,
        protocol_features: ProtocolFeature | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        pairs: int | None = None,
        **options: Any,
    ) -> Connecting:
        """A driver on a vhost-user back-end: ``await`` the result, or ``async with`` it.

        Args:
            target: ``vhost-user:PATH``, a path, or a connected socket or its fd, taken over.
            protocol_features: what to use of the protocol at most; None: all that is known here.
            timeout: seconds the back-end may take for each answer.
            pairs: queue pairs to say it has, at most, if it has no configuration space to say so.
            options: for `Driver`.

        Raises:
            HostError: nobody listens there.
            DeviceViolation, ConnectionError, TimeoutError: it does not answer as a back-end does.
        """
        frontend = VhostUserFrontend(
            opener(target), protocol_features=protocol_features, timeout=timeout, pairs=pairs
        )
        return Connecting(frontend, lambda way: cls(way, **options))

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
        ring_start: int = 0,
        verbatim: bool = False,
    ) -> None:
        """Reset the device and bring it to DRIVER_OK; may be repeated with other choices.

        Args:
            features: bits to accept; VERSION_1 comes along.  None: all that both sides have and
                that have what they require.
            queue_size: of every queue.
            pairs: queue pairs to set up; None: all the device has with MQ or RSS, else 1.
            rx_buffer_size: bytes of each receive buffer, header included; None: what the
                features call for.
            rx_buffers: receive buffers per receiveq; None: as many as fit, 0: none.
            rx_cuts: lengths of the pieces each receive buffer is cut into, one more for the rest.
            ring_start: index the rings begin with; near 65536 they soon wrap.
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
            self.features = self._watch.features = await self._choose(features, verbatim=verbatim)
            status |= DeviceStatus.FEATURES_OK
            await self.transport.set_status(status)
            await self._check_accepted()
            self._running = Running(
                self.features,
                await self._watch.read(),
                Layout(queue_size, pairs, rx_buffer_size, rx_buffers, rx_cuts, ring_start),
                self._given_memory,
                backlog=self._backlog,
                control_timeout=self._control_timeout,
                recorder=self._recorder,
            )
            await self._hand_over()
        except BaseException:
            self._tear_down()
            with contextlib.suppress(*_GIVEN_UP):
                await self.transport.set_status(status | DeviceStatus.FAILED)
            raise
        status |= DeviceStatus.DRIVER_OK
        await self.transport.set_status(status)
        self._watch.start()
        self.running.start()

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

    async def _hand_over(self) -> None:
        await self.transport.set_memory(self.memory.regions)
        for queue in self.queues:
            await self.transport.set_queue(queue.setup())

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
        running, self._running = self._running, None
        if running is not None:
            running.close(UsageError("the driver was reset or closed"))
        self._lost = None
        self.features = self._watch.features = NO_FEATURES

    # --- the connection -----------------------------------------------------------------

    @property
    def frontend(self) -> VhostUserFrontend:
        """The vhost-user front-end below; raises UsageError where there is none."""
        if not isinstance(self.transport, VhostUserFrontend):
            raise UsageError("this driver is not connected over vhost-user")
        return self.transport

    async def reconnect(self) -> None:
        """Connect anew after the back-end was lost or replaced, and go on with the same rings.

        Whoever waited when it was lost got ConnectionError; from now on waiting works again.

        Raises:
            HostError: nobody listens there.
            RefusedError: the back-end does not take what was negotiated.
        """
        await self.frontend.reconnect()
        lost, self._lost = self._lost, None
        if lost is not None and self._running is not None:
            self._running.revive(lost)

    def _connection_lost(self, reason: Exception) -> None:
        if self._running is not None and self._lost is None:
            self._lost = reason
            self._running.fail(reason)

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
        receiver = self._checked().receiver
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
        return self._checked().receiver.receive_nowait()

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
        await self._checked().transmitters[queue].send(bytes(frame), header, cuts)

    def send_nowait(
        self,
        frame: SupportsBytes | bytearray | memoryview,
        *,
        queue: int = 0,
        header: NetHdr | bytes | None = None,
        cuts: Sequence[int] = (),
    ) -> None:
        """As `send`, but raises RingFullError instead of waiting for room."""
        self._checked().transmitters[queue].send_nowait(bytes(frame), header, cuts)

    async def send_offloaded(
        self,
        frame: SupportsBytes | bytearray | memoryview,
        *,
        queue: int = 0,
        gso_size: int = 0,
        ecn: bool = False,
    ) -> None:
        """Send a TCP or UDP frame whose checksum, and segmentation, is left to the device.

        Args:
            frame: complete, over IPv4 or IPv6, up to 64 KiB.
            queue: pair number of the transmitq.
            gso_size: payload bytes of each segment; 0: do not segment.
            ecn: the burst carries CWR.

        Raises:
            UsageError: not such a frame, or a feature it takes was not negotiated.
        """
        ready = offload(bytes(frame), gso_size=gso_size, ecn=ecn)
        if lacking := ready.needs & ~self.features:
            raise UsageError(f"not negotiated: {','.join(feature_names(lacking))}")
        await self.send(ready.frame, queue=queue, header=ready.header)

    async def flush(self, queue: int | None = None) -> None:
        """Wait until the device has given back every frame sent (on one queue, or on all)."""
        every = self._checked().transmitters
        chosen = every if queue is None else [every[queue]]
        for transmitter in chosen:
            await transmitter.flush()

    def add_receive_buffer(self, pair: int, pieces: Sequence[Buffer]) -> None:
        """Give a receiveq one more buffer, of any shape, for good; to be used with ``rx_buffers``.

        The pieces are writable and the caller's to lay out in `memory`.
        """
        running = self._checked()
        running.receiver.add(running.receiveqs[pair], pieces)
        running.receiveqs[pair].publish()

    def _checked(self) -> Running:
        self._check_open()
        return self.running

    # --- configuration space ----------------------------------------------------------

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
            with contextlib.suppress(*_GIVEN_UP):
                await self.transport.set_status(DeviceStatus.RESET)
        finally:
            self._tear_down()
            await self._watch.stop(UsageError("the driver is closed"))
            await self.transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
