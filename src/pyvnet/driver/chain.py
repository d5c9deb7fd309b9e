# SPDX-License-Identifier: MIT
"""What a ring carries: buffers, the chains they form, and what comes back ("Virtqueues")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_CHAIN_BYTES: Final = 0xFFFF_FFFF


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


class Lot:
    """Chains of one writable buffer each, staged together and made when they come back.

    Most of the buffers a receiveq is given at the start never carry a frame.

    Args:
        first: index of the first chain's descriptor; the others follow it.
        gpas: where the buffers are.
        length: bytes of each.
        token: makes the token of a chain, from gpa and length.
    """

    __slots__ = ("_first", "_gpas", "_length", "_token")

    def __init__(
        self, first: int, gpas: Sequence[int], length: int, token: Callable[[int, int], object]
    ) -> None:
        self._first = first
        self._gpas = gpas
        self._length = length
        self._token = token

    def chain(self, head: int) -> Chain:
        """The chain of this descriptor."""
        token = self._token(self._gpas[head - self._first], self._length)
        return Chain((head,), token, self._length, 0)


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
    if not 0 < readable + writable <= MAX_CHAIN_BYTES:
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
