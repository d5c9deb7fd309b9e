# SPDX-License-Identifier: MIT
"""Guest memory as a front-end tells a back-end about it.

The protocol names ring addresses as the front-end's own pointers (user
addresses), and each region's own user address says how to translate them.  No
pointer exists here, so addresses are made up: different from the guest's, in
another order and with gaps, so that a back-end which mixes the two up or
translates by a single offset does not get far.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pyvnet.errors import UsageError
from pyvnet.spec import vhost_user as vu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.spec.transport import MemoryRegion

_TOP: Final = 0x7E00_0000_0000  # user addresses are given out from here downwards
_GAP: Final = 1 << 30
_ALIGN: Final = 1 << 21
_USED_IDX: Final = 2  # offset in the used ring


@dataclass(frozen=True, slots=True)
class _Kept:
    """A region as the back-end knows it, with an fd of our own."""

    description: vu.RegionDescription
    fd: int
    file: tuple[int, int]

    def same(self, region: MemoryRegion) -> bool:
        """Whether this is the same memory at the same place."""
        known = self.description
        return self.file == _identity(region.fd) and (
            (known.gpa, known.size, known.mmap_offset)
            == (region.gpa, region.size, region.mmap_offset)
        )


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


@dataclass(frozen=True, slots=True)
class Change:
    """What a new memory table adds to the old one and what it takes away."""

    added: tuple[tuple[vu.RegionDescription, int], ...]
    removed: tuple[vu.RegionDescription, ...]


class MemoryMap:
    """The regions the back-end has, or is about to have."""

    def __init__(self) -> None:
        self._regions: list[_Kept] = []
        self._user_addresses: dict[tuple[int, int], int] = {}
        self._next = _TOP

    @property
    def table(self) -> tuple[tuple[vu.RegionDescription, int], ...]:
        """Description and fd of every region."""
        return tuple((region.description, region.fd) for region in self._regions)

    def replace(self, regions: Sequence[MemoryRegion]) -> Change:
        """Make these the regions; the fds stay the caller's.

        A region that was there before keeps its user address, so that addresses
        of running rings stay good.
        """
        old = self._regions
        kept = [(region, next((o for o in old if o.same(region)), None)) for region in regions]
        fresh = [have or self._keep(region) for region, have in kept]
        gone = [region for region in old if region not in fresh]
        change = Change(
            tuple((region.description, region.fd) for region in fresh if region not in old),
            tuple(region.description for region in gone),
        )
        self._regions = fresh
        for region in gone:
            os.close(region.fd)
        return change

    def _keep(self, region: MemoryRegion) -> _Kept:
        uva = self._user_address(region.gpa, region.size)
        description = vu.RegionDescription(region.gpa, region.size, uva, region.mmap_offset)
        return _Kept(description, os.dup(region.fd), _identity(region.fd))

    def _user_address(self, gpa: int, size: int) -> int:
        if (gpa, size) not in self._user_addresses:
            self._next = (self._next - size - _GAP) & -_ALIGN
            self._user_addresses[gpa, size] = self._next + gpa % _ALIGN
        return self._user_addresses[gpa, size]

    def translate(self, gpa: int) -> int:
        """User address of a guest physical one; raises UsageError outside all regions."""
        known = self._find(gpa).description
        return gpa - known.gpa + known.uva

    def used_idx(self, used_ring: int) -> int:
        """Index of the next used element the device will write, from the ring itself."""
        region = self._find(used_ring)
        at = used_ring - region.description.gpa + region.description.mmap_offset
        return int.from_bytes(os.pread(region.fd, 2, at + _USED_IDX), "little")

    def _find(self, gpa: int) -> _Kept:
        for region in self._regions:
            if region.description.gpa <= gpa < region.description.gpa + region.description.size:
                return region
        raise UsageError(f"{gpa:#x} is outside guest memory")

    def close(self) -> None:
        """Forget everything; harmless twice."""
        self.replace(())
