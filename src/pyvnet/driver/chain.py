# SPDX-License-Identifier: MIT
"""What a ring carries: buffers, the chains they form, and what comes back ("Virtqueues")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_CHAIN_BYTES: Final = 0xFFFF_FFFF


class Buffer(NamedTuple):
    """One piece of a chain: ``length`` bytes at ``gpa``, written by the device or read by it."""

    gpa: int
    length: int
    writable: bool = False


class Chain:
    """One chain the device has, or had, in its hands.

    Attributes:
        head: index of its first descriptor; what avail and used rings name it by.
        token: the caller's, untouched.
        writable: bytes the device may write, the most used.len may say.
        descriptors: indexes in the descriptor table it occupies.
        table: gpa of its indirect table, 0 without one.
    """

    __slots__ = ("descriptors", "head", "table", "token", "writable")

    def __init__(
        self, descriptors: Sequence[int], token: object, writable: int, table: int
    ) -> None:
        self.descriptors = descriptors
        self.head = descriptors[0]
        self.token = token
        self.writable = writable
        self.table = table


class Used(NamedTuple):
    """One chain given back; ``length`` bytes were written, counted from the first writable one."""

    chain: Chain
    length: int


def check_chain(buffers: Sequence[Buffer]) -> int:
    """Return the writable bytes of a chain; raises UsageError where the standard forbids it.

    "The Virtqueue Descriptor Table": device-readable buffers come before
    device-writable ones, a chain holds at most 2^32 - 1 bytes, and a buffer
    has some.
    """
    readable = writable = 0
    for buffer in buffers:
        if buffer.length <= 0:
            raise UsageError(f"{buffer} is empty")
        if buffer.writable:
            writable += buffer.length
        elif writable:
            raise UsageError("a readable buffer behind a writable one")
        else:
            readable += buffer.length
    if not 0 < readable + writable <= _MAX_CHAIN_BYTES:
        raise UsageError(f"a chain of {readable + writable} bytes")
    return writable


def cut_buffer(gpa: int, length: int, cuts: Sequence[int], *, writable: bool) -> list[Buffer]:
    """Lay contiguous bytes out as a chain: pieces of ``cuts`` bytes each, then the rest.

    The standard lets a device assume nothing about where a buffer is cut
    ("Message Framing"); cuts beyond the length are left out.
    """
    pieces = []
    for cut in cuts:
        if 0 < cut < length:
            pieces.append(Buffer(gpa, cut, writable))
            gpa += cut
            length -= cut
    pieces.append(Buffer(gpa, length, writable))
    return pieces
