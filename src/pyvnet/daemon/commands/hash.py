# SPDX-License-Identifier: MIT
"""``pyvnet hash``: which queue a frame lands on, and why.

The verdict comes from the C frame path, that is, from what a device with this
configuration does.  The reference parser only supplies the words of the text
output (addresses, ports, what stood in the way of a hash).

Exit status: 0 done, 1 a file or the plot failed, 2 wrong usage.  Of a capture
that breaks somewhere, the frames before that point are reported first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyvnet.capture import CapturedFrame, CaptureError, read_frames
from pyvnet.daemon.balance import Suggestion, suggest_table
from pyvnet.daemon.plot import plot_queues, require_matplotlib
from pyvnet.datapath.policy import Policy
from pyvnet.reference import Flow, parse
from pyvnet.spec.rss import (
    ALL_HASH_TYPES,
    MAX_KEY_SIZE,
    MAX_TABLE_LENGTH,
    REPORT_NAMES,
    VERIFICATION_KEY,
    HashReport,
    HashType,
    hash_type_names,
    hash_types_from_names,
    key_bytes_needed,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DEFAULT_QUEUES: Final = 4
MAX_PAIRS: Final = 256
"""Queue pairs a device can have; queue numbers are below."""
ETHERNET_HEADER: Final = 14

_EPILOG: Final = """\
examples:
  pyvnet hash traffic.pcapng
  pyvnet hash --types ipv4,tcpv4 --queues 8 --suggest traffic.pcap
  pyvnet hash --json "ff ff ff ff ff ff 02 00 00 00 00 01 08 00 45 00 ..."
"""


@dataclass(frozen=True, slots=True)
class _Row:
    """Verdict on one frame; ``entry`` is the index into the indirection table."""

    index: int
    report: int
    hash_value: int
    entry: int | None
    queue: int

    def as_json(self) -> dict[str, object]:
        """The contract of ``--json``."""
        hashed = self.report != HashReport.NONE
        return {
            "index": self.index,
            "type": REPORT_NAMES[self.report],
            "report": self.report,
            "hash": f"0x{self.hash_value:08x}" if hashed else None,
            "queue": self.queue,
        }

    def as_text(self, frame: bytes) -> str:
        """One line of the table."""
        name = REPORT_NAMES[self.report] or "-"
        value = "-" if self.entry is None else f"0x{self.hash_value:08x}"
        entry = "-" if self.entry is None else str(self.entry)
        flow = _describe(parse(frame), self.report)
        return (
            f"{self.index:>7}  {name:<6}  {self.report:>6}  {value:<10}"
            f"  {entry:>5}  {self.queue:>5}  {flow}"
        )


_HEADING: Final = "  index  type    report  hash        entry  queue  flow"


@dataclass(slots=True)
class _Totals:
    """What the frames add up to."""

    queues: Counter[int]
    entries: Counter[int] = field(default_factory=Counter)
    unclassified: int = 0
    cut_short: int = 0

    def count(self, frame: CapturedFrame, row: _Row) -> None:
        self.cut_short += _is_cut_in_headers(frame)
        self.queues[row.queue] += 1
        if row.entry is None:
            self.unclassified += 1
        else:
            self.entries[row.entry] += 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command and its options."""
    parser = subparsers.add_parser(
        "hash",
        help="which queue frames land on, and why",
        description="Report hash type, hash and receive queue of each frame of a capture.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "frames",
        nargs="+",
        type=_frame_argument,
        metavar="FILE|HEXFRAME",
        help="pcap or pcapng file, or a frame in hex from the destination MAC on"
        " (blanks, colons and 0x are ignored; quote it)",
    )
    parser.add_argument(
        "--key",
        type=_key,
        default=VERIFICATION_KEY,
        metavar="HEX",
        help=f"hash key of 1 to {MAX_KEY_SIZE} bytes, extended with zeros"
        " (default: Microsoft's verification key)",
    )
    parser.add_argument(
        "--types",
        type=_hash_types,
        default=ALL_HASH_TYPES,
        metavar="LIST",
        help=f"enabled hash types: all, none, or of {','.join(hash_type_names(ALL_HASH_TYPES))}"
        " (default: all)",
    )
    steering = parser.add_mutually_exclusive_group()
    steering.add_argument(
        "--queues",
        type=_queues,
        metavar="N",
        help=f"indirection table of {MAX_TABLE_LENGTH} entries, N queues in turn"
        f" (default: {DEFAULT_QUEUES})",
    )
    steering.add_argument(
        "--table",
        type=_table,
        metavar="LIST",
        help="the indirection table itself, such as 0,1,2,3; its length is a power of two",
    )
    parser.add_argument(
        "--unclassified",
        type=_queue,
        default=0,
        metavar="Q",
        help="queue of frames without a hash (default: 0)",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw frames per queue to FILE")
    parser.add_argument(
        "--suggest",
        action="store_true",
        help="suggest an indirection table that spreads these frames evenly",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Report on every frame; returns the exit status.

    Raises CaptureError for a file that cannot be read to its end, after the
    report on the frames before that point; HostError when the plot cannot be
    made.
    """
    if args.plot:
        require_matplotlib()
    table: tuple[int, ...] = args.table or _round_robin(args.queues or DEFAULT_QUEUES)
    totals = _Totals(Counter(dict.fromkeys(table, 0)))  # queues without frames are shown too
    documents: list[dict[str, object]] = []
    failure: CaptureError | None = None
    try:
        for frame, row in _rows(args, table):
            totals.count(frame, row)
            if args.json:
                documents.append(row.as_json())
            else:
                print(row.as_text(frame.data))
    except CaptureError as error:
        failure = error
    suggestion = _suggestion(table, totals, args.unclassified) if args.suggest else None
    if args.json:
        _print_json(documents, suggestion)
    else:
        _print_summary(totals, suggestion)
    _print_notes(args, totals)
    if failure is not None:
        raise failure
    if args.plot:
        _plot(args.plot, totals, suggestion)
    return 0


# Arguments.  argparse turns ArgumentTypeError into a message and exit status 2.


def _frame_argument(word: str) -> Path | bytes:
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


def _key(word: str) -> bytes:
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


def _hash_types(word: str) -> HashType:
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


def _queue(word: str) -> int:
    return _number(word, 0, MAX_PAIRS - 1, "queue")


def _queues(word: str) -> int:
    return _number(word, 1, MAX_TABLE_LENGTH, "number of queues a table can name")


def _table(word: str) -> tuple[int, ...]:
    table = tuple(_queue(part) for part in word.split(","))
    length = len(table)
    if length > MAX_TABLE_LENGTH or length & (length - 1):
        raise argparse.ArgumentTypeError(
            f"table of {length} entries; must be a power of two up to {MAX_TABLE_LENGTH}"
        )
    return table


def _round_robin(queues: int) -> tuple[int, ...]:
    return tuple(entry % queues for entry in range(MAX_TABLE_LENGTH))


# Frames and verdicts.


def _frames(inputs: Iterable[Path | bytes]) -> Iterator[CapturedFrame]:
    for given in inputs:
        if isinstance(given, Path):
            yield from read_frames(given)
            continue
        if len(given) < ETHERNET_HEADER:
            _note(
                f"{given.hex()}: {len(given)} bytes are less than an Ethernet header;"
                " put a frame with blanks in quotes"
            )
        yield CapturedFrame(0, given, len(given))


def _rows(args: argparse.Namespace, table: tuple[int, ...]) -> Iterator[tuple[CapturedFrame, _Row]]:
    """Each frame with its verdict; raises CaptureError where a file breaks."""
    if not args.json:
        print(_HEADING)
    with Policy.create(
        mode="rss",
        hash_types=int(args.types),
        key=args.key,
        indirection_table=table,
        unclassified_queue=args.unclassified,
    ) as policy:
        for index, frame in enumerate(_frames(args.frames)):
            verdict = policy.classify(frame.data)
            hashed = verdict.hash_report != HashReport.NONE
            entry = verdict.hash_value & (len(table) - 1) if hashed else None
            yield (
                frame,
                _Row(index, verdict.hash_report, verdict.hash_value, entry, verdict.queue),
            )


def _is_cut_in_headers(frame: CapturedFrame) -> bool:
    return len(frame.data) < frame.original_length and "short" in parse(frame.data).why


def _describe(flow: Flow, report: int) -> str:
    """Source and destination as hashed, and what kept the frame from a better type."""
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


def _suggestion(table: tuple[int, ...], totals: _Totals, unclassified: int) -> Suggestion:
    loads = [totals.entries[entry] for entry in range(len(table))]
    return suggest_table(table, loads, {unclassified: totals.unclassified})


# Output.


def _print_json(documents: list[dict[str, object]], suggestion: Suggestion | None) -> None:
    if suggestion is None:
        print(json.dumps(documents))
        return
    print(json.dumps({"frames": documents, "suggestion": suggestion.as_json()}))


def _print_summary(totals: _Totals, suggestion: Suggestion | None) -> None:
    frames = totals.queues.total()
    print(f"\n{frames} frames, {totals.unclassified} without a hash")
    for queue, count in sorted(totals.queues.items()):
        print(f"queue {queue:>3}  {count:>9}  {count / max(frames, 1):>6.1%}")
    if suggestion is not None:
        print(f"\n{suggestion.as_text()}")


def _print_notes(args: argparse.Namespace, totals: _Totals) -> None:
    """What a careful reader should know; on stderr, so that JSON stays one document."""
    needed = key_bytes_needed(args.types)
    if len(args.key) < needed:
        _note(f"key of {len(args.key)} bytes was extended with zeros to {needed}")
    if totals.cut_short:
        _note(
            f"{totals.cut_short} frames were cut inside their headers when captured, so a device"
            " may have hashed them otherwise; capture with a snapshot length of 0"
        )


def _plot(path: Path, totals: _Totals, suggestion: Suggestion | None) -> None:
    """Draw frames per queue, and beside them what the suggestion gives."""
    series: dict[str, Mapping[int, int]] = {"frames": totals.queues}
    if suggestion is not None:
        series = {"now": suggestion.before, "suggested": suggestion.after}
    plot_queues(path, series)


def _note(message: str) -> None:
    print(f"pyvnet hash: note: {message}", file=sys.stderr)
