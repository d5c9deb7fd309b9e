# SPDX-License-Identifier: MIT
"""Scenarios: put a frame in on one side of a device, say what must come out on the other.

    vnet.inject(frame)                                    # from the wire
    await vnet.expect(frame, queue=2, report=HashReport.TCPV4)
    await vnet.send(frame, queue=1)                       # from the driver
    await vnet.expect_sent(frame)

Theory of time
    No verb sleeps, and no verb needs a clock to say "nothing comes".  Every
    frame a device reads ends in exactly one of its counters, so once all that
    was put in has been read, counted and taken out of the rings, the next frame
    will not come: an expectation that does not hold fails then, and silence is
    certain then.  That is microseconds, on a loaded machine as on an idle one,
    which is why there is no virtual clock: a device's threads and a kernel would
    not obey it, and the counters say more.  So what is to come goes in before it
    is expected.  Where the counters cannot tell (behind a tap, where others may
    send, against a back-end that is not ours, and when a device hangs), and
    where a test says ``within``, it is time that ends a wait.

Frames wait for their expectation in the order in which they came, so
expectations may be written in any order, and across queues.  Each frame
satisfies one of them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from pyvnet.driver.errors import CommandError
from pyvnet.errors import UsageError
from pyvnet.reference import classify, steer
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY, RssConfig
from pyvnet.testing.expectation import ExpectationError, Expected, header_fields, number
from pyvnet.testing.lines import Arrivals, Departures, History, Search
from pyvnet.testing.packets import Packet, Packets, frames_of, one_frame
from pyvnet.testing.picture import failure, silence_broken
from pyvnet.testing.promise import Promises, promised
from pyvnet.testing.steering import Steering, grounds, rss_config

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyvnet.driver.driver import Driver
    from pyvnet.driver.receive import Frame
    from pyvnet.runtime import Device
    from pyvnet.testing.wire import SentFrame, Wire

_LONGEST: Final = 5.0  # seconds, where the counters do not tell the end
_TAP_SILENCE: Final = 0.2


class Vnet(Promises):
    """A device, its driver, and the wire behind it.

    Attributes:
        device: the device; None where only a driver is ours.
        driver: negotiated.
        wire: the host's side.
        history: what passed, the last 10 000 frames.
    """

    def __init__(self, device: Device | None, driver: Driver, wire: Wire) -> None:
        super().__init__()
        self.device = device
        self.driver = driver
        self.wire = wire
        self.history = History()
        self._loop = asyncio.get_running_loop()
        self._arrivals = Arrivals(device, driver, wire, self.history)
        sure = self._arrivals.settling.possible
        self._silence = _LONGEST if sure else _TAP_SILENCE
        self._departures = Departures(driver, wire, self.history, sure=sure)
        self._steering: Steering | None = None

    # --- from the wire to the driver ------------------------------------------------------

    def inject(
        self,
        *packets: Packets,
        queue: int = 0,
        header: NetHdr | bytes | None = None,
    ) -> list[bytes]:
        """Put frames in on the wire; returns their bytes.

        More than the driver's rings hold wait here, and go in while something is expected.

        Args:
            packets: bytes, or anything with ``__bytes__`` (`testing.frames.Frame`, a scapy
                packet), or the path of a pcap or pcapng file, all of whose frames go in.
            queue: of the wire, where it has several.
            header: in front of each; None: zeros.

        Raises:
            UsageError: nothing that is a frame, or no such queue.
            CaptureError: the file is no capture, or damaged; frames before the damage went in.
            HostError: the frame is larger than the wire takes.
        """
        __tracebackhide__ = True
        number("queue", queue)
        if not 0 <= queue < self.wire.queues:
            raise UsageError(f"no queue {queue} on this wire: it has 0 to {self.wire.queues - 1}")
        raw = header.pack() if isinstance(header, NetHdr) else header
        frames = []
        for packet in packets:
            for data in frames_of(packet):
                frames.append(data)
                self._arrivals.waiting.append((data, raw, queue))
                self._arrivals.pump()
        return frames

    @promised
    async def expect(
        self,
        frame: Packet | None = None,
        *,
        queue: int | None = None,
        hash: int | None = None,  # noqa: A002 - that is its name
        report: int | None = None,
        header: NetHdr | None = None,
        where: Callable[[Frame], object] | None = None,
        within: float | None = None,
        **fields: int,
    ) -> Frame:
        """Wait for a frame of which all of this holds, take it and return it.

        Args:
            frame: its bytes, as for `inject`.
            queue: pair number of the receiveq.
            hash: the reported hash value.
            report: the reported hash type, a `HashReport`.
            header: the whole virtio header.
            where: any other condition on the received frame.
            within: seconds it may take; None: until nothing more can come (see the module).
            fields: single fields of the virtio header: ``flags=``, ``gso_size=``, …

        Raises:
            ExpectationError: it did not come; the message shows what did.
            DeviceViolation: the device handed over something a device may not.
            UsageError: what is expected makes no sense here.
        """
        __tracebackhide__ = True
        wanted = Expected(
            one_frame(frame), queue, header_fields(header, hash, report, fields), where
        )
        self._check(wanted)
        arriving = self._arrivals.wait(within, _LONGEST)
        search = Search(self._arrivals.frames, wanted)
        while True:
            if (frame_seen := search.take()) is not None:
                return frame_seen
            if not await arriving.more():
                raise ExpectationError(failure(self, wanted, self.received))

    @promised
    async def expect_nothing(
        self, *, queue: int | None = None, within: float | None = None
    ) -> None:
        """Make sure that no frame is left that no expectation has taken, and that none comes.

        Args:
            queue: pair number of the receiveq to look at; None: all of them.
            within: seconds to wait; None: until nothing more can come (see the module).

        Raises:
            ExpectationError: a frame; the message shows it.
        """
        __tracebackhide__ = True
        self._check(Expected(queue=queue))
        arriving = self._arrivals.wait(within, self._silence)
        while True:
            if left := [seen for seen in self.received if queue in {None, seen.queue}]:
                raise ExpectationError(silence_broken(self, left))
            if not await arriving.more():
                return

    # --- from the driver to the wire --------------------------------------------------------

    @promised
    async def send(
        self,
        *packets: Packets,
        queue: int = 0,
        header: NetHdr | bytes | None = None,
    ) -> list[bytes]:
        """Have the driver send frames; returns their bytes.

        Args:
            packets: as for `inject`.
            queue: pair number of the transmitq.
            header: the virtio header, raw bytes to send it as it is; None: zeros.
        """
        __tracebackhide__ = True
        self._check(Expected(queue=queue))
        frames = []
        for packet in packets:
            for data in frames_of(packet):
                await self.driver.send(data, queue=queue, header=header)
                self.history.note("sent", queue, data, header)
                frames.append(data)
        return frames

    @promised
    async def expect_sent(
        self,
        frame: Packet | None = None,
        *,
        queue: int | None = None,
        header: NetHdr | None = None,
        where: Callable[[SentFrame], object] | None = None,
        within: float | None = None,
        **fields: int,
    ) -> SentFrame:
        """Wait for a frame on the wire of which all of this holds, take it and return it.

        Args:
            frame: its bytes, as for `inject`.
            queue: of the wire.
            header: the whole header in front of it, as the host sees it.
            where: any other condition.
            within: seconds it may take; None: until nothing more can come.
            fields: single fields of the header.

        Raises:
            ExpectationError: it did not come out; the message shows what did.
        """
        __tracebackhide__ = True
        wanted = Expected(one_frame(frame), queue, header_fields(header, None, None, fields), where)
        await self._departures.begin(within, _LONGEST)
        search = Search(self._departures.frames, wanted)
        while True:
            if (frame_seen := search.take()) is not None:
                return frame_seen
            if not await self._departures.more():
                raise ExpectationError(failure(self, wanted, self.came_out))

    @promised
    async def expect_nothing_sent(self, *, within: float | None = None) -> None:
        """Make sure that nothing came out on the wire that no expectation has taken.

        Raises:
            ExpectationError: a frame; the message shows it.
        """
        __tracebackhide__ = True
        await self._departures.begin(within, self._silence)
        while not self.came_out:
            if not await self._departures.more():
                return
        raise ExpectationError(silence_broken(self, self.came_out))

    # --- steering -----------------------------------------------------------------------------

    @promised
    async def steer(
        self,
        *,
        table: Sequence[int] | None = None,
        hash_types: int = ALL_HASH_TYPES,
        key: bytes = VERIFICATION_KEY,
        unclassified_queue: int = 0,
    ) -> RssConfig:
        """Have the driver switch RSS on (MQ_RSS_CONFIG); returns what it sent.

        Args:
            table: the indirection table, a power of two of pair numbers; None: 128 entries, the
                pairs in turns.
            hash_types: a set of `HashType`.
            key: 1 to 40 bytes.
            unclassified_queue: where frames without a hash go.

        Raises:
            CommandError: the device refused; its notes say what of it the standard forbids.
            UsageError: CTRL_VQ was not negotiated, or no command can say this.
        """
        __tracebackhide__ = True
        pairs = max(self.driver.pairs, 1)
        config = rss_config(
            tuple(i % pairs for i in range(128)) if table is None else table,
            hash_types,
            key,
            unclassified_queue,
            pairs,
        )
        try:
            await self.driver.ctrl.rss_config(config)
        except CommandError as error:
            for reason in grounds(config, self.driver):
                error.add_note(reason)
            raise
        self._steering = Steering.of_config(config)
        return config

    @property
    def steering(self) -> Steering | None:
        """What decides about queue and hash now: the device's word, else the last `steer`."""
        return (
            self._steering if self.device is None else Steering.of_policy(self.device.device.policy)
        )

    def predict(self, frame: Packet) -> dict[str, Any]:
        """Queue, hash and report by `pyvnet.reference`, as keywords for `expect`.

        Without RSS the queue is not predicted; without HASH_REPORT hash and report are not.
        """
        steering = self.steering
        if steering is None:
            raise UsageError("nothing is known of how this device steers: use steer() first")
        hashed = classify(
            bytes(frame),
            int(steering.hash_types),
            steering.key,
            ex_types_always=steering.ex_types_always,
        )
        predicted: dict[str, Any] = {}
        if steering.rss:
            predicted["queue"] = steer(hashed, steering.table, steering.unclassified_queue)
        if self.driver.features & Feature.HASH_REPORT:
            predicted |= {"hash": hashed.value, "report": hashed.report}
        return predicted

    # --- the rest -------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """The device's counters that moved since this script began, over all queue pairs."""
        return self._arrivals.settling.moved()

    @property
    def received(self) -> list[Frame]:
        """Frames the driver got that no expectation has taken, oldest first."""
        return self._arrivals.frames

    @property
    def came_out(self) -> list[SentFrame]:
        """Frames that came out on the wire that no expectation has taken, oldest first."""
        return self._departures.frames

    @property
    def not_injected(self) -> int:
        """Frames that still wait to go in, because the driver's rings had no room."""
        return len(self._arrivals.waiting)

    def _check(self, wanted: Expected) -> None:
        __tracebackhide__ = True
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError(
                "this device lives on another event loop than the test: give the test and the "
                "vnet fixtures the same loop scope (asyncio_default_fixture_loop_scope)"
            )
        pairs = self.driver.pairs
        if wanted.queue is not None:
            number("queue", wanted.queue)
        if wanted.queue is not None and not 0 <= wanted.queue < pairs:
            raise UsageError(f"no queue pair {wanted.queue}: the driver has set up {pairs}")
        reported = {"hash_value", "hash_report"} & set(wanted.header)
        told = any(wanted.header[name] for name in reported)
        if told and not self.driver.features & Feature.HASH_REPORT:
            raise UsageError("HASH_REPORT was not negotiated, so no hash is reported")
