# SPDX-License-Identifier: MIT
"""Frames of ``pyvnet hash`` and the verdict on each.

The verdict comes from the C frame path, that is, from what a device with this
configuration does.  The reference parser only supplies the words of the text
output (addresses, ports, what stood in the way of a hash).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyvnet.capture import CapturedFrame, read_frames
from pyvnet.daemon.recompute import Judge, Told
from pyvnet.reference import Flow, parse
from pyvnet.spec.rss import REPORT_NAMES, HashReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ETHERNET_HEADER: Final = 14


@dataclass(frozen=True, slots=True)
class Row:
    """Verdict on one frame; ``entry`` is the index into the indirection table.

    ``told`` is what the capture says of it, ``differs`` whether that is something else;
    None: that cannot be compared.
    """

    index: int
    report: int
    hash_value: int
    entry: int | None
    queue: int
    table: tuple[int, ...] = (0,)
    told: Told | None = None
    differs: bool | None = None

    def as_json(self) -> dict[str, object]:
        """The contract of ``--json``."""
        hashed = self.report != HashReport.NONE
        told = {}
        if self.told is not None:
            told = {"captured": self.told.as_json(differs=self.differs)}
        return {
            "index": self.index,
            "type": REPORT_NAMES[self.report],
            "report": self.report,
            "hash": f"0x{self.hash_value:08x}" if hashed else None,
            "queue": self.queue,
            **told,
        }

    def as_text(self, frame: bytes) -> str:
        """One line of the table."""
        name = REPORT_NAMES[self.report] or "-"
        value = "-" if self.entry is None else f"0x{self.hash_value:08x}"
        entry = "-" if self.entry is None else str(self.entry)
        flow = describe(frame, self.report)
        line = (
            f"{self.index:>7}  {name:<6}  {self.report:>6}  {value:<10}"
            f"  {entry:>5}  {self.queue:>5}  {flow}"
        )
        if self.told is None or not self.differs:
            return line
        return f"{line}\n         the capture says: {self.told.as_text()}"


HEADING: Final = "  index  type    report  hash        entry  queue  flow"


def _frames(inputs: Iterable[Path | bytes]) -> Iterator[CapturedFrame]:
    for given in inputs:
        if isinstance(given, Path):
            yield from read_frames(given)
            continue
        if len(given) < ETHERNET_HEADER:
            note(
                f"{given.hex()}: {len(given)} bytes are less than an Ethernet header;"
                " put a frame with blanks in quotes"
            )
        yield CapturedFrame(0, given, len(given))


def rows(frames: Iterable[Path | bytes], judge: Judge) -> Iterator[tuple[CapturedFrame, Row]]:
    """Each frame with its verdict; raises CaptureError where a file breaks."""
    for index, frame in enumerate(_frames(frames)):
        judgement = judge.judgement(frame)
        verdict = judge.judge(frame, judgement)
        table = judgement.steering.indirection_table
        hashed = verdict.hash_report != HashReport.NONE
        entry = verdict.hash_value & (len(table) - 1) if hashed else None
        told, differs = Told.by(frame), None
        if told is not None and judgement.hash_known and not is_cut_in_headers(frame):
            differs = told.differs(verdict, judgement)
        yield (
            frame,
            Row(
                index,
                verdict.hash_report,
                verdict.hash_value,
                entry,
                verdict.queue,
                table,
                told,
                differs,
            ),
        )


def is_cut_in_headers(frame: CapturedFrame) -> bool:
    """Whether capturing took what a device would have hashed."""
    return len(frame.data) < frame.original_length and "short" in parse(frame.data).why


def describe(frame: bytes, report: int) -> str:
    """Source and destination as hashed, and what kept the frame from a better type."""
    flow = parse(frame)
    if flow.l3 == 0:
        return flow.why
    source, destination = flow.saddr, flow.daddr
    if report >= HashReport.IPV6_EX:
        source, destination = flow.saddr_ex, flow.daddr_ex
    text = f"{_endpoint(source, flow, flow.sport)} > {_endpoint(destination, flow, flow.dport)}"
    return f"{text} ({flow.why})" if flow.why else text


def _endpoint(address: bytes, flow: Flow, port: int) -> str:
    host = str(ip_address(address))
    if not flow.l4:
        return host
    return f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"


def note(message: str) -> None:
    """Say on stderr what a careful reader should know; JSON on stdout stays one document."""
    print(f"pyvnet hash: note: {message}", file=sys.stderr)
