# SPDX-License-Identifier: MIT
"""A virtio-net device in plain Python for driver tests: a peer, not a mock.

It reads the standard on its own: rings are walked with struct formats and
offsets written out here, nothing of pyvnet.driver or pyvnet.spec.ring is used.
It is slow and trusting, and does exactly what a test tells it to, lies included.
Tests on it cite no requirement: they prove that the driver notices, not that our
device obeys.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from pyvnet.spec.config import NetConfig
from pyvnet.spec.features import Feature, features_from_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyvnet.spec.transport import MemoryRegion, QueueSetup

OFFER = features_from_names(
    "guest_csum,guest_tso4,mac,mrg_rxbuf,status,ctrl_vq,mq,indirect_desc,event_idx,version_1,"
    "hash_report,rss"
)


class PlainMemory:
    """Guest memory as a device maps it."""

    def __init__(self, regions: Sequence[MemoryRegion]) -> None:
        self.parts = [
            (r.gpa, r.size, mmap.mmap(r.fd, r.size, offset=r.mmap_offset)) for r in regions
        ]

    def read(self, gpa: int, length: int) -> bytes:
        taken = b""
        while len(taken) < length:
            taken += self._at(gpa + len(taken), length - len(taken))
        return taken

    def _at(self, gpa: int, most: int) -> bytes:
        for start, size, part in self.parts:
            if start <= gpa < start + size:
                return part[gpa - start : min(gpa - start + most, size)]
        raise LookupError(f"{gpa:#x} is not guest memory")

    def write(self, gpa: int, data: bytes) -> None:
        for i in range(len(data)):
            for start, size, part in self.parts:
                if start <= gpa + i < start + size:
                    part[gpa + i - start] = data[i]
                    break
            else:
                raise LookupError(f"{gpa + i:#x} is not guest memory")

    def number(self, gpa: int, code: str) -> int:
        (value,) = struct.unpack(f"<{code}", self.read(gpa, struct.calcsize(code)))
        return int(value)

    def close(self) -> None:
        for _, _, part in self.parts:
            part.close()


class PlainChain(NamedTuple):
    """One chain as found: its head and its pieces (gpa, length)."""

    head: int
    readable: list[tuple[int, int]]
    writable: list[tuple[int, int]]


class PlainRing:
    """The device's end of one split ring."""

    def __init__(self, memory: PlainMemory, setup: QueueSetup, *, event_idx: bool = False) -> None:
        self.memory = memory
        self.setup = setup
        self.size = setup.size
        self.event_idx = event_idx
        self.taken = setup.avail_base
        self.used = setup.used_base
        self.shown = setup.used_base

    @property
    def available(self) -> int:
        return (self.memory.number(self.setup.avail_ring + 2, "H") - self.taken) & 0xFFFF

    def pop(self) -> PlainChain | None:
        if not self.available:
            if self.event_idx:
                self.set_avail_event(self.taken)
            return None
        slot = self.setup.avail_ring + 4 + 2 * (self.taken % self.size)
        head = self.memory.number(slot, "H")
        self.taken = (self.taken + 1) & 0xFFFF
        chain = PlainChain(head, [], [])
        self._walk(self.setup.desc_table, head, chain)
        return chain

    def _walk(self, table: int, index: int, chain: PlainChain) -> None:
        while True:
            gpa, length, flags, following = struct.unpack(
                "<QIHH", self.memory.read(table + 16 * index, 16)
            )
            if flags & 4:
                assert length % 16 == 0
                self._walk(gpa, 0, chain)
                return
            (chain.writable if flags & 2 else chain.readable).append((gpa, length))
            if not flags & 1:
                return
            index = following

    def gather(self, chain: PlainChain) -> bytes:
        return b"".join(self.memory.read(gpa, length) for gpa, length in chain.readable)

    def scatter(self, chain: PlainChain, data: bytes) -> None:
        for gpa, length in chain.writable:
            self.memory.write(gpa, data[:length])
            data = data[length:]
        assert not data

    def push(self, head: int, length: int) -> None:
        slot = self.setup.used_ring + 4 + 8 * (self.used % self.size)
        self.memory.write(slot, struct.pack("<II", head, length))
        self.used = (self.used + 1) & 0xFFFF

    def publish(self) -> bool:
        """Show what was pushed; interrupt the driver if it wants that, and say so."""
        old, self.shown = self.shown, self.used
        self.memory.write(self.setup.used_ring + 2, struct.pack("<H", self.used))
        if self.event_idx:
            event = self.memory.number(self.setup.avail_ring + 4 + 2 * self.size, "H")
            wanted = (self.used - event - 1) & 0xFFFF < (self.used - old) & 0xFFFF
        else:
            wanted = self.memory.number(self.setup.avail_ring, "H") == 0
        if wanted and self.setup.call_fd >= 0:
            os.eventfd_write(self.setup.call_fd, 1)
        return wanted

    def set_avail_event(self, index: int) -> None:
        self.memory.write(
            self.setup.used_ring + 4 + 8 * self.size, struct.pack("<H", index & 0xFFFF)
        )

    def set_used_flags(self, flags: int) -> None:
        self.memory.write(self.setup.used_ring, struct.pack("<H", flags))


class PlainDevice:
    """Status, features, configuration and queues; also a `pyvnet.driver.Transport`."""

    def __init__(self, *, offer: Feature = OFFER, pairs: int = 4) -> None:
        self.offer = offer
        self.net_config = NetConfig(mac=b"\2plain", max_virtqueue_pairs=pairs, status=1)
        self.log: list[str] = []
        self.status = 0
        self.sticky_status = 0
        self.driver_features = Feature(0)
        self.refuse_features = False
        self.generations: list[int] = []
        self.memory: PlainMemory | None = None
        self.rings: dict[int, PlainRing] = {}
        self.command: Callable[[bytes], bytes] = lambda _request: b"\0"
        self.commands: list[bytes] = []
        self.config_change_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._loop = asyncio.get_running_loop()

    # --- the transport ----------------------------------------------------------------

    async def device_features(self) -> int:
        return int(self.offer)

    async def set_driver_features(self, features: int) -> None:
        self.log.append("features")
        self.driver_features = Feature(features)

    async def get_status(self) -> int:
        return self.status | self.sticky_status

    async def set_status(self, status: int) -> None:
        self.log.append(f"status {status}")
        if not status:
            self._stop()
        if self.refuse_features:
            status &= ~8
        self.status = status

    async def read_config(self, offset: int, length: int) -> bytes:
        return self.net_config.pack()[offset : offset + length]

    async def config_generation(self) -> int:
        return self.generations.pop(0) if self.generations else 0

    async def set_memory(self, regions: Sequence[MemoryRegion]) -> None:
        self.log.append("memory")
        if self.memory is not None:
            self.memory.close()
        self.memory = PlainMemory(regions)

    async def set_queue(self, setup: QueueSetup) -> None:
        self.log.append(f"queue {setup.index}")
        assert self.memory is not None
        event_idx = bool(self.driver_features & Feature.EVENT_IDX)
        ring = self.rings[setup.index] = PlainRing(self.memory, setup, event_idx=event_idx)
        many = self.driver_features & (1 << 22 | 1 << 60)
        if setup.index == (2 * self.net_config.max_virtqueue_pairs if many else 2):
            self._loop.add_reader(setup.kick_fd, self._serve_control, ring)

    async def stop_queue(self, index: int) -> tuple[int, int]:
        ring = self.rings.pop(index)
        self._loop.remove_reader(ring.setup.kick_fd)
        return ring.taken, ring.used

    async def aclose(self) -> None:
        self._stop()
        if self.memory is not None:
            self.memory.close()
            self.memory = None
        if self.config_change_fd >= 0:
            os.close(self.config_change_fd)
            self.config_change_fd = -1

    def _stop(self) -> None:
        for ring in self.rings.values():
            self._loop.remove_reader(ring.setup.kick_fd)
        self.rings.clear()

    # --- what a test makes it do ------------------------------------------------------

    def kicks(self, index: int) -> int:
        """Kicks of a queue since the last call."""
        with contextlib.suppress(BlockingIOError):
            return os.eventfd_read(self.rings[index].setup.kick_fd)
        return 0

    def inject(self, frame: bytes, queue: int = 0, header: bytes | None = None) -> bool:
        """Put a frame into receive buffers, merging as needed; returns whether it interrupted."""
        self.fill(frame, queue, header)
        return self.rings[2 * queue].publish()

    def fill(self, frame: bytes, queue: int = 0, header: bytes | None = None) -> None:
        """As inject, but not yet visible."""
        ring = self.rings[2 * queue]
        size = 20 if self.driver_features & Feature.HASH_REPORT else 12
        packet = (bytes(size) if header is None else header) + frame
        chains, room = [], 0
        while room < len(packet):
            chain = ring.pop()
            assert chain is not None, "no receive buffer"
            chains.append(chain)
            room += sum(length for _, length in chain.writable)
        if header is None:
            packet = packet[:10] + struct.pack("<H", len(chains)) + packet[12:]
        for chain in chains:
            piece = packet[: sum(length for _, length in chain.writable)]
            ring.scatter(chain, piece)
            ring.push(chain.head, len(piece))
            packet = packet[len(piece) :]

    def sent(self, queue: int = 0) -> list[bytes]:
        """Take everything on a transmitq, header included, and complete it."""
        ring = self.rings[2 * queue + 1]
        frames = []
        while (chain := ring.pop()) is not None:
            assert not chain.writable
            frames.append(ring.gather(chain))
            ring.push(chain.head, 0)
        ring.publish()
        return frames

    def change_config(self, config: NetConfig) -> None:
        self.net_config = config
        os.eventfd_write(self.config_change_fd, 1)

    def _serve_control(self, ring: PlainRing) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(ring.setup.kick_fd)
        while (chain := ring.pop()) is not None:
            request = ring.gather(chain)
            self.commands.append(request)
            answer = self.command(request)
            room = sum(length for _, length in chain.writable)
            ring.scatter(chain, answer[:room])
            ring.push(chain.head, len(answer[:room]))
        ring.publish()
