# SPDX-License-Identifier: MIT
"""Values that cross between a driver and whatever carries it to a device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """Guest memory: ``size`` bytes at guest physical address ``gpa``, at ``mmap_offset`` of ``fd``.

    The fd stays the sender's.
    """

    gpa: int
    size: int
    mmap_offset: int
    fd: int


@dataclass(frozen=True, slots=True)
class QueueSetup:
    """One virtqueue as the driver laid it out; addresses are guest physical.

    ``index`` is the virtqueue index: receiveq *i* is 2i, transmitq *i* is 2i+1,
    the controlq 2N.  ``kick_fd`` and ``call_fd`` are eventfds of the sender;
    -1 means none.  The bases are the next avail entry to take and the next
    used entry to write.
    """

    index: int
    size: int
    desc_table: int
    avail_ring: int
    used_ring: int
    kick_fd: int = -1
    call_fd: int = -1
    err_fd: int = -1
    avail_base: int = 0
    used_base: int = 0


def receiveq(pair: int) -> int:
    """Virtqueue index of the receive queue of a pair."""
    return 2 * pair


def transmitq(pair: int) -> int:
    """Virtqueue index of the transmit queue of a pair."""
    return 2 * pair + 1
