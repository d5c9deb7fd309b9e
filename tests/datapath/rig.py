# SPDX-License-Identifier: MIT
"""An engine with memory, rings and a host port around it, driven step by step by one test.

No event loop: the test is driver and wire at once, and waits on eventfds and
sockets.  What announces itself by no fd (a drop counter) is waited for with
`Rig.rounds`: every look is preceded by a command to each worker, which
answers between two of its batches, so a look is a round of the worker and
not a moment of time.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pyvnet.datapath.engine import Engine, QueueState
from pyvnet.datapath.memory import GuestMemory as MappedMemory
from pyvnet.datapath.native import DEFAULT, Native
from pyvnet.datapath.policy import Policy
from pyvnet.datapath.stats import PairStats
from pyvnet.driver.memory import GuestMemory
from pyvnet.driver.ring_split import Buffer, SplitRing
from pyvnet.netdev.null import Null
from pyvnet.netdev.pair import Pair
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.spec.rss import VERIFICATION_KEY
from pyvnet.testing.frames import Ipv4, build, udp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyvnet.datapath.config import EngineConfig
    from pyvnet.netdev.base import NetDevice

ALL_TYPES = 0x1FF
KEY = VERIFICATION_KEY
OTHER_KEY = bytes(reversed(VERIFICATION_KEY))
DEADLINE = 30.0  # a hang guard
ROUND_ROBIN = (0, 1, 2, 3)


class Received(NamedTuple):
    """A frame as the driver found it."""

    queue: int
    header: NetHdr
    data: bytes
    buffers: int


def frame_of(flow: int, serial: int = 0, size: int = 60) -> bytes:
    """A UDP frame that says which of its flow it is."""
    payload = serial.to_bytes(4, "big").ljust(size - 42, b".")
    return bytes(build(Ipv4("192.0.2.1", "198.51.100.2"), udp(1024 + flow, 4242, payload)))


def flow_and_serial(frame: bytes) -> tuple[int, int]:
    return int.from_bytes(frame[34:36], "big") - 1024, int.from_bytes(frame[42:46], "big")


class Queue:
    """One virtqueue: ring, eventfds, and the buffers in it."""

    def __init__(self, rig: Rig, index: int, size: int, start: int = 0) -> None:
        self.index = index
        # In order whatever a driver would say: the engine is not told, and knows no other way.
        self.ring = SplitRing(
            rig.memory,
            size,
            event_idx=rig.event_idx,
            indirect=rig.indirect,
            in_order=True,
            start=start,
        )
        flags = os.EFD_NONBLOCK | os.EFD_CLOEXEC
        self.kick_fd, self.call_fd, self.err_fd = (os.eventfd(0, flags) for _ in range(3))

    @property
    def fds(self) -> tuple[int, int, int]:
        return self.kick_fd, self.call_fd, self.err_fd

    def calls(self) -> int:
        """Notifications since the last look."""
        return drain(self.call_fd)

    def publish(self, *, kick: bool | None = None) -> bool:
        """Show what was staged; kick if asked to, or as told.  Returns whether the device asked."""
        wanted = self.ring.publish()
        if wanted if kick is None else kick:
            os.eventfd_write(self.kick_fd, 1)
        return wanted

    def kick(self) -> None:
        os.eventfd_write(self.kick_fd, 1)


def drain(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


class Rig:
    """``with Rig(pairs=4, workers=2) as rig``: every ring runs, receiveqs are empty.

    Args:
        port: "pair", "null", or a host port of the test's making, opened here.
        buffers: receive buffers put into each receiveq at once.
        start: False leaves the rings to the test.
        config: how the workers work.
    """

    def __init__(
        self,
        *,
        pairs: int = 4,
        workers: int | None = None,
        port: str | NetDevice = "pair",
        queue_size: int = 64,
        buffer_size: int = 2048,
        buffers: int = 0,
        event_idx: bool = True,
        indirect: bool = True,
        handoff_slots: int = 0,
        ring_start: int = 0,
        start: bool = True,
        config: EngineConfig | None = None,
        native: Native = DEFAULT,
    ) -> None:
        self.pairs = pairs
        self.event_idx, self.indirect = event_idx, indirect
        self.buffer_size = buffer_size
        self.native = native
        self.header_length, self.merge = 12, False
        self._undo = ExitStack()
        self.port: Any = port
        if isinstance(port, str):
            self.port = (Pair if port == "pair" else Null)(pairs)
        self._undo.enter_context(self.port)
        room = 2 * pairs * (queue_size * (buffer_size + 256) + 65536) + (1 << 21)
        self.memory = self._undo.enter_context(GuestMemory(room, name="-engine"))
        self._waiting = select.poll()
        self.queues = [Queue(self, i, queue_size, ring_start) for i in range(2 * pairs)]
        for queue in self.queues:
            for fd in queue.fds:
                self._undo.callback(os.close, fd)
            self._waiting.register(queue.call_fd, select.POLLIN)
        self.engine = Engine(
            pairs=pairs,
            port_type=self.port.kind,
            port_fds=self.port.fds,
            workers=workers,
            handoff_slots=handoff_slots,
            config=config,
            native=native,
        )
        self._undo.callback(self.engine.close)
        self.swap_memory()
        if start:
            for queue in self.queues:
                self.start_queue(queue.index)
        for pair in range(pairs):
            self.fill(pair, buffers)

    # Configuration.

    def swap_memory(self) -> None:
        """Map the same memory anew and swap it in."""
        with MappedMemory(self.memory.regions, self.native) as mapped:
            self.engine.set_memory(mapped)

    def policy(self, mode: str = "rss", **values: Any) -> None:
        """Put a policy in force; default: RSS over four queues, 20-byte header, mergeable."""
        settings: dict[str, Any] = {
            "mode": mode,
            "hash_types": ALL_TYPES,
            "key": KEY,
            "indirection_table": ROUND_ROBIN[: self.pairs] if mode == "rss" else (0,),
            "pairs": self.pairs,
            "port_queues": self.pairs,
            "header_length": 20,
            "merge_rx": True,
        }
        settings.update(values)
        with Policy.create(**settings, native=self.native) as policy:
            self.engine.set_policy(policy)
        self.header_length, self.merge = settings["header_length"], settings["merge_rx"]

    def start_queue(self, index: int, state: QueueState | None = None) -> None:
        queue = self.queues[index]
        setup = queue.ring.setup(index, *queue.fds)
        if state is not None:
            values = {name: getattr(setup, name) for name in type(setup).__slots__}
            values |= {"avail_base": state.avail_base, "used_base": state.used_base}
            setup = type(setup)(**values)
        self.engine.start_queue(setup, event_idx=self.event_idx, indirect=self.indirect)
        queue.calls()  # a ring that starts says so

    # The driver.

    def receiveq(self, pair: int) -> Queue:
        return self.queues[2 * pair]

    def transmitq(self, pair: int) -> Queue:
        return self.queues[2 * pair + 1]

    def fill(self, pair: int, count: int, size: int | None = None) -> None:
        """Give a receiveq ``count`` more buffers and publish them."""
        queue = self.receiveq(pair)
        for _ in range(count):
            length = size or self.buffer_size
            buffer = Buffer(self.memory.alloc(length), length, writable=True)
            queue.ring.add([buffer], buffer)
        if count:
            queue.publish()

    def take(self, pair: int, *, refill: bool = True) -> list[Received]:
        """Everything a receiveq has used, checked; the buffers go back in unless told."""
        queue = self.receiveq(pair)
        frames = []
        while (used := queue.ring.poll()) is not None:
            first: Buffer = used.chain.token  # type: ignore[assignment]
            parts, chains = [self.memory.read(first.gpa, used.length)], [used.chain]
            header = NetHdr.unpack(parts[0], self.header_length) if parts[0] else NetHdr()
            for _ in range(header.num_buffers - 1):
                more = queue.ring.poll()
                assert more is not None, "the rest of a frame is not visible (NET-RX-04)"
                buffer: Buffer = more.chain.token  # type: ignore[assignment]
                parts.append(self.memory.read(buffer.gpa, more.length))
                chains.append(more.chain)
            for chain in chains:
                if refill:
                    queue.ring.add([chain.token], chain.token)  # type: ignore[list-item]
                else:
                    self.memory.free(chain.token.gpa)  # type: ignore[attr-defined]
            data = b"".join(parts)[self.header_length :]
            frames.append(Received(pair, header, data, len(chains)))
        if frames and refill:
            queue.publish()
        return frames

    def take_all(self) -> list[Received]:
        return [frame for pair in range(self.pairs) for frame in self.take(pair)]

    def recycle(self) -> int:
        """Give every used receive buffer back unread and forget what was sent; returns how many."""
        count = 0
        for pair in range(self.pairs):
            self.sent(pair)
            queue = self.receiveq(pair)
            while (used := queue.ring.poll()) is not None:
                queue.ring.add([used.chain.token], used.chain.token)  # type: ignore[list-item]
                count += 1
            queue.publish()
        return count

    def receive(self, count: int) -> list[Received]:
        """Wait for ``count`` frames, from whatever queues."""
        frames: list[Received] = []

        def enough() -> bool:
            frames.extend(self.take_all())
            return len(frames) >= count

        self.wait(enough)
        assert len(frames) == count
        return frames

    def send(
        self,
        pair: int,
        *frames: bytes,
        cut: int | None = None,
        kick: bool | None = None,
        header: bytes = b"",
    ) -> None:
        """Stage frames on a transmitq, behind a header of zeros, and publish them together.

        ``cut`` cuts header and frame into two buffers there.
        """
        queue = self.transmitq(pair)
        for frame in frames:
            data = (header or bytes(self.header_length)) + frame
            gpa = self.memory.alloc(len(data))
            self.memory.write(gpa, data)
            whole = Buffer(gpa, len(data))
            pieces = [whole]
            if cut is not None:
                pieces = [Buffer(gpa, cut), Buffer(gpa + cut, len(data) - cut)]
            queue.ring.add(pieces, whole)
        queue.publish(kick=kick)

    def sent(self, pair: int) -> int:
        """Chains the transmitq gave back since last time."""
        count = 0
        while (used := self.transmitq(pair).ring.poll()) is not None:
            assert used.length == 0
            self.memory.free(used.chain.token.gpa)  # type: ignore[attr-defined]
            count += 1
        return count

    def wait_sent(self, pair: int, count: int) -> None:
        done = 0

        def enough() -> bool:
            nonlocal done
            done += self.sent(pair)
            return done >= count

        self.wait(enough)
        assert done == count

    # The wire.

    def inject(self, port_queue: int, *frames: bytes) -> None:
        """Frames into a host port queue, waiting where it is full."""
        wire = self.port.wire(port_queue)
        for frame in frames:
            while True:
                try:
                    wire.send(frame)
                except BlockingIOError:
                    _wait_fd(wire.fileno(), select.POLLOUT)
                else:
                    break

    def from_wire(self, port_queue: int, count: int) -> list[bytes]:
        """The next ``count`` frames the device put on a wire."""
        wire = self.port.wire(port_queue)
        frames: list[bytes] = []
        while len(frames) < count:
            try:
                frames.append(wire.recv().data)
            except BlockingIOError:
                _wait_fd(wire.fileno(), select.POLLIN)
        return frames

    # Waiting.

    def wait(self, done: Callable[[], bool]) -> None:
        """Until ``done()``, looking again after every notification."""
        deadline = time.monotonic() + DEADLINE
        while True:
            for queue in self.queues:
                drain(queue.call_fd)
            if done():
                return
            if any(queue.ring.arm() for queue in self.queues):
                continue
            left = deadline - time.monotonic()
            assert left > 0, f"hangs: {[self.engine.statistics(i) for i in range(self.pairs)]}"
            self._waiting.poll(left * 1000)

    def barrier(self) -> None:
        """Let every worker finish the batch it is in."""
        for pair in range(self.engine.workers):
            self.engine.queue_state(2 * pair)

    def rounds(self, done: Callable[[], bool]) -> None:
        """Until ``done()``, one round of every worker after the other."""
        deadline = time.monotonic() + DEADLINE
        while not done():
            assert time.monotonic() < deadline, f"hangs: {self.totals()}"
            self.barrier()

    # Counters.

    def stats(self, pair: int) -> PairStats:
        return self.engine.statistics(pair)

    def totals(self) -> PairStats:
        return sum((self.stats(i) for i in range(self.pairs)), PairStats())

    def assert_counters_add_up(self) -> None:
        """Every frame read ended in exactly one place (vnet.h).

        The kernel may speak on a tap at any time, and one of its frames be on its way.
        """

        def add_up() -> bool:
            totals = self.totals()
            return totals.rx_port_frames == totals.rx_packets + totals.rx_drops

        self.rounds(add_up)

    def close(self) -> None:
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wait_fd(fd: int, events: int) -> None:
    waiting = select.poll()
    waiting.register(fd, events)
    assert waiting.poll(DEADLINE * 1000), "hangs"


def ordered(frames: Sequence[Received]) -> dict[int, list[int]]:
    """Serial numbers of every flow, in order of arrival."""
    flows: dict[int, list[int]] = {}
    for frame in frames:
        flow, serial = flow_and_serial(frame.data)
        flows.setdefault(flow, []).append(serial)
    return flows
