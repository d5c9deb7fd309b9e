# SPDX-License-Identifier: MIT
"""File descriptors that came with a message: each has one owner, and is closed once."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


# What an eventfd is to stat(2), a socket, a pipe.
_NOTIFIERS = frozenset({0, stat.S_IFSOCK, stat.S_IFIFO})


class Fd:
    """A received descriptor; whoever holds it closes it."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    @property
    def number(self) -> int:
        """The descriptor; -1 once closed or given away."""
        return self._number

    @property
    def notifies(self) -> bool:
        """Whether it is of a kind that says things happened, and that we can use without waiting.

        A file or a terminal may make its reader or writer wait as long as its
        owner likes, however it is opened.
        """
        return stat.S_IFMT(os.fstat(self._number).st_mode) in _NOTIFIERS

    def take(self) -> int:
        """Give the descriptor away: the caller closes it."""
        number, self._number = self._number, -1
        return number

    def close(self) -> None:
        """Close it; harmless twice."""
        number = self.take()
        if number >= 0:
            os.close(number)


def number_of(fd: Fd | None) -> int:
    """The descriptor for a verb that takes -1 as none."""
    return -1 if fd is None else fd.number


def close_all(fds: Iterable[Fd | None]) -> None:
    """Close those that are there."""
    for fd in fds:
        if fd is not None:
            fd.close()
