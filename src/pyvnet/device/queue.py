# SPDX-License-Identifier: MIT
"""Virtqueues from the driver's first word to a frozen, checked ring.

``QueueConfig`` is what the driver said, kept as said and replaced as often as
it likes below DRIVER_OK.  ``activate`` checks everything once and yields the
``ActiveQueue`` the engine starts.  Whether the addresses lie in guest memory is
the engine's to check: only it knows the memory table in force.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pyvnet.device._checks import U16, U32, U64, StateError, check_bool, check_int
from pyvnet.spec.config import MAX_QUEUE_PAIRS
from pyvnet.spec.ring import (
    AVAIL_ALIGN,
    DESC_ALIGN,
    USED_ALIGN,
    avail_ring_size,
    desc_table_size,
    used_ring_size,
)
from pyvnet.spec.transport import QueueSetup

NO_FD: Final = -1


@dataclass(frozen=True, slots=True)
class QueueFds:
    """The eventfds of a ring, as numbers of this process; -1: none.  They stay the caller's."""

    kick: int = NO_FD
    call: int = NO_FD
    err: int = NO_FD

    def __post_init__(self) -> None:
        """Refuse what no descriptor number can be."""
        for name in ("kick", "call", "err"):
            check_int(f"{name} fd", getattr(self, name), NO_FD, U32 >> 1)


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """One virtqueue as the driver laid it out; addresses are guest physical.

    Bounds here are those of the wire fields.  ``fds`` means nothing in another
    process: it is no part of equality and never leaves with a taken state.
    ``enabled`` is what the front-end says of a ring besides starting it.
    """

    index: int
    size: int
    desc_table: int
    avail_ring: int
    used_ring: int
    avail_base: int = 0
    used_base: int = 0
    enabled: bool = True
    fds: QueueFds = field(default_factory=QueueFds, compare=False)

    def __post_init__(self) -> None:
        """Check each field against its width on the wire."""
        check_int("queue index", self.index, 0, 2 * MAX_QUEUE_PAIRS)
        check_int("queue size", self.size, 0, U32)
        check_int("desc_table", self.desc_table, 0, U64)
        check_int("avail_ring", self.avail_ring, 0, U64)
        check_int("used_ring", self.used_ring, 0, U64)
        check_int("avail_base", self.avail_base, 0, U16)
        check_int("used_base", self.used_base, 0, U16)
        check_bool("enabled", self.enabled)

    @classmethod
    def from_setup(cls, setup: QueueSetup, *, enabled: bool = True) -> QueueConfig:
        """Take what a transport hands over; raises StateError for a value beyond its field."""
        return cls(
            setup.index,
            setup.size,
            setup.desc_table,
            setup.avail_ring,
            setup.used_ring,
            setup.avail_base,
            setup.used_base,
            enabled,
            QueueFds(setup.kick_fd, setup.call_fd, setup.err_fd),
        )

    def activate(self, *, queue_count: int, max_queue_size: int) -> ActiveQueue:
        """Check the layout once and freeze it.

        Raises StateError when the ring does not exist in the negotiated layout,
        its size is not a power of two the device takes, or an area is
        misaligned or wraps around the end of the address space ("Virtqueues").
        """
        if self.index >= queue_count:
            raise StateError(f"queue {self.index} does not exist, there are {queue_count}")
        size = self.size
        if not 1 <= size <= max_queue_size or size & (size - 1):
            raise StateError(
                f"queue {self.index}: size {size} is not a power of two up to {max_queue_size}"
            )
        areas = (
            ("descriptor table", self.desc_table, DESC_ALIGN, desc_table_size(size)),
            ("avail ring", self.avail_ring, AVAIL_ALIGN, avail_ring_size(size)),
            ("used ring", self.used_ring, USED_ALIGN, used_ring_size(size)),
        )
        for name, address, alignment, length in areas:
            if address % alignment:
                raise StateError(f"queue {self.index}: {name} is not aligned to {alignment}")
            if address + length > U64 + 1:
                raise StateError(f"queue {self.index}: {name} wraps around the address space")
        return ActiveQueue(
            self.index,
            size,
            self.desc_table,
            self.avail_ring,
            self.used_ring,
            self.avail_base,
            self.used_base,
            self.fds.kick,
            self.fds.call,
            self.fds.err,
            self.enabled,
        )


@dataclass(frozen=True, slots=True)
class ActiveQueue:
    """A ring that passed ``activate``: what the engine is told to start."""

    index: int
    size: int
    desc_table: int
    avail_ring: int
    used_ring: int
    avail_base: int
    used_base: int
    kick_fd: int
    call_fd: int
    err_fd: int
    enabled: bool = True

    def setup(self, index: int) -> QueueSetup:
        """What the engine starts, under the index it knows the ring by."""
        return QueueSetup(
            index,
            self.size,
            self.desc_table,
            self.avail_ring,
            self.used_ring,
            self.kick_fd,
            self.call_fd,
            self.err_fd,
            self.avail_base,
            self.used_base,
        )
