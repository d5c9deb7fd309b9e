# SPDX-License-Identifier: MIT
"""Comments of our captures: what options cannot say, for people and for ``pyvnet hash``.

Of a frame: report, hash and queue, since Wireshark shows comments but no
`epb_hash`, and no option has room for a hash report.  And, on the first
frame it holds for, what decides hash and receiveq from there on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pyvnet.spec.net_hdr import GsoType, HdrFlag, NetHdr
from pyvnet.spec.rss import REPORT_NAMES, HashType

_GSO_NAMES: Final = {
    GsoType.TCPV4: "TCPv4",
    GsoType.UDP: "UDP fragments",
    GsoType.TCPV6: "TCPv6",
    GsoType.UDP_L4: "UDP",
}
_GSO_MASK: Final = 0x7F  # without ECN

_VERDICT: Final = re.compile(
    r"(?:(?:(?P<type>\w+) hash 0x(?P<hash>[0-9a-f]{8})|(?P<none>no hash)) )?receiveq (?P<queue>\d+)"
)
_STEERING: Final = re.compile(
    r"pyvnet steering: types 0x(?P<types>[0-9a-f]{1,8}) key (?P<key>(?:[0-9a-f]{2})+|none)"
    r" (?:table (?P<table>\d+(?:,\d+)*) unclassified (?P<unclassified>\d+)|automatic)"
    r"(?P<ex>, EX types without extension headers too)?"
)


def report_name(report: int) -> str:
    """A hash report's name; a number no standard knows is shown as it is."""
    known = REPORT_NAMES[report] if report < len(REPORT_NAMES) else None
    return known or f"report_{report}"


def frame_comment(
    queue: int | None,
    hash_value: int | None = None,
    hash_report: int | None = None,
    header: NetHdr | None = None,
    *,
    transmit: bool = False,
) -> str:
    """Such as ``TCPv4 hash 0x51ccc178 receiveq 3, needs checksum at 34+16``.

    ``hash_report`` None: nobody said (no HASH_REPORT); 0: said that there is no hash.
    """
    words = []
    if hash_report:
        words.append(f"{report_name(hash_report)} hash 0x{hash_value or 0:08x}")
    elif hash_report == 0:
        words.append("no hash")
    if queue is not None:
        words.append(f"{'transmitq' if transmit else 'receiveq'} {queue}")
    return " ".join(words) + (_asked(header) if header else "")


def _asked(header: NetHdr) -> str:
    text = ""
    if header.flags & HdrFlag.NEEDS_CSUM:
        text += f", needs checksum at {header.csum_start}+{header.csum_offset}"
    if header.flags & HdrFlag.DATA_VALID:
        text += ", checksum valid"
    if header.gso_type:
        kind = header.gso_type & _GSO_MASK
        name = _GSO_NAMES[GsoType(kind)] if kind in _GSO_NAMES else f"GSO {kind}"
        text += f", {name} in segments of {header.gso_size}"
    return text


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a frame's comment says; ``hash_report`` None: a name nobody knows, or not said."""

    queue: int
    hash_value: int | None
    hash_report: int | None


def verdict_of(comment: str) -> Verdict | None:
    """Read what `frame_comment` wrote of a received frame; None for any other comment."""
    match = _VERDICT.match(comment)
    if match is None:
        return None
    queue = int(match["queue"])
    if match["none"]:
        return Verdict(queue, None, 0)
    if match["hash"] is None:
        return Verdict(queue, None, None)
    name = match["type"]
    number = name.removeprefix("report_")
    report = int(number) if number.isdecimal() else None
    if name in REPORT_NAMES:
        report = REPORT_NAMES.index(name)
    return Verdict(queue, int(match["hash"], 16), report)


@dataclass(frozen=True, slots=True)
class Steering:
    """What decides hash and receiveq: in force from one frame of a capture until another says so.

    ``indirection_table`` holds receive queue pair numbers; empty: automatic
    steering, where the hash does not tell the queue.
    """

    hash_types: int
    key: bytes
    indirection_table: tuple[int, ...] = ()
    unclassified_queue: int = 0
    ex_types_always: bool = False

    def as_comment(self) -> str:
        """One line, which `steering_of` reads."""
        table = ",".join(map(str, self.indirection_table))
        rest = f"table {table} unclassified {self.unclassified_queue}" if table else "automatic"
        types = int(HashType(self.hash_types))
        always = ", EX types without extension headers too" if self.ex_types_always else ""
        return f"pyvnet steering: types 0x{types:x} key {self.key.hex() or 'none'} {rest}{always}"


def steering_of(comment: str) -> Steering | None:
    """Read what `Steering.as_comment` wrote; None for any other comment."""
    match = _STEERING.fullmatch(comment)
    if match is None:
        return None
    key = b"" if match["key"] == "none" else bytes.fromhex(match["key"])
    table = tuple(map(int, match["table"].split(","))) if match["table"] else ()
    unclassified = int(match["unclassified"] or 0)
    return Steering(int(match["types"], 16), key, table, unclassified, bool(match["ex"]))
