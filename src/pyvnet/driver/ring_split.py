# SPDX-License-Identifier: MIT
"""The driver's side of the split virtqueue ("Split Virtqueues").

The verbs mirror the device's (native/src/vring.h), seen from the other end::

    driver                                device
    add      stage one chain              pop      take the next chain
    publish  show what was staged,        arm      ask for kicks, look again
             say if a kick is due         disarm   ask for silence
    poll     take the next used element   push     stage one used element
    arm      ask for interrupts,          publish  show what was staged,
             look again                            say if an interrupt is due
    disarm   ask for silence

Theory of operation
  The descriptor table is ours alone: a descriptor is *free* or part of exactly
  one *outstanding* chain, from `add` until `poll` returns it.  Only the device
  reads it, and only after the avail entry that leads there is visible.

  Three of our reads depend on the order in which memory changes; each has its
  `barrier`, and each barrier a partner in the device:

  1. descriptors, avail entry → avail.idx                      (publish)
  2. avail.idx → reading avail_event or used.flags             (publish)
     pairs with the device's fence between avail_event and its second look
  3. used_event or avail.flags → reading used.idx again        (arm)
     pairs with the device's fence between used.idx and used_event
  and reading used.idx comes before reading the elements it covers (poll).

This side is well behaved.  Everything a driver must not do is in `misbehave`.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from pyvnet.driver.chain import MAX_CHAIN_BYTES, Buffer, Chain, Lot, Used, check_chain, cut_buffer
from pyvnet.driver.errors import DeviceViolation, RingFullError
from pyvnet.errors import UsageError
from pyvnet.spec import ring as abi
from pyvnet.spec.ring import DescFlag
from pyvnet.spec.transport import QueueSetup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyvnet.driver.memory import GuestMemory

__all__ = ["Buffer", "Chain", "SplitRing", "Used", "check_chain", "cut_buffer"]

_NEXT: Final = int(DescFlag.NEXT)
_WRITE: Final = int(DescFlag.WRITE)
_INDIRECT: Final = int(DescFlag.INDIRECT)


class SplitRing:
    """One split virtqueue in guest memory, driver's end.  Used by one thread.

    Args:
        memory: where descriptor table, avail ring and used ring are allocated.
        size: queue size, a power of two up to 32768.
        event_idx: VIRTIO_F_EVENT_IDX was negotiated.
        indirect: VIRTIO_F_INDIRECT_DESC was negotiated.
        in_order: VIRTIO_F_IN_ORDER was: descriptors go out, and chains come back, in ring order.
        start: index both rings begin with; not 0 only to resume or to test the wrap.
        region: number of the memory region to lie in; None: wherever there is room.

    Raises:
        UsageError: not a queue size, or out of guest memory.
    """

    def __init__(
        self,
        memory: GuestMemory,
        size: int,
        *,
        event_idx: bool = False,
        indirect: bool = False,
        in_order: bool = False,
        start: int = 0,
        region: int | None = None,
    ) -> None:
        if not 0 < size <= abi.MAX_QUEUE_SIZE or size & (size - 1):
            raise UsageError(f"{size} is not a queue size: powers of two up to 32768 are")
        self.memory: Final = memory
        self.size: Final = size
        self.event_idx: Final = event_idx
        self.indirect: Final = indirect
        self.in_order: Final = in_order
        shapes = (
            (abi.desc_table_size(size), abi.DESC_ALIGN),
            (abi.avail_ring_size(size), abi.AVAIL_ALIGN),
            (abi.used_ring_size(size), abi.USED_ALIGN),
        )
        gpas = [memory.alloc(length, align=align, region=region) for length, align in shapes]
        for gpa, (length, _) in zip(gpas, shapes, strict=True):
            memory.write(gpa, bytes(length))
        self.desc_table, self.avail_ring, self.used_ring = gpas
        # Words of the avail ring: flags, idx, the entries, used_event.
        self._avail: Final = memory.words(self.avail_ring, 3 + size)
        # The used ring once as words (flags, idx, elements, avail_event), once as
        # dwords (flags and idx together, then id and len of each element).
        self._used: Final = memory.words(self.used_ring, 3 + 4 * size)
        self._elements: Final = memory.dwords(self.used_ring, 1 + 2 * size)
        # Written only where the device does not look yet.
        self._table: Final = memory.octets(self.desc_table, abi.desc_table_size(size))
        self._mask: Final = size - 1
        self._avail[1] = self._used[1] = start & 0xFFFF
        # The next avail entry to fill, what of them is visible, the next used one to take.
        self._next_avail = self._avail_idx = start & 0xFFFF
        self._next_used = self._used_idx = start & 0xFFFF
        # Popped from the end: low indexes first, as long as nothing came back.  What did is
        # taken next, or in order last.
        self._free = list(range(size - 1, -1, -1))
        self._chains: list[Chain | Lot | None] = [None] * size
        self.outstanding = 0
        self._asked = -1  # used.idx at which an interrupt is asked for; -1: at none

    # --- towards the device ---------------------------------------------------------

    @property
    def free_descriptors(self) -> int:
        """Descriptors not part of an outstanding chain."""
        return len(self._free)

    def add(
        self,
        buffers: Sequence[Buffer],
        token: object = None,
        *,
        indirect: bool | None = None,
        direct_prefix: int = 0,
    ) -> Chain:
        """Stage one chain; the device sees it after `publish`.

        Args:
            buffers: the pieces, readable ones first.
            token: handed back with the chain.
            indirect: put the pieces in a table of their own; None: if that was
                negotiated and there is more than one.
            direct_prefix: how many pieces stay in front of an indirect table as
                ordinary descriptors ("Indirect Descriptors" allows it).

        Raises:
            UsageError: not a chain the standard allows.
            RingFullError: not enough free descriptors; nothing was staged.
        """
        writable = check_chain(buffers)
        count = len(buffers)
        if indirect is None:
            indirect = self.indirect and count > 1
        if not indirect:
            direct_prefix = count
        elif not self.indirect:
            raise UsageError("INDIRECT_DESC was not negotiated")
        elif direct_prefix >= count:
            raise UsageError("an indirect table needs at least one buffer")
        needed = direct_prefix + indirect
        if needed > len(self._free):
            if needed > self.size:
                raise UsageError(f"a chain of {needed} descriptors in a queue of {self.size}")
            raise RingFullError(f"{needed} descriptors needed, {len(self._free)} free")
        table = self._write_table(buffers[direct_prefix:]) if indirect else 0
        indexes = self.reserve(needed)
        last = needed - 1
        for i, index in enumerate(indexes):
            following, flags = (indexes[i + 1], _NEXT) if i < last else (0, 0)
            if table and i == last:
                gpa, length = table, abi.DESC_SIZE * (count - direct_prefix)
                flags = _INDIRECT
            else:
                gpa, length, write = buffers[i]
                flags |= _WRITE if write else 0
            self.write_descriptor(index, gpa, length, flags, following)
        chain = Chain(indexes, token, writable, table)
        self.stage(chain)
        return chain

    def add_one(self, gpa: int, length: int, token: object = None, *, writable: bool) -> None:
        """As `add` of one buffer, with less to do.

        Raises:
            UsageError: no length a chain can have.
            RingFullError: no descriptor is free; nothing was staged.
        """
        if not 0 < length <= MAX_CHAIN_BYTES:
            raise UsageError(f"a chain of {length} bytes")
        if not self._free:
            raise RingFullError("1 descriptors needed, 0 free")
        index = self._free.pop()
        flags, most = (_WRITE, length) if writable else (0, 0)
        abi.DESC.pack_into(self._table, abi.DESC_SIZE * index, gpa, length, flags, 0)
        self.stage(Chain((index,), token, most, 0))

    def add_each(
        self, gpas: Sequence[int], length: int, token: Callable[[int, int], object]
    ) -> None:
        """As an `add_one` for each gpa, writable, but written as one run where they are neighbours.

        Args:
            gpas: of the buffers.
            length: bytes of each.
            token: makes the token from gpa and length, once a chain comes back.

        Raises:
            UsageError: no length a chain can have.
            RingFullError: not enough free descriptors; nothing was staged.
        """
        check_chain((Buffer(0, length, writable=True),))
        count = len(gpas)
        indexes = self.reserve(count)
        if not count or indexes[-1] - indexes[0] != count - 1 or indexes != sorted(indexes):
            self._free.extend(reversed(indexes))
            for gpa in gpas:
                self.add_one(gpa, length, token(gpa, length), writable=True)
            return
        # Neighbours: written as runs.  A descriptor is two words of 64 bits.
        words = array("Q", (0, length | _WRITE << 32)) * count
        words[::2] = array("Q", gpas)
        first = indexes[0]
        at = abi.DESC_SIZE * first
        self._table[at : at + abi.DESC_SIZE * count] = words.tobytes()
        self._chains[first : first + count] = [Lot(first, gpas, length, token)] * count
        slot = self._next_avail & self._mask
        before_end = min(count, self.size - slot)
        entries = array("H", indexes)
        self._avail[2 + slot : 2 + slot + before_end] = entries[:before_end]
        self._avail[2 : 2 + count - before_end] = entries[before_end:]
        self._next_avail = (self._next_avail + count) & 0xFFFF
        self.outstanding += count

    def _write_table(self, buffers: Sequence[Buffer]) -> int:
        """Allocate and fill an indirect table."""
        last = len(buffers) - 1
        entries = b"".join(
            abi.DESC.pack(
                buffer.gpa,
                buffer.length,
                (_WRITE if buffer.writable else 0) | (_NEXT if i < last else 0),
                i + 1 if i < last else 0,
            )
            for i, buffer in enumerate(buffers)
        )
        table = self.memory.alloc(len(entries), align=16)
        self.memory.write(table, entries)
        return table

    def reserve(self, count: int) -> list[int]:
        """Take free descriptors, for `add` or for a chain laid out by hand."""
        if count > len(self._free):
            raise RingFullError(f"{count} descriptors needed, {len(self._free)} free")
        at = len(self._free) - count
        taken = self._free[at:]
        del self._free[at:]
        taken.reverse()
        return taken

    def write_descriptor(
        self, index: int, gpa: int, length: int, flags: int, following: int
    ) -> None:
        """Write one descriptor as it is; not one the device can see."""
        abi.DESC.pack_into(self._table, abi.DESC_SIZE * index, gpa, length, flags, following)

    def stage(self, chain: Chain) -> None:
        """Put a written chain on the avail ring; `poll` will know it as outstanding."""
        self._chains[chain.head] = chain
        self.outstanding += 1
        self._avail[2 + (self._next_avail & self._mask)] = chain.head
        self._next_avail = (self._next_avail + 1) & 0xFFFF

    def publish(self) -> bool:
        """Make everything staged visible at once; returns whether the device wants a kick."""
        old, new = self._avail_idx, self._next_avail
        if old == new:
            return False
        self.memory.barrier()
        self._avail[1] = self._avail_idx = new
        self.memory.barrier()
        if self.event_idx:
            return abi.need_event(self._used[2 + 4 * self.size], new, old)
        return not self._used[0] & abi.USED_F_NO_NOTIFY

    # --- from the device ------------------------------------------------------------

    @property
    def visible(self) -> int:
        """Used elements known without another look at used.idx."""
        return (self._used_idx - self._next_used) & 0xFFFF

    def ready(self) -> int:
        """Look at used.idx; returns how many elements `poll` will give.

        Raises:
            DeviceViolation: used.idx covers more chains than are outstanding.
        """
        idx = self._used[1]
        if idx != self._used_idx:
            shown = self.outstanding - ((self._next_avail - self._avail_idx) & 0xFFFF)
            if (idx - self._next_used) & 0xFFFF > shown:
                raise DeviceViolation(
                    f"used.idx moved to {idx}, {(idx - self._next_used) & 0xFFFF} elements, "
                    f"but {shown} chains are outstanding"
                )
            self.memory.barrier()
            self._used_idx = idx
        return (idx - self._next_used) & 0xFFFF

    def poll(self) -> Used | None:
        """Take the next used element, or None; its descriptors are free again.

        Raises:
            DeviceViolation: an id that is not outstanding, or out of its turn; more bytes than
                are writable.
        """
        if self._next_used == self._used_idx and not self.ready():
            return None
        at = 1 + 2 * (self._next_used & self._mask)
        head, length = self._elements[at], self._elements[at + 1]
        chain = self._chains[head] if head < self.size else None
        if chain is None:
            raise DeviceViolation(f"used element names id {head}, which is not outstanding")
        if isinstance(chain, Lot):
            chain = chain.chain(head)
        if length > chain.writable:
            raise DeviceViolation(
                f"used.len is {length} for a chain with {chain.writable} writable bytes"
            )
        if self.in_order and head != (turn := self._avail[2 + (self._next_used & self._mask)]):
            raise DeviceViolation(f"used element names id {head}, but {turn} came first")
        self._next_used = (self._next_used + 1) & 0xFFFF
        self._chains[head] = None
        self.outstanding -= 1
        if self.in_order:
            self._free[:0] = reversed(chain.descriptors)
        else:
            self._free += reversed(chain.descriptors)
        if chain.table:
            self.memory.free(chain.table)
        return Used(chain, length)

    def arm(self, later: int = 0) -> bool:
        """Ask for an interrupt at the next used element; returns whether one is there already.

        When it returns True, poll on: the device may have seen the old request.

        Args:
            later: with EVENT_IDX, let so many elements pass in silence first.
        """
        if self.event_idx:
            self._avail[2 + self.size] = (self._next_used + later) & 0xFFFF
        else:
            later = 0
            self._avail[0] = 0
        self._asked = self._next_used
        self.memory.barrier()
        return (self._used[1] - self._next_used) & 0xFFFF > later

    def quiet(self) -> bool:
        """Whether nothing was used since `arm`, and nobody called `disarm`: nothing is to be done.

        `arm`, `poll` and `ready` judge anything else.
        """
        return self._used[1] == self._asked

    def disarm(self) -> None:
        """Ask for silence; a hint, an interrupt may come all the same.

        With EVENT_IDX the flag must stay 0 and a used_event that was passed is
        silence enough: it is met again 65536 elements later, once.
        """
        self._asked = -1
        if not self.event_idx:
            self._avail[0] = abi.AVAIL_F_NO_INTERRUPT

    def setup(
        self, index: int, kick_fd: int = -1, call_fd: int = -1, err_fd: int = -1
    ) -> QueueSetup:
        """What a device needs to know that has not touched this ring yet.

        To resume one it has touched, replace the bases by what `stop_queue` returned.
        """
        return QueueSetup(
            index=index,
            size=self.size,
            desc_table=self.desc_table,
            avail_ring=self.avail_ring,
            used_ring=self.used_ring,
            kick_fd=kick_fd,
            call_fd=call_fd,
            err_fd=err_fd,
            avail_base=self._next_used,
            used_base=self._next_used,
        )
