# SPDX-License-Identifier: MIT
"""Split virtqueue: sizes, alignments, offsets and flags ("Split Virtqueues")."""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import Final, NamedTuple

MAX_QUEUE_SIZE: Final = 32768

DESC: Final = struct.Struct("<QIHH")
DESC_SIZE: Final = 16
USED_ELEM: Final = struct.Struct("<II")
USED_ELEM_SIZE: Final = 8
DESC_ALIGN: Final = 16
AVAIL_ALIGN: Final = 2
USED_ALIGN: Final = 4

AVAIL_F_NO_INTERRUPT: Final = 1
USED_F_NO_NOTIFY: Final = 1


class DescFlag(IntFlag):
    """``VIRTQ_DESC_F_*``."""

    NONE = 0
    NEXT = 1
    WRITE = 2
    INDIRECT = 4


class Desc(NamedTuple):
    """``struct virtq_desc``."""

    addr: int
    length: int
    flags: int
    next: int

    def pack(self) -> bytes:
        """The 16 bytes in memory."""
        return DESC.pack(*self)


def desc_table_size(size: int) -> int:
    """Bytes of the descriptor table."""
    return DESC_SIZE * size


def avail_ring_size(size: int) -> int:
    """Bytes of the avail ring: flags, idx, ring[size], used_event."""
    return 6 + 2 * size


def used_ring_size(size: int) -> int:
    """Bytes of the used ring: flags, idx, ring[size], avail_event."""
    return 6 + USED_ELEM_SIZE * size


def need_event(event: int, new: int, old: int) -> bool:
    """``vring_need_event``: has the index passed ``event`` on its way from old to new?"""
    return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF
