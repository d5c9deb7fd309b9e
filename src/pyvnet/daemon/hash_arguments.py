# SPDX-License-Identifier: MIT
"""Words of the command line of ``pyvnet hash``, read.

argparse turns ArgumentTypeError into a message and exit status 2.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Final

from pyvnet.spec.rss import (
    ALL_HASH_TYPES,
    MAX_KEY_SIZE,
    MAX_TABLE_LENGTH,
    HashType,
    hash_types_from_names,
)

MAX_PAIRS: Final = 256
"""Queue pairs a device can have; queue numbers are below."""


def frame_argument(word: str) -> Path | bytes:
    """A file if there is one of that name or the word can only be a file name, else a frame."""
    if not word.strip():
        raise argparse.ArgumentTypeError("an empty argument; give a file or a frame in hex")
    path = Path(word)
    with suppress(OSError):  # a frame in hex may be longer than names can be
        path.stat()
        return path
    tokens = word.replace(":", " ").split()
    digits = "".join(token.removeprefix("0x").removeprefix("0X") for token in tokens)
    try:
        return bytes.fromhex(digits)
    except ValueError:
        if "." in word or "/" in word:
            return path
        raise argparse.ArgumentTypeError(
            f"{word[:60]!r} is neither a file nor a whole number of bytes in hex"
        ) from None


def key_argument(word: str) -> bytes:
    """A hash key in hex."""
    try:
        key = bytes.fromhex(word.removeprefix("0x").replace(":", " "))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{word[:60]!r} is not a whole number of bytes in hex"
        ) from None
    if not 1 <= len(key) <= MAX_KEY_SIZE:
        raise argparse.ArgumentTypeError(
            f"key of {len(key)} bytes; a device takes 1 to {MAX_KEY_SIZE}"
        )
    return key


def hash_types(word: str) -> HashType:
    """A list of hash types by name, or all."""
    if word.strip().lower() == "all":
        return ALL_HASH_TYPES
    try:
        return hash_types_from_names(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(word: str, low: int, high: int, what: str) -> int:
    try:
        number = int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word[:60]!r} is not a number") from None
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{number} is no {what}; allowed: {low} to {high}")
    return number


def queue_argument(word: str) -> int:
    """A queue's number."""
    return _number(word, 0, MAX_PAIRS - 1, "queue")


def queues_argument(word: str) -> int:
    """How many queues."""
    return _number(word, 1, MAX_TABLE_LENGTH, "number of queues a table can name")


def table_argument(word: str) -> tuple[int, ...]:
    """An indirection table."""
    table = tuple(queue_argument(part) for part in word.split(","))
    length = len(table)
    if length > MAX_TABLE_LENGTH or length & (length - 1):
        raise argparse.ArgumentTypeError(
            f"table of {length} entries; must be a power of two up to {MAX_TABLE_LENGTH}"
        )
    return table


def round_robin(queues: int) -> tuple[int, ...]:
    """The longest table, its queues in turn."""
    return tuple(entry % queues for entry in range(MAX_TABLE_LENGTH))
