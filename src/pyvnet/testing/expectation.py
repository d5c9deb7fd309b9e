# SPDX-License-Identifier: MIT
"""What a test expects of one frame, and whether a frame is that."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from pyvnet.errors import UsageError
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.spec.rss import HashReport, HashType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyvnet.driver.receive import Frame
    from pyvnet.testing.wire import SentFrame

HEADER_FIELDS: Final = tuple(f.name for f in fields(NetHdr))


class ExpectationError(AssertionError):
    """Something else came, or nothing; the message is the picture of it."""

    __module__ = "pyvnet.testing"  # where users know it from, and reports are short of room


@dataclass(frozen=True, slots=True)
class Expected:
    """What must hold of a frame; None and absent fields are not looked at.

    Attributes:
        frame: all bytes, from the destination MAC address on.
        queue: pair number.
        header: fields of the virtio header, by name.
        where: a condition on the frame that was received.
    """

    frame: bytes | None = None
    queue: int | None = None
    header: Mapping[str, int] = field(default_factory=dict)
    where: Callable[[Any], object] | None = None

    def differences(self, seen: Frame | SentFrame) -> list[str]:
        """Names of what does not hold: ``frame``, ``queue``, header fields, ``where``."""
        wrong = []
        if self.frame is not None and seen.data != self.frame:
            wrong.append("frame")
        if self.queue is not None and seen.queue != self.queue:
            wrong.append("queue")
        wrong += [n for n, value in self.header.items() if getattr(seen.header, n) != value]
        if self.where is not None and not self.where(seen):
            wrong.append("where")
        return wrong

    def describe(self) -> str:
        """In words: what is expected besides the bytes."""
        parts = [f"a frame of {len(self.frame)} bytes" if self.frame is not None else "a frame"]
        if self.queue is not None:
            parts.append(f"queue {self.queue}")
        parts += [f"{name} {shown(name, value)}" for name, value in self.header.items()]
        if self.where is not None:
            parts.append("the condition `where`")
        return ", ".join(parts)


NOTHING: Final = Expected()


def shown(name: str, value: int) -> str:
    """A header field as people read it."""
    if name == "hash_value":
        return f"0x{value:08x}"
    if name == "hash_report" and value in HashReport.__members__.values():
        return f"{HashReport(value).name} ({int(value)})"
    return str(int(value))


def header_fields(
    header: NetHdr | None, hash_value: int | None, report: int | None, given: Mapping[str, int]
) -> dict[str, int]:
    """All that is expected of the header in one mapping; raises UsageError for what is no field."""
    __tracebackhide__ = True
    wanted: dict[str, int] = {}
    if header is not None:
        wanted |= {name: getattr(header, name) for name in HEADER_FIELDS}
    if isinstance(report, HashType):
        raise UsageError(
            f"report={report!r} is a hash type; reports are numbered otherwise: HashReport.…"
        )
    if hash_value is not None:
        wanted["hash_value"] = hash_value
    if report is not None:
        wanted["hash_report"] = report
    for name, value in given.items():
        if name not in HEADER_FIELDS:
            known = ", ".join(HEADER_FIELDS)
            raise UsageError(f"{name!r} is no field of the virtio header: {known}")
        wanted[name] = value
    for name, value in wanted.items():
        number(name, value)
    return wanted


def number(name: str, value: object) -> None:
    """Raise UsageError for what is none."""
    if not isinstance(value, int):
        raise UsageError(f"{name} {value!r} is no number")
