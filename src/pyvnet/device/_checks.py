# SPDX-License-Identifier: MIT
"""The one door for values: every part of the device state checks itself here.

Two kinds of bytes come through it, the driver's commands and a state that is
put back, so a restored value can hold nothing a command could not have set.
"""

from __future__ import annotations

from typing import Final

from pyvnet.errors import UsageError

U16: Final = 0xFFFF
U32: Final = 0xFFFFFFFF
U64: Final = 0xFFFFFFFFFFFFFFFF


class StateError(UsageError):
    """A value the device state may not hold; the message names the field and its bounds."""


def check_int(name: str, value: object, low: int, high: int) -> None:
    """Refuse anything but an integer in ``low``…``high``; ``True`` is not an integer here."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise StateError(f"{name} is {type(value).__name__}, not an integer")
    if not low <= value <= high:
        raise StateError(f"{name} is {value}, outside {low}…{high}")


def check_bytes(name: str, value: object, length: int) -> None:
    """Refuse anything but ``length`` bytes."""
    if not isinstance(value, bytes):
        raise StateError(f"{name} is {type(value).__name__}, not bytes")
    if len(value) != length:
        raise StateError(f"{name} has {len(value)} bytes, needs {length}")


def check_bool(name: str, value: object) -> None:
    """Refuse anything but ``True`` and ``False``."""
    if not isinstance(value, bool):
        raise StateError(f"{name} is {type(value).__name__}, not a boolean")


def check_tuple(name: str, value: object, item: type) -> None:
    """Refuse anything but a tuple whose items are all of type ``item``."""
    if not isinstance(value, tuple) or not all(isinstance(part, item) for part in value):
        raise StateError(f"{name} is not a tuple of {item.__name__}")
