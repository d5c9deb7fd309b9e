# SPDX-License-Identifier: MIT
"""``pyvnet hash``: which queue a frame lands on, and why.

The verdict comes from the C frame path, that is, from what a device with this
configuration does.  The reference parser only supplies the words of the text
output (addresses, ports, what stood in the way of a hash).

A capture that says itself what hash and queue its frames had, and what steered
them, is judged by that again; where something else comes out both are shown.

Exit status: 0 done, 1 a file or the plot failed or a capture says something
else, 2 wrong usage.  Of a capture that breaks somewhere, the frames before that
point are reported first.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Final

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
from pyvnet.daemon.hash_rows import HEADING, Row, describe, is_cut_in_headers, note, rows
from pyvnet.daemon.plot import plot_spread, ready_to_plot
from pyvnet.daemon.recompute import Given, Judge
from pyvnet.daemon.spread import Spread
from pyvnet.spec.rss import (
    ALL_HASH_TYPES,
    MAX_KEY_SIZE,
    MAX_TABLE_LENGTH,
    hash_type_names,
    key_bytes_needed,
)

DEFAULT_QUEUES: Final = 4

_EPILOG: Final = """\
examples:
  pyvnet hash traffic.pcapng
  pyvnet hash --types ipv4,tcpv4 --queues 8 --suggest traffic.pcap
  pyvnet hash --json "ff ff ff ff ff ff 02 00 00 00 00 01 08 00 45 00 ..."
"""


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
        metavar="HEX",
        help=f"hash key of 1 to {MAX_KEY_SIZE} bytes, extended with zeros"
        " (default: the capture's, else Microsoft's verification key)",
    )
    parser.add_argument(
        "--types",
        type=hash_types,
        metavar="LIST",
        help=f"enabled hash types: all, none, or of {','.join(hash_type_names(ALL_HASH_TYPES))}"
        " (default: the capture's, else all)",
    )
    steering = parser.add_mutually_exclusive_group()
    steering.add_argument(
        "--queues",
        type=queues_argument,
        metavar="N",
        help=f"indirection table of {MAX_TABLE_LENGTH} entries, N queues in turn"
        f" (default: the capture's table, else {DEFAULT_QUEUES})",
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
        metavar="Q",
        help="queue of frames without a hash (default: the capture's, else 0)",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw flows against queues to FILE"
    )
    parser.add_argument(
        "--suggest",
        action="store_true",
        help="suggest an indirection table that spreads these frames evenly",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Report on every frame as it is read; returns the exit status.

    Raises CaptureError for a file that cannot be read to its end, after the
    report on the frames before that point; HostError when the plot cannot be
    made.
    """
    if args.plot:
        ready_to_plot(args.plot)
    asked: tuple[int, ...] | None = args.table or (args.queues and round_robin(args.queues))
    given = Given(args.key, args.types, asked, args.unclassified)
    judge = Judge(given, asked or round_robin(DEFAULT_QUEUES))
    by_flow = args.plot is not None
    spread: Spread | None = None
    table = judge.table
    cut_short = compared = different = 0
    failure: CaptureError | None = None
    report = _Json(suggests=args.suggest) if args.json else _Text()
    if not args.json:
        print(HEADING)
    try:
        with judge:
            for frame, row in rows(args.frames, judge):
                if spread is None:
                    table = row.table
                    spread = Spread(table, len(table), by_flow=by_flow)
                cut_short += is_cut_in_headers(frame)
                compared += row.differs is not None
                different += row.differs is True
                flow = partial(describe, frame.data, row.report)
                spread.count(row.report, row.hash_value, row.queue, flow)
                report.row(frame, row)
    except CaptureError as error:
        failure = error
    spread = spread or Spread(table, len(table), by_flow=by_flow)
    suggestion = _suggestion(table, spread, judge.unclassified) if args.suggest else None
    report.end(spread, suggestion)
    _print_notes(args, cut_short)
    _print_comparison(compared, different, judge)
    if args.plot:
        _plot(args.plot, spread, suggestion)
    if failure is not None:
        raise failure
    return 1 if different else 0


def _suggestion(table: tuple[int, ...], spread: Spread, unclassified: int) -> Suggestion:
    return suggest_table(table, spread.entries, {unclassified: spread.unclassified})


# Output.  Row by row: a capture may be larger than memory.


class _Json:
    """One document: the list of frames, or with a suggestion an object of both."""

    def __init__(self, *, suggests: bool) -> None:
        self._between = ""
        sys.stdout.write('{"frames": [' if suggests else "[")

    def row(self, _: CapturedFrame, row: Row) -> None:
        sys.stdout.write(self._between + json.dumps(row.as_json()))
        self._between = ", "

    def end(self, _: Spread, suggestion: Suggestion | None) -> None:
        if suggestion is None:
            print("]")
        else:
            print(f'], "suggestion": {json.dumps(suggestion.as_json())}}}')


class _Text:
    """A table and its sums."""

    def row(self, frame: CapturedFrame, row: Row) -> None:
        print(row.as_text(frame.data))

    def end(self, spread: Spread, suggestion: Suggestion | None) -> None:
        frames = spread.queues.total()
        print(f"\n{frames} frames, {spread.unclassified} without a hash")
        for queue, count in sorted(spread.queues.items()):
            print(f"queue {queue:>3}  {count:>9}  {count / max(frames, 1):>6.1%}")
        if suggestion is not None:
            print(f"\n{suggestion.as_text()}")


def _print_notes(args: argparse.Namespace, cut_short: int) -> None:
    """What a careful reader should know; on stderr, so that JSON stays one document."""
    needed = key_bytes_needed(ALL_HASH_TYPES if args.types is None else args.types)
    if args.key is not None and len(args.key) < needed:
        note(f"key of {len(args.key)} bytes was extended with zeros to {needed}")
    if cut_short:
        note(
            f"{cut_short} frames were cut inside their headers when captured, so a device"
            " may have hashed them otherwise; capture with a snapshot length of 0"
        )


def _print_comparison(compared: int, different: int, judge: Judge) -> None:
    if judge.changes:
        note(f"the steering changed {judge.changes} times: sums go by the table of the first frame")
    if compared:
        note(
            f"{compared} frames say what hash and queue they had;"
            f" {different or 'none'} of them not what comes out here"
        )


def _plot(path: Path, spread: Spread, suggestion: Suggestion | None) -> None:
    """Draw flows against queues, and beside it what the suggestion makes of them."""
    panels = [spread.panel("now" if suggestion else "flows and their queues")]
    if suggestion is not None:
        after = {**spread.queues, **suggestion.after}
        panels.append(spread.panel_under("suggested", suggestion.indirection_table, after))
    plot_spread(path, panels)
