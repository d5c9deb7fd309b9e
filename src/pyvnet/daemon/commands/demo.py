# SPDX-License-Identifier: MIT
"""``pyvnet demo``: the main job on real input, every frame verified (daemon/demo.py).

Exit status: 0 only if every frame arrived where, and with the hash and report,
the reference says; 1 otherwise; 2 wrong usage.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyvnet.daemon.demo import Result
from pyvnet.daemon.demo import run as run_demo
from pyvnet.daemon.options import STEERING
from pyvnet.daemon.plot import plot_spread, ready_to_plot
from pyvnet.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from argparse import _SubParsersAction

_BAR = 40  # characters


def add_parser(subparsers: _SubParsersAction[Any]) -> None:
    """Add ``demo`` and its options."""
    parser = subparsers.add_parser(
        "demo",
        help="prove queue and hash of every frame, on real traffic and without a guest",
        description=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else None,
    )
    parser.add_argument("--queues", type=int, default=4, metavar="N", help="queue pairs (4)")
    parser.add_argument("--flows", type=int, default=64, metavar="N", help="flows to send (64)")
    parser.add_argument(
        "--steering", choices=STEERING, default="auto", help="who puts frames on their queue"
    )
    parser.add_argument(
        "--break-key",
        action="store_true",
        help="flip one key bit in the reference, to see the check fail",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw flows against queues to FILE"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Run the proof and report it."""
    if not 1 <= args.queues <= 128:
        raise UsageError(f"--queues {args.queues}: take 1 to 128")
    if not 4 <= args.flows <= 20_000:
        raise UsageError(f"--flows {args.flows}: take 4 to 20000, so that each kind is there")
    if args.plot:
        ready_to_plot(args.plot)
    result = asyncio.run(
        run_demo(args.queues, args.flows, steering=args.steering, break_key=args.break_key)
    )
    if args.plot:
        plot_spread(args.plot, [result.spread.panel(f"pyvnet demo over a {result.host_port}")])
    if args.json:
        print(json.dumps(result.as_json(), indent=2))
    else:
        _print(result)
    for failure in result.failures:
        print(f"pyvnet demo: {failure}", file=sys.stderr)
    return 1 if result.failures else 0


def _print(result: Result) -> None:
    port = "a tap" if result.host_port == "tap" else "a socket pair"
    print(f"{result.flows} flows over {port}, steering: {result.steering}")
    if result.reason:
        print(f"no tap: {result.reason}")
    if result.steering_reason:
        print(f"not steered by {result.steering_reason}")
    print()
    most = max(result.queues, default=0) or 1
    for queue, count in enumerate(result.queues):
        bar = "█" * round(count * _BAR / most)
        print(f"  receiveq {queue:<3} {bar:<{_BAR}} {count}")
    print()
    for name, count in result.as_json()["reports"].items():
        print(f"  {name:<10} {count}")
    print()
    print(
        f"{result.tap_tx_packets} frames in, {result.drops} dropped, {result.frames} received, "
        f"{result.verified} verified, {result.mismatches} mismatches"
    )
    for example in result.examples:
        print(f"  {example}")
