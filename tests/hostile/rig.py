# SPDX-License-Identifier: MIT
"""A victim, two bystanders, and guest memory that notices a stray byte.

Concepts
  arena      guest memory in one memfd, laid out ``canary | attack | canary | lanes |
             canary``.  The engine is told of *attack* and *lanes* only, and *attack*
             begins and ends in the middle of a page, so that the canaries share a
             page, and a mapping, with bytes the engine may write.
  ring       a virtqueue written by hand in the attack region: nothing stops a test
             from lying in it.
  lane       a queue pair whose driver behaves, moving frames both ways while an
             attack is under way.  The victim's second pair is one, a second engine
             in the process is the other: neither may lose a frame.
  rig        all of these, and what is checked after every attack.

Waiting.  A worker looks at its fds, works, and runs at most one command per
round.  A command posted before such a look may run in a round that began
earlier; the one after it cannot.  So when two `queue_state` calls have
returned, everything made readable before them has been seen, and its first
batch (64 frames a queue) is done: `settle` needs no clock.

A hang is one of C, where no Python signal handler runs: `guarded` ends the
process after ten seconds, with a traceback.
"""

from __future__ import annotations

import faulthandler
import os
import struct
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pyvnet.datapath import native
from pyvnet.datapath.config import EngineConfig
from pyvnet.datapath.engine import BreakReason, Engine, RingBroken
from pyvnet.datapath.memory import GuestMemory
from pyvnet.datapath.policy import Policy
from pyvnet.driver import memory as guest
from pyvnet.driver.ring_split import Buffer, SplitRing
from pyvnet.errors import UsageError
from pyvnet.netdev import Pair
from pyvnet.spec.ring import DESC, Desc, avail_ring_size, desc_table_size, used_ring_size
from pyvnet.spec.transport import MemoryRegion, QueueSetup, receiveq, transmitq

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyvnet.datapath.native import Native
    from pyvnet.netdev.pair import Wire

ROOT: Final = Path(__file__).parent.parent.parent
PAGE: Final = guest.PAGE_SIZE
HANG_SECONDS: Final = 60.0
_STDERR: Final = 2

ATTACK_GPA: Final = 0x4000_0000
LANES_GPA: Final = 0x8000_0000
_HIDDEN_GPA: Final = 0x1_0000_0000  # canary pages: the engine never hears of them
ATTACK_SIZE: Final = 48 * PAGE
_LANES_SIZE: Final = 32 * PAGE
TRIM: Final = 1024  # bytes at either end of the attack region that are canary, not guest memory
UNMAPPED: Final = 0x7000_0000_0000

ETHERNET: Final = bytes.fromhex("020000000001 020000000002 88b5")
HDR: Final = 12
HDR_HASH: Final = 20

# enum vnet_fail_site
ALLOC, MMAP, FD, EPOLL, THREAD, PORT_SEND, PORT_ATTACH = range(7)


def load_hooks() -> Native:
    """The build with test hooks, where there is no fixture to give it."""
    default = str(ROOT / "build/hooks/_ffi.abi3.so")
    return native.load(os.environ.get("PYVNET_NATIVE_HOOKS", default))


@contextmanager
def guarded() -> Iterator[None]:
    """One attempt: the process ends if it takes a minute."""
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=_STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def frame(serial: int = 0, length: int = 60) -> bytes:
    """A frame no parser knows, so that it is not hashed, telling its number."""
    return (ETHERNET + serial.to_bytes(4, "big")).ljust(length, b"\x5a")[:length]


def held() -> tuple[int, int, int]:
    """Descriptors, threads and guest memory mappings of the process."""
    fds, threads = (sum(1 for _ in Path(f"/proc/self/{name}").iterdir()) for name in ("fd", "task"))
    return fds, threads, Path("/proc/self/maps").read_text().count("memfd:pyvnet")


def expect_held(before: tuple[int, int, int]) -> None:
    """The process holds what it held before; threads leave /proc a moment after they ended."""
    deadline = time.monotonic() + 10
    while (now := held()) != before and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    assert now == before, f"fds, threads, mappings: {before} before, {now} after"


def _attack_specs(split: str) -> list[guest.RegionSpec]:
    half = ATTACK_SIZE // 2
    low = guest.RegionSpec(ATTACK_GPA, half, PAGE)
    match split:
        case "touching":
            return [low, guest.RegionSpec(ATTACK_GPA + half, half)]
        case "reversed":
            high = guest.RegionSpec(ATTACK_GPA + half, half, PAGE)
            return [guest.RegionSpec(ATTACK_GPA, half, PAGE + half), high]
        case "hole":
            return [low, guest.RegionSpec(ATTACK_GPA + half + PAGE, half)]
        case _:
            return [guest.RegionSpec(ATTACK_GPA, ATTACK_SIZE)]


class Arena:
    """Guest memory with canaries; see the module.

    ``split`` cuts the attack region in two, ``border`` being the first address of
    the second: "touching" and "reversed" (in the file), which the engine joins,
    "runs", which it cannot join, "hole", with a page of nothing between.
    """

    def __init__(self, split: str = "") -> None:
        specs = [
            guest.RegionSpec(_HIDDEN_GPA, PAGE),
            *_attack_specs(split),
            guest.RegionSpec(_HIDDEN_GPA + PAGE, PAGE),
            guest.RegionSpec(LANES_GPA, _LANES_SIZE),
            guest.RegionSpec(_HIDDEN_GPA + 2 * PAGE, PAGE),
        ]
        self.memory = guest.GuestMemory(specs)
        *_, last, _, lanes, _ = self.memory.regions
        first = self.memory.regions[1]
        self.base = first.gpa + TRIM
        self.end = last.gpa + last.size - TRIM
        self.border = ATTACK_GPA + ATTACK_SIZE // 2
        self.hole = last.gpa - self.border if split == "hole" else 0
        self.regions = (*self._told(split), lanes)
        self._words = None if split else self.memory.words(first.gpa, first.size // 2)
        self._canaries = ((_HIDDEN_GPA, 3 * PAGE), (first.gpa, TRIM), (self.end, TRIM))
        for gpa, size in self._canaries:
            self.memory.write(gpa, b"\xc5" * size)
        self._next = self.base
        self._before = b""
        self.wipe()

    def _told(self, split: str) -> tuple[MemoryRegion, ...]:
        """The attack region as the engine is told of it, trimmed."""
        if split == "runs":
            self.border += PAGE // 8
        if not split or split == "runs":
            parts = [MemoryRegion(self.base, self.end - self.base, PAGE + TRIM, self._fd)]
        else:
            _, low, high, *_ = self.memory.regions
            parts = [
                MemoryRegion(self.base, low.size - TRIM, low.mmap_offset + TRIM, low.fd),
                MemoryRegion(high.gpa, high.size - TRIM, high.mmap_offset, high.fd),
            ]
        if split == "runs":
            whole, cut = parts[0], self.border - self.base
            parts = [
                MemoryRegion(whole.gpa, cut, whole.mmap_offset, whole.fd),
                MemoryRegion(self.border, whole.size - cut, whole.mmap_offset + cut, whole.fd),
            ]
        return tuple(parts)

    @property
    def _fd(self) -> int:
        return self.memory.regions[0].fd

    def wipe(self) -> None:
        """Forget what was taken; what is there now is nothing anybody meant."""
        for region in self.regions[:-1]:
            self.memory.write(region.gpa, b"\xa7" * region.size)
        self._next = self.base

    def poke(self, gpa: int, data: bytes) -> None:
        """Write as much of it as there is memory for."""
        try:
            self.memory.write(gpa, data)
        except UsageError:
            for i in range(len(data)):
                with suppress(UsageError):
                    self.memory.write(gpa + i, data[i : i + 1])

    def take(self, size: int, align: int = 1) -> int:
        """Reserve bytes of the attack region."""
        gpa = (self._next + align - 1) & -align
        self._next = gpa + size
        assert self._next <= self.end
        return gpa

    def store16(self, gpa: int, value: int) -> None:
        """One aligned store of a word in the attack region."""
        if self._words is None:
            self.memory.write(gpa, struct.pack("<H", value & 0xFFFF))
        else:
            self._words[(gpa - ATTACK_GPA) >> 1] = value & 0xFFFF

    def load16(self, gpa: int) -> int:
        """One aligned load."""
        if self._words is None:
            return int.from_bytes(self.memory.read(gpa, 2), "little")
        return self._words[(gpa - ATTACK_GPA) >> 1]

    def freeze(self) -> None:
        """Remember every byte of the attack region."""
        self._before = self._all()

    def frozen(self, gpa: int, size: int) -> bytes:
        """What `freeze` remembers of these bytes."""
        at = gpa - self.base - (self.hole if gpa >= self.border else 0)
        return self._before[at : at + size]

    def _all(self) -> bytes:
        return b"".join(self.memory.read(r.gpa, r.size) for r in self.regions[:-1])

    def check(self, *allowed: tuple[int, int]) -> None:
        """No byte has changed since `freeze` but in ``allowed`` (gpa, size), and no canary."""
        before, after = bytearray(self._before), bytearray(self._all())
        for gpa, size in allowed:
            at = gpa - self.base - (self.hole if gpa >= self.border else 0)
            before[at : at + size] = after[at : at + size] = bytes(size)
        if before != after:
            wrong = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
            raise AssertionError(f"{len(wrong)} bytes changed, one at {self.base + wrong[0]:#x}")
        for gpa, size in self._canaries:
            assert self.memory.read(gpa, size) == b"\xc5" * size, f"canary at {gpa:#x}"

    def close(self) -> None:
        self.memory.close()


class Ring:
    """A virtqueue of ``size`` entries in the attack region, every word of it ours to forge."""

    def __init__(self, arena: Arena, size: int = 8, start: int = 0, **at: int) -> None:
        self.arena, self.size, self.start = arena, size, start
        self.desc = at.get("desc") or arena.take(desc_table_size(size), 16)
        self.avail = at.get("avail") or arena.take(avail_ring_size(size), 2)
        self.used = at.get("used") or arena.take(used_ring_size(size), 4)
        index = bytes(2) + struct.pack("<H", start)
        arena.poke(self.desc, bytes(desc_table_size(size)))
        arena.poke(self.avail, index.ljust(avail_ring_size(size), b"\0"))
        arena.poke(self.used, index.ljust(used_ring_size(size), b"\0"))

    @property
    def used_area(self) -> tuple[int, int]:
        """Where the device may write in any case."""
        return self.used, used_ring_size(self.size)

    @property
    def avail_idx(self) -> int:
        return self.avail + 2

    def entry(self, position: int) -> int:
        """Where the avail entry of a free-running index lies."""
        return self.avail + 4 + 2 * (position % self.size)

    def put(self, index: int, desc: Desc) -> None:
        """Write one descriptor."""
        self.arena.memory.write(self.desc + 16 * index, desc.pack())

    def offer(self, *heads: int) -> None:
        """Make chains available by the book."""
        idx = self.arena.load16(self.avail_idx)
        for i, head in enumerate(heads):
            self.arena.store16(self.entry(idx + i), head)
        self.arena.memory.barrier()
        self.arena.store16(self.avail_idx, idx + len(heads))

    def taken(self) -> list[tuple[int, int]]:
        """All (id, len) the device has given back."""
        count = (self.arena.load16(self.used + 2) - self.start) & 0xFFFF
        assert count <= self.size, f"used.idx is {count} ahead"
        raw = self.arena.memory.read(self.used + 4, 8 * self.size)
        elements = list(struct.iter_unpack("<II", raw))
        return [elements[(self.start + i) % self.size] for i in range(count)]

    def setup(self, index: int, kick: int = -1, call: int = -1, err: int = -1) -> QueueSetup:
        areas = (self.desc, self.avail, self.used)
        return QueueSetup(index, self.size, *areas, kick, call, err, self.start, self.start)


class Lane:
    """A well-behaved driver of one queue pair; `begin` puts frames under way, `end` counts them."""

    FRAMES: Final = 2

    def __init__(self, engine: Engine, memory: guest.GuestMemory, wire: Wire, pair: int) -> None:
        self._engine, self._memory, self._wire, self._pair = engine, memory, wire, pair
        self._kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._receiveq = SplitRing(memory, 8, event_idx=True)
        self._transmitq = SplitRing(memory, 8, event_idx=True)
        self._out = memory.alloc(128)
        self._serial = 0
        for _ in range(4):
            self._post(memory.alloc(256))
        self._receiveq.publish()
        for ring, index in ((self._receiveq, receiveq(pair)), (self._transmitq, transmitq(pair))):
            engine.start_queue(ring.setup(index, self._kick), event_idx=True, indirect=False)

    def _post(self, gpa: int) -> None:
        self._receiveq.add([Buffer(gpa, 256, writable=True)], gpa)

    def begin(self) -> None:
        """Send frames both ways."""
        for i in range(self.FRAMES):
            self._wire.send(frame(self._serial + i))
        self._memory.write(self._out, bytes(HDR) + frame(self._serial))
        for _ in range(self.FRAMES):
            self._transmitq.add([Buffer(self._out, HDR + 60)])
        self._transmitq.publish()
        os.eventfd_write(self._kick, 1)

    def end(self) -> None:
        """Every frame of `begin` has arrived, in order and whole."""
        for _ in range(2):
            self._engine.queue_state(receiveq(self._pair))
        for i in range(self.FRAMES):
            used = self._receiveq.poll()
            assert used is not None, f"pair {self._pair} lost a frame"
            assert isinstance(used.chain.token, int)
            got = self._memory.read(used.chain.token, used.length)
            assert got == struct.pack("<10xH", 1) + frame(self._serial + i)
            self._post(used.chain.token)
            sent = self._transmitq.poll()
            assert sent is not None
            assert sent.length == 0
            assert self._wire.recv().data == frame(self._serial)
        self._receiveq.publish()
        os.eventfd_write(self._kick, 1)
        self._serial += self.FRAMES

    def close(self) -> None:
        for index in (receiveq(self._pair), transmitq(self._pair)):
            self._engine.stop_queue(index)
        os.close(self._kick)


class Rig:
    """Victim engine, its arena and wires, and the lanes; pair 0 is the one attacked.

    With one pair there is no lane on the victim.  ``port`` other than "pair"
    has no wires and no lane on the victim.
    """

    def __init__(
        self,
        hooks: Native,
        *,
        pairs: int = 2,
        workers: int | None = None,
        handoff_slots: int = 0,
        neighbour: bool = True,
        split: str = "",
        **policy: Any,
    ) -> None:
        self.native = hooks
        self.pairs = pairs
        self._stack = ExitStack()
        with ExitStack() as stack:
            self.arena = Arena(split)
            stack.callback(self.arena.close)
            self.port = stack.enter_context(Pair(pairs))
            self.wire = self.port.wire(0)
            self.engine = stack.enter_context(
                Engine(
                    pairs=pairs,
                    workers=workers,
                    port_type="pair",
                    port_fds=self.port.fds,
                    handoff_slots=handoff_slots,
                    # What a flip counts is looks, of which one that looks on has any number.
                    config=EngineConfig(poll_us=0),
                    native=hooks,
                )
            )
            self.table = stack.enter_context(GuestMemory(self.arena.regions, hooks))
            self.engine.set_memory(self.table)
            self.set_policy(**policy)
            self.kick, self.call, self.err = (self._eventfd(stack) for _ in range(3))
            self.lanes: list[Lane] = []
            own_lane = pairs == 2 and not policy
            if own_lane:
                self._add_lane(stack, self.engine, self.arena.memory, self.port.wire(1), 1)
            if neighbour:
                self._add_neighbour(stack, hooks)
            stack.callback(self.disarm)
            self._stack = stack.pop_all()

    @staticmethod
    def _eventfd(stack: ExitStack) -> int:
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        stack.callback(os.close, fd)
        return fd

    def _add_lane(
        self, stack: ExitStack, engine: Engine, memory: guest.GuestMemory, wire: Wire, pair: int
    ) -> None:
        # In the victim's arena only the last but one region is for lanes.
        if memory is self.arena.memory:
            for number, region in enumerate(memory.regions[:-2]):
                memory.alloc(region.size, align=1, region=number)
        lane = Lane(engine, memory, wire, pair)
        stack.callback(lane.close)
        self.lanes.append(lane)

    def _add_neighbour(self, stack: ExitStack, hooks: Native) -> None:
        memory = stack.enter_context(guest.GuestMemory(16 * PAGE))
        port = stack.enter_context(Pair(1))
        engine = stack.enter_context(
            Engine(pairs=1, port_type="pair", port_fds=port.fds, native=hooks)
        )
        with GuestMemory(memory.regions, hooks) as table:
            engine.set_memory(table)
        with self._policy() as policy:
            engine.set_policy(policy)
        self._add_lane(stack, engine, memory, port.wire(0), 0)

    def _policy(self, **changes: Any) -> Policy:
        values: dict[str, Any] = {
            "mode": "automatic",
            "hash_types": 0,
            "key": b"",
            "pairs": 1,
            "header_length": HDR,
            "merge_rx": True,
            "port_queues": 1,
        }
        return Policy.create(**(values | changes), native=self.native)

    def set_policy(self, **changes: Any) -> None:
        """Automatic steering over all pairs and a 12-byte header, but for ``changes``."""
        with self._policy(**({"pairs": self.pairs, "port_queues": self.pairs} | changes)) as policy:
            self.engine.set_policy(policy)

    def begin(self) -> None:
        """Frames under way in every lane."""
        for lane in self.lanes:
            lane.begin()

    def end(self, *allowed: tuple[int, int]) -> None:
        """What holds after every attack."""
        for lane in self.lanes:
            lane.end()
        self.arena.check(*allowed)

    def start(
        self, ring: Ring, index: int, *, event_idx: bool = False, indirect: bool = True
    ) -> None:
        setup = ring.setup(index, self.kick, self.call, self.err)
        self.engine.start_queue(setup, event_idx=event_idx, indirect=indirect)

    def notify(self) -> None:
        os.eventfd_write(self.kick, 1)

    def settle(self, *pairs: int) -> None:
        """See "Waiting" in the module."""
        for pair in pairs or (0,):
            for _ in range(2):
                self.engine.queue_state(receiveq(pair))

    def fail(self, site: int, countdown: int) -> None:
        """Let the ``countdown``-th call of a kind fail."""
        assert self.native.lib.vnet_test_fail(site, countdown) == 0

    def flip(
        self, gpa: int, value: bytes, table: GuestMemory | None = None, *, read: int = 1
    ) -> None:
        """Write ``value`` at ``gpa`` right after the engine has read it so many times."""
        lib, cdata = self.native.lib, (table or self.table).cdata
        assert lib.vnet_test_flip(cdata, gpa, len(value), value, read) == 0

    @property
    def reads(self) -> int:
        """How often the engine has read the flipped range."""
        return int(self.native.lib.vnet_test_flip_reads())

    def disarm(self) -> None:
        """No failure and no flip is pending."""
        lib = self.native.lib
        lib.vnet_test_flip(self.native.ffi.NULL, 0, 0, self.native.ffi.NULL, 0)
        for site in range(PORT_ATTACH + 1):
            lib.vnet_test_fail(site, 0)

    def expect_broken(self, index: int, *reasons: BreakReason) -> None:
        """The ring stopped for one of these reasons, and said so once on each channel."""
        state = self.engine.queue_state(index)
        assert not state.running
        assert state.broken in reasons, f"broken by {state.broken.name}"
        assert self._count(self.err) == 1
        assert self.engine.next_event() == RingBroken(index, state.broken)
        assert self.engine.next_event() is None

    def expect_still_broken(self, index: int) -> None:
        """Nothing more was said about a ring that `expect_broken` has seen."""
        assert not self.engine.queue_state(index).running
        assert self._count(self.err) == 0
        assert self.engine.next_event() is None

    def expect_quiet(self, index: int) -> None:
        """The ring runs, nobody was alarmed."""
        state = self.engine.queue_state(index)
        assert state.running, f"broken by {state.broken.name}"
        assert self._count(self.err) == 0
        assert self.engine.next_event() is None

    @staticmethod
    def _count(fd: int) -> int:
        with suppress(BlockingIOError):
            return os.eventfd_read(fd)
        return 0

    def received(self) -> list[bytes]:
        """Frames that reached wire 0."""
        frames: list[bytes] = []
        with suppress(BlockingIOError):
            while True:
                frames.append(self.wire.recv().data)
        return frames

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def chain_bytes(descs: Sequence[Desc]) -> bytes:
    """A table, as it lies in memory."""
    return b"".join(DESC.pack(*desc) for desc in descs)
