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
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyvnet.capture import CapturedFrame, CaptureError
from pyvnet.daemon.balance import Suggestion, suggest_table
from pyvnet.daemon.hash_arguments import (
    frame_argument,
    hash_types,
    key_argument,
    queue_argument,
    queues_argument,
    round_robin,
    table_argument,
)
from pyvnet.daemon.hash_rows import Row, is_cut_in_headers, note, rows
from pyvnet.daemon.plot import plot_queues, require_matplotlib
from pyvnet.spec.rss import (
    ALL_HASH_TYPES,
    MAX_KEY_SIZE,
    MAX_TABLE_LENGTH,
    VERIFICATION_KEY,
    hash_type_names,
    key_bytes_needed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_QUEUES: Final = 4

_EPILOG: Final = """\
examples:
  pyvnet hash traffic.pcapng
  pyvnet hash --types ipv4,tcpv4 --queues 8 --suggest traffic.pcap
  pyvnet hash --json "ff ff ff ff ff ff 02 00 00 00 00 01 08 00 45 00 ..."
"""


@dataclass(slots=True)
class _Totals:
    """What the frames add up to."""

    queues: Counter[int]
    entries: Counter[int] = field(default_factory=Counter)
    unclassified: int = 0
    cut_short: int = 0

    def count(self, frame: CapturedFrame, row: Row) -> None:
        self.cut_short += is_cut_in_headers(frame)
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
        type=frame_argument,
        metavar="FILE|HEXFRAME",
        help="pcap or pcapng file, or a frame in hex from the destination MAC on"
        " (blanks, colons and 0x are ignored; quote it)",
    )
    parser.add_argument(
        "--key",
        type=key_argument,
        default=VERIFICATION_KEY,
        metavar="HEX",
        help=f"hash key of 1 to {MAX_KEY_SIZE} bytes, extended with zeros"
        " (default: Microsoft's verification key)",
    )
    parser.add_argument(
        "--types",
        type=hash_types,
        default=ALL_HASH_TYPES,
        metavar="LIST",
        help=f"enabled hash types: all, none, or of {','.join(hash_type_names(ALL_HASH_TYPES))}"
        " (default: all)",
    )
    steering = parser.add_mutually_exclusive_group()
    steering.add_argument(
        "--queues",
        type=queues_argument,
        metavar="N",
        help=f"indirection table of {MAX_TABLE_LENGTH} entries, N queues in turn"
        f" (default: {DEFAULT_QUEUES})",
    )
    steering.add_argument(
        "--table",
        type=table_argument,
        metavar="LIST",
        help="the indirection table itself, such as 0,1,2,3; its length is a power of two",
    )
    parser.add_argument(
        "--unclassified",
        type=queue_argument,
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
    table: tuple[int, ...] = args.table or round_robin(args.queues or DEFAULT_QUEUES)
    totals = _Totals(Counter(dict.fromkeys(table, 0)))  # queues without frames are shown too
    documents: list[dict[str, object]] = []
    failure: CaptureError | None = None
    try:
        for frame, row in rows(args, table):
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
        note(f"key of {len(args.key)} bytes was extended with zeros to {needed}")
    if totals.cut_short:
        note(
            f"{totals.cut_short} frames were cut inside their headers when captured, so a device"
            " may have hashed them otherwise; capture with a snapshot length of 0"
        )


def _plot(path: Path, totals: _Totals, suggestion: Suggestion | None) -> None:
    """Draw frames per queue, and beside them what the suggestion gives."""
    series: dict[str, Mapping[int, int]] = {"frames": totals.queues}
    if suggestion is not None:
        series = {"now": suggestion.before, "suggested": suggestion.after}
    plot_queues(path, series)
