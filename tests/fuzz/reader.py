# SPDX-License-Identifier: MIT
"""An input taken apart from its front; beyond its end everything is zero or empty."""

from __future__ import annotations


class Reader:
    """Bytes that are used up one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """Up to so many bytes."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def byte(self) -> int:
        """One byte."""
        return int.from_bytes(self.take(1), "little")

    def word(self) -> int:
        """Two bytes, little endian."""
        return int.from_bytes(self.take(2), "little")

    def long(self) -> int:
        """Eight bytes, little endian."""
        return int.from_bytes(self.take(8), "little")
