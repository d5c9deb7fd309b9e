# SPDX-License-Identifier: MIT
"""Guest memory of a driver without a guest: regions of a memfd and an allocator.

Concepts
  gpa       guest physical address: the only kind of address rings and
            descriptors carry.
  region    a run of gpas backed by a run of the memfd.  Regions may touch,
            leave holes, and lie in the file in any order, so that bytes
            adjacent for the guest are apart for the device.

Shared words
  A word the device reads while we write it, or the other way round (ring
  indexes, flags, entries, event indexes), is touched through `words` and
  `dwords` only: item access of a cast memoryview is one aligned load or store
  of that width.  ``struct.pack_into`` is not: it zeroes the destination
  before it packs, and a device that looks in between sees index 0.
"""

from __future__ import annotations

import itertools
import mmap
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self

from pyvnet.errors import UsageError
from pyvnet.spec.transport import MemoryRegion

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAGE_SIZE: Final = mmap.PAGESIZE

# Not 0: an address that was never set shall hit nothing.
DEFAULT_GPA: Final = 0x4000_0000

_MAX_GPA: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """A region to make: ``size`` bytes at ``gpa``, at ``file_offset`` of the memfd.

    All three are multiples of the page size; ``file_offset`` None puts the
    region behind those listed before it.
    """

    gpa: int
    size: int
    file_offset: int | None = None


def _place(specs: Sequence[RegionSpec]) -> list[RegionSpec]:
    """Give every region its file offset, and refuse what cannot be mapped."""
    placed: list[RegionSpec] = []
    end = 0
    for spec in specs:
        offset = end if spec.file_offset is None else spec.file_offset
        if spec.size <= 0 or min(spec.gpa, offset) < 0 or spec.gpa + spec.size > _MAX_GPA:
            raise UsageError(f"{spec} is empty or wraps")
        if (spec.gpa | spec.size | offset) % PAGE_SIZE:
            raise UsageError(f"{spec} is not made of whole pages")
        placed.append(RegionSpec(spec.gpa, spec.size, offset))
        end = max(end, offset + spec.size)
    by_gpa = sorted(placed, key=lambda spec: spec.gpa)
    for low, high in itertools.pairwise(by_gpa):
        if low.gpa + low.size > high.gpa:
            raise UsageError(f"{low} and {high} overlap")
    return placed


class _Region:
    """One region with the state of its allocator."""

    __slots__ = ("delta", "end", "gpa", "next")

    def __init__(self, spec: RegionSpec) -> None:
        self.gpa = spec.gpa
        self.end = spec.gpa + spec.size
        self.delta = (spec.file_offset or 0) - spec.gpa  # file offset = gpa + delta
        self.next = spec.gpa


class GuestMemory:
    """Memory of a guest that does not exist, in a memfd ``pyvnet-guest…``.

    Args:
        regions: what to make, or a number of bytes for one region at `DEFAULT_GPA`.
        name: tail of the memfd's name, to tell several apart in /proc.

    Raises:
        UsageError: a region is empty, unaligned, or overlaps another.

    Used by one thread, as the rings in it are; `barrier` may be called by any.
    """

    def __init__(self, regions: int | Sequence[RegionSpec], *, name: str = "") -> None:
        if isinstance(regions, int):
            size = -(-regions // PAGE_SIZE) * PAGE_SIZE
            regions = [RegionSpec(DEFAULT_GPA, size)]
        placed = _place(regions)
        if not placed:
            raise UsageError("guest memory needs at least one region")
        length = max((spec.file_offset or 0) + spec.size for spec in placed)
        self._fd = os.memfd_create(f"pyvnet-guest{name}", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self._fd, length)
            self._map = mmap.mmap(self._fd, length, mmap.MAP_SHARED)
        except BaseException:
            os.close(self._fd)
            raise
        self._view = memoryview(self._map)
        self._views: list[memoryview] = []
        self._regions = [_Region(spec) for spec in placed]
        self._freed: dict[tuple[int, int], list[int]] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._fence = threading.Lock()
        self.regions: Final = tuple(
            MemoryRegion(spec.gpa, spec.size, spec.file_offset or 0, self._fd) for spec in placed
        )

    # --- allocation ---------------------------------------------------------------

    def alloc(self, size: int, *, align: int = 16, region: int | None = None) -> int:
        """Reserve ``size`` contiguous bytes and return their gpa; contents are whatever was there.

        Args:
            size: bytes, at least 1.
            align: power of two the gpa is a multiple of.
            region: number of the region to take them from; None: the first with room.

        Raises:
            UsageError: out of guest memory.
        """
        if region is None and (reusable := self._freed.get((size, align))):
            gpa = reusable.pop()
            self._sizes[gpa] = (size, align)
            return gpa
        for part in self._regions if region is None else [self._regions[region]]:
            gpa = (part.next + align - 1) & -align
            if gpa + size <= part.end:
                part.next = gpa + size
                self._sizes[gpa] = (size, align)
                return gpa
        raise UsageError(f"no {size} bytes left in guest memory")

    def alloc_many(self, size: int, count: int, *, align: int = 16) -> list[int]:
        """As ``count`` calls of `alloc`, for less than a tenth of their time.

        Raises:
            UsageError: out of guest memory; nothing was reserved.
        """
        stride = (size + align - 1) & -align
        reused = self._freed.get((size, align), [])[: -count - 1 : -1]
        gpas, ends = list(reused), {}
        for part in self._regions:
            first = (part.next + align - 1) & -align
            taken = min(count - len(gpas), max(0, (part.end - first + stride - size) // stride))
            if taken > 0:
                gpas += range(first, first + taken * stride, stride)
                ends[part] = gpas[-1] + size
        if len(gpas) < count:
            raise UsageError(f"no {count} times {size} bytes left in guest memory")
        if reused:
            del self._freed[size, align][-len(reused) :]
        for part, end in ends.items():
            part.next = end
        self._sizes.update(dict.fromkeys(gpas, (size, align)))
        return gpas

    def free(self, gpa: int) -> None:
        """Give back what `alloc` returned; the next request of the same shape gets it."""
        try:
            shape = self._sizes.pop(gpa)
        except KeyError:
            raise UsageError(f"{gpa:#x} was not allocated, or is free already") from None
        self._freed.setdefault(shape, []).append(gpa)

    def reset(self) -> None:
        """Forget every allocation and invalidate every `words`/`dwords` view handed out.

        Only for memory no device looks at any more.
        """
        self._release_views()
        self._freed.clear()
        self._sizes.clear()
        for part in self._regions:
            part.next = part.gpa

    # --- bytes --------------------------------------------------------------------

    def read(self, gpa: int, length: int) -> bytes:
        """Copy ``length`` bytes out; raises UsageError outside the regions."""
        for part in self._regions:
            if part.gpa <= gpa and gpa + length <= part.end:
                at = gpa + part.delta
                return self._map[at : at + length]
        return b"".join(self._map[at : at + size] for at, size in self._runs(gpa, length))

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """Copy ``data`` in; raises UsageError, before anything is written, outside the regions.

        For buffers and for ring memory not yet shown to a device; see "Shared
        words" above for the rest.
        """
        length = len(data)
        for part in self._regions:
            if part.gpa <= gpa and gpa + length <= part.end:
                at = gpa + part.delta
                self._map[at : at + length] = data
                return
        done = 0
        for at, size in list(self._runs(gpa, length)):
            self._map[at : at + size] = data[done : done + size]
            done += size

    def _runs(self, gpa: int, length: int) -> Iterator[tuple[int, int]]:
        """Cut a run of gpas at region borders: (file offset, size) of each piece."""
        while length:
            for part in self._regions:
                if part.gpa <= gpa < part.end:
                    size = min(length, part.end - gpa)
                    yield gpa + part.delta, size
                    gpa += size
                    length -= size
                    break
            else:
                raise UsageError(f"{gpa:#x} is outside guest memory")

    # --- words --------------------------------------------------------------------

    def words(self, gpa: int, count: int) -> memoryview:
        """16-bit view, valid until `reset` or `close`; item access is one aligned load or store."""
        return self._cast(gpa, count, 2, "H")

    def dwords(self, gpa: int, count: int) -> memoryview:
        """32-bit view, as `words`."""
        return self._cast(gpa, count, 4, "I")

    def octets(self, gpa: int, count: int) -> memoryview:
        """Byte view, as `words`."""
        return self._cast(gpa, count, 1, "B")

    def _cast(self, gpa: int, count: int, width: int, code: Literal["B", "H", "I"]) -> memoryview:
        if gpa % width:
            raise UsageError(f"{gpa:#x} is not aligned to {width} bytes")
        runs = list(self._runs(gpa, count * width))
        if len(runs) != 1:
            raise UsageError(f"{count * width} bytes at {gpa:#x} are not in one region")
        at, size = runs[0]
        with self._view[at : at + size] as part:
            view = part.cast(code)
        self._views.append(view)
        return view

    def barrier(self) -> None:
        """Full fence: no load or store of ours moves across it, in either direction.

        The one that plain program order does not give, even on x86-64, is
        store → load: "I published avail.idx, *then* I looked whether the device
        wants a kick".  Without it both sides may read the old value of the
        other's word, and both go to sleep.

        Python has no fence.  Letting a lock go is a release, taking one is an
        acquire, and release-then-acquire in this order is a full fence: a locked
        instruction on x86-64, and on aarch64 a load-acquire may not overtake an
        earlier store-release.  One cycle of a lock has them the wrong way round
        (acquire, then release), so two cycles are run, which also keeps this safe
        to call from any thread.
        """
        fence = self._fence
        with fence:
            pass
        with fence:
            pass

    # --- lifetime -----------------------------------------------------------------

    def _release_views(self) -> None:
        for view in self._views:
            view.release()
        self._views.clear()

    def close(self) -> None:
        """Unmap and close everything; views handed out become unusable.  Harmless twice.

        Raises BufferError if somebody still holds a slice of such a view; the
        mapping then lives as long as that slice.
        """
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        self._release_views()
        self._view.release()
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
