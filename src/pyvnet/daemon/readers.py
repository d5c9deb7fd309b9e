# SPDX-License-Identifier: MIT
"""From the text of an option to its value; each raises ValueError saying what is wrong."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from pyvnet.capture.output import Rotation
from pyvnet.device.settings import COMPAT_SWITCHES
from pyvnet.errors import UsageError
from pyvnet.spec.features import NO_FEATURES, Feature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_IFNAME_MAX: Final = 15
_MAC_BYTES: Final = 6
_UNITS: Final = {"K": 2**10, "M": 2**20, "G": 2**30}
_DIGITS: Final = 12  # more of them are no number anybody means


@dataclass(frozen=True, slots=True)
class Port:
    """The host port: its fds where it is made of some; a null port may be an endless source."""

    kind: Literal["tap", "pair", "null"]
    fds: tuple[int, ...] = ()
    endless: bool = False


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or nothing where no known word is close."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def some_text(text: str) -> str:
    """Any text; not empty."""
    if not text or "\0" in text:
        raise ValueError("it is empty" if not text else "it holds a zero byte")
    return text


def interface(text: str) -> str:
    """The name of an interface."""
    if len(some_text(text).encode()) > _IFNAME_MAX:
        raise ValueError(f"{text!r} is too long for an interface: {_IFNAME_MAX} bytes at most")
    return text


def number(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers in this range."""

    def read(text: str) -> int:
        plain = text.isascii() and text.isdigit() and len(text) < _DIGITS
        if not plain or not low <= int(text) <= high:
            raise ValueError(f"{text!r} is not a number from {low} to {high}")
        return int(text)

    return read


fd: Final = number(0, 2**20)
cpu: Final = number(0, 8191)


def or_named(read: Callable[[str], Any], by_name: object) -> Callable[[str], Any]:
    """The same, but ``named`` is read as ``by_name``: numbers come at the start, by name."""

    def read_either(text: str) -> Any:
        return by_name if text.strip() == "named" else read(text)

    return read_either


def fds(text: str) -> tuple[int, ...]:
    """File descriptors, none twice."""
    fds = tuple(fd(part.strip()) for part in text.split(","))
    if len(set(fds)) != len(fds):
        raise ValueError(f"{text!r} names a file descriptor twice")
    return fds


def two_fds(text: str) -> tuple[int, ...]:
    """A program and its map."""
    two = fds(text)
    if len(two) != 2:
        raise ValueError(f"{text!r} is not two file descriptors, the program's and its map's")
    return two


def cpus(text: str) -> tuple[int, ...]:
    """As taskset(1) has them: numbers and ranges."""
    cpus: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        first = cpu(low)
        last = cpu(high) if dash else first
        if last < first:
            raise ValueError(f"{part.strip()!r} is a range that goes down")
        cpus.extend(range(first, last + 1))
    return tuple(cpus)


def octal(text: str) -> int:
    """A file mode."""
    digits = text.removeprefix("0o")
    if not digits or set(digits) - set("01234567") or int(digits, 8) > 0o777:
        raise ValueError(f"{text!r} is not an octal mode such as 0660")
    return int(digits, 8)


def mac(text: str) -> bytes:
    """A station's address."""
    parts = text.replace("-", ":").split(":")
    try:
        mac = bytes(int(part, 16) for part in parts if len(part) == 2)
    except ValueError:
        mac = b""
    if len(mac) != _MAC_BYTES or len(parts) != _MAC_BYTES:
        raise ValueError(f"{text!r} is not a MAC address such as 02:00:00:00:00:01")
    if mac[0] & 1 or not any(mac):
        raise ValueError(f"{text!r} is not a unicast address")
    return mac


def words(text: str, known: Iterable[str], what: str) -> tuple[str, ...]:
    """Names out of ``known``; ``what`` one of them is called."""
    names = list(known)
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in names:
            raise ValueError(f"there is no {what} {word!r}{nearest(word, names)}")
    return tuple(words)


def features(text: str) -> Feature:
    """Names of features."""
    known = {name.lower(): bit for name, bit in Feature.__members__.items()}
    features = NO_FEATURES
    for word in words(text, known, "feature"):
        features |= known[word]
    return features


def compat(text: str) -> tuple[str, ...]:
    """Names of compat switches."""
    return words(text, sorted(COMPAT_SWITCHES), "compat switch")


def choice(*choices: str) -> Callable[[str], str]:
    """A reader of one of these words."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}{nearest(text, choices)}")
        return text

    return read


def rotation(text: str) -> Rotation:
    """A size, and how many files of it to keep."""
    size, colon, files = text.partition(":")
    unit = _UNITS.get(size[-1:].upper())
    digits = size if unit is None else size[:-1]
    bytes_ = number(1, 2**40)(digits) * (unit or 1)
    try:
        return Rotation(bytes_, number(1, 10**6)(files) if colon else 0)
    except UsageError as error:
        raise ValueError(str(error)) from None


def port(text: str) -> Port:
    """A host port."""
    kind, colon, rest = text.partition(":")
    if kind == "pair" and colon:
        return Port("pair", fds(rest))
    if text == "tap":
        return Port("tap")
    if text == "null":
        return Port("null")
    if text == "null:endless":
        return Port("null", endless=True)
    raise ValueError(f"{text!r} is none of tap, pair:FD,FD…, null and null:endless")
