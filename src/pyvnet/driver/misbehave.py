# SPDX-License-Identifier: MIT
"""What a driver must not do, on request and by name.

`Forger` has its hand on one ring of a well-behaved driver.  Two kinds of verbs:

  words      write one word of the ring or one descriptor as it is told
  forgeries  build one chain that breaks one rule around otherwise good
             buffers, and stage it; `SplitRing.publish` shows it

A forged chain counts as outstanding, so a device that gives it back (with len
0, say) is not taken for a liar.  What moves indexes behind the ring's back
(`move_avail_idx`, `stage_again`, `stage_head`) leaves the ring unusable but
for a reset; that is their point.

Lies that need no broken chain are made elsewhere: raw header bytes, frames
shorter than a header and cuts at any byte in `Driver.send`, odd requests and
layouts in `Control.exchange`, masks and lengths in `RssConfig`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyvnet.driver.chain import Chain
from pyvnet.spec import ring as abi
from pyvnet.spec.ring import Desc, DescFlag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyvnet.driver.chain import Buffer
    from pyvnet.driver.ring_split import SplitRing

# No region of `GuestMemory` reaches so far unless a test asks for it.
UNMAPPED_GPA: Final = 0x7FFF_FFFF_F000

_ANY_LENGTH: Final = 0xFFFF_FFFF


def link(buffers: Sequence[Buffer], first: int = 0) -> list[Desc]:
    """Descriptors of a correct chain at consecutive indexes from ``first``, to be spoilt."""
    last = len(buffers) - 1
    return [
        Desc(
            buffer.gpa,
            buffer.length,
            (DescFlag.WRITE if buffer.writable else 0) | (DescFlag.NEXT if i < last else 0),
            first + i + 1 if i < last else 0,
        )
        for i, buffer in enumerate(buffers)
    ]


def _leading_to(desc: Desc, following: int) -> Desc:
    return desc._replace(flags=desc.flags | DescFlag.NEXT, next=following)


class Forger:
    """A free hand on ``ring``; see the module for what it leaves behind."""

    def __init__(self, ring: SplitRing) -> None:
        self.ring: Final = ring
        self._avail: Final = ring.memory.words(ring.avail_ring, 3 + ring.size)

    # --- words ------------------------------------------------------------------------

    @property
    def avail_idx(self) -> int:
        """avail.idx as the device sees it."""
        return self._avail[1]

    def move_avail_idx(self, by: int) -> None:
        """Add to avail.idx, entries or not; may be negative."""
        self._avail[1] = (self._avail[1] + by) & 0xFFFF

    def set_avail_flags(self, flags: int) -> None:
        """Write avail.flags."""
        self._avail[0] = flags

    def set_used_event(self, index: int) -> None:
        """Write used_event."""
        self._avail[2 + self.ring.size] = index & 0xFFFF

    def set_avail_entry(self, slot: int, head: int) -> None:
        """Write one entry of the avail ring."""
        self._avail[2 + slot] = head

    def write_desc(self, index: int, desc: Desc) -> None:
        """Write one descriptor, visible to the device or not."""
        self.ring.write_descriptor(index, *desc)

    def write_table(self, descs: Sequence[Desc], *, offset: int = 0) -> int:
        """Put an indirect table in memory, ``offset`` bytes behind a 16-byte boundary."""
        table = self.ring.memory.alloc(abi.DESC_SIZE * len(descs) + offset)
        self.ring.memory.write(table + offset, b"".join(desc.pack() for desc in descs))
        return table + offset

    # --- staging ----------------------------------------------------------------------

    def stage(
        self, make: Callable[[list[int]], Sequence[Desc]], count: int, token: object = None
    ) -> Chain:
        """Stage ``count`` descriptors that ``make`` makes, given their indexes."""
        indexes = self.ring.reserve(count)
        for index, desc in zip(indexes, make(indexes), strict=True):
            self.write_desc(index, desc)
        chain = Chain(indexes, token, _ANY_LENGTH, 0)
        self.ring.stage(chain)
        return chain

    def stage_table(
        self,
        descs: Sequence[Desc],
        token: object = None,
        *,
        flags: DescFlag = DescFlag.INDIRECT,
        length: int | None = None,
        offset: int = 0,
    ) -> Chain:
        """Stage one descriptor that leads to an indirect table."""
        table = self.write_table(descs, offset=offset)
        size = abi.DESC_SIZE * len(descs) if length is None else length
        chain = self.stage(lambda _: [Desc(table, size, flags, 0)], 1, token)
        chain.table = table - offset  # freed with the chain
        return chain

    def stage_head(self, head: int) -> None:
        """Make a head available that is no chain of ours: out of range, say."""
        slot = self.avail_idx & (self.ring.size - 1)
        self.set_avail_entry(slot, head)
        self.ring.memory.barrier()
        self.move_avail_idx(1)

    def stage_again(self, chain: Chain) -> None:
        """Make a chain available a second time while the device has it; visible at once."""
        self.stage_head(chain.head)

    # --- forgeries: descriptor chains ---------------------------------------------------

    def spoil(
        self,
        buffers: Sequence[Buffer],
        token: object,
        at: int,
        change: Callable[[Desc, list[int]], Desc],
    ) -> Chain:
        """A correct chain but for descriptor ``at``; ``change`` is told the indexes too."""

        def make(indexes: list[int]) -> list[Desc]:
            descs = self._chain(buffers, indexes)
            descs[at] = change(descs[at], indexes)
            return descs

        return self.stage(make, len(buffers), token)

    def loop(self, buffers: Sequence[Buffer], token: object = None) -> Chain:
        """The last descriptor leads back to the first."""
        return self.spoil(buffers, token, -1, lambda desc, indexes: _leading_to(desc, indexes[0]))

    def next_out_of_range(
        self, buffers: Sequence[Buffer], token: object = None, *, next_index: int | None = None
    ) -> Chain:
        """The last descriptor leads out of the table: to the queue size, or where told."""
        beyond = self.ring.size if next_index is None else next_index
        return self.spoil(buffers, token, -1, lambda desc, _: _leading_to(desc, beyond))

    def zero_length(
        self,
        buffers: Sequence[Buffer],
        token: object = None,
        *,
        at: int = 0,
        gpa: int | None = None,
    ) -> Chain:
        """One descriptor has length 0, and a bad address too if told."""

        def empty(desc: Desc, _: list[int]) -> Desc:
            return desc._replace(length=0, addr=desc.addr if gpa is None else gpa)

        return self.spoil(buffers, token, at, empty)

    def unmapped(
        self,
        buffers: Sequence[Buffer],
        token: object = None,
        *,
        at: int = 0,
        gpa: int = UNMAPPED_GPA,
    ) -> Chain:
        """One descriptor points outside guest memory."""
        return self.spoil(buffers, token, at, lambda desc, _: desc._replace(addr=gpa))

    def wrong_direction(self, buffers: Sequence[Buffer], token: object = None) -> Chain:
        """Every readable buffer becomes writable and the other way round."""
        flipped = [buffer._replace(writable=not buffer.writable) for buffer in buffers]
        return self.stage(lambda indexes: self._chain(flipped, indexes), len(flipped), token)

    def as_given(self, buffers: Sequence[Buffer], token: object = None) -> Chain:
        """Any buffers in any order: writable before readable, over 4 GiB in sum, none checked."""
        return self.stage(lambda indexes: self._chain(buffers, indexes), len(buffers), token)

    # --- forgeries: indirect tables -----------------------------------------------------

    def nested_indirect(self, buffers: Sequence[Buffer], token: object = None) -> Chain:
        """An indirect table whose only entry leads to another one."""
        inner = self.write_table(link(buffers))
        entry = Desc(inner, abi.DESC_SIZE * len(buffers), DescFlag.INDIRECT, 0)
        return self.stage_table([entry], token)

    def indirect_and_next(self, buffers: Sequence[Buffer], token: object = None) -> Chain:
        """INDIRECT and NEXT in one descriptor; the next one is a good buffer."""
        table = self.write_table(link(buffers))
        size = abi.DESC_SIZE * len(buffers)
        flags = DescFlag.INDIRECT | DescFlag.NEXT

        def make(indexes: list[int]) -> list[Desc]:
            return [Desc(table, size, flags, indexes[1]), *link(buffers[-1:], indexes[1])]

        return self.stage(make, 2, token)

    def indirect_loop(self, buffers: Sequence[Buffer], token: object = None) -> Chain:
        """The last entry of an indirect table leads back to the first."""
        *descs, last = link(buffers)
        return self.stage_table([*descs, _leading_to(last, 0)], token)

    def indirect_next_out_of_range(self, buffers: Sequence[Buffer], token: object = None) -> Chain:
        """The last entry of an indirect table leads out of it."""
        *descs, last = link(buffers)
        return self.stage_table([*descs, _leading_to(last, len(buffers))], token)

    def indirect_length(
        self, buffers: Sequence[Buffer], length: int, token: object = None
    ) -> Chain:
        """An indirect table said to have ``length`` bytes: 0, no multiple of 16, far too many."""
        return self.stage_table(link(buffers), token, length=length)

    def indirect_unmapped(
        self, buffers: Sequence[Buffer], token: object = None, *, gpa: int = UNMAPPED_GPA
    ) -> Chain:
        """An indirect table outside guest memory."""
        size = abi.DESC_SIZE * len(buffers)
        return self.stage(lambda _: [Desc(gpa, size, DescFlag.INDIRECT, 0)], 1, token)

    # --- legal, and often taken for illegal ---------------------------------------------

    def indirect_odd_address(
        self, buffers: Sequence[Buffer], token: object = None, *, offset: int = 1
    ) -> Chain:
        """An indirect table at an odd address: it has no alignment to keep."""
        return self.stage_table(link(buffers), token, offset=offset)

    def indirect_write_flag(self, buffers: Sequence[Buffer], token: object = None) -> Chain:
        """WRITE on the descriptor of an indirect table: to be ignored (VIO-SPL-05)."""
        return self.stage_table(link(buffers), token, flags=DescFlag.INDIRECT | DescFlag.WRITE)

    def indirect_in_order(
        self, buffers: Sequence[Buffer], order: Sequence[int], token: object = None
    ) -> Chain:
        """An indirect table whose chain jumps about: buffer i is entry ``order[i]``.

        ``order`` is a permutation that begins with 0, where every chain starts.
        """
        table = [Desc(0, 0, 0, 0)] * len(buffers)
        for place, following, desc in zip(order, [*order[1:], 0], link(buffers), strict=True):
            table[place] = desc._replace(next=following)
        return self.stage_table(table, token)

    @staticmethod
    def _chain(buffers: Sequence[Buffer], indexes: Sequence[int]) -> list[Desc]:
        """A correct chain at these indexes."""
        return [
            desc._replace(next=following)
            for desc, following in zip(link(buffers), [*indexes[1:], 0], strict=True)
        ]
