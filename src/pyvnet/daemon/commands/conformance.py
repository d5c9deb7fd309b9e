# SPDX-License-Identifier: MIT
"""``pyvnet conformance TARGET``: does a virtio-net back-end do what the standard asks?

Exit status: 0; 1 a MUST was failed, or nobody answered, from the first case on
or from a later one; 2 wrong usage; 130 or 143 interrupted (SIGINT, SIGTERM),
after the report so far.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from pyvnet.capture import Writer
from pyvnet.conformance import report as show
from pyvnet.conformance.cases import everything, select
from pyvnet.conformance.life import BOUND
from pyvnet.conformance.run import TIMEOUT, Runner
from pyvnet.conformance.target import BUILTIN, VhostUser, check_name
from pyvnet.conformance.wires import NONE, open_wire
from pyvnet.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from pyvnet.conformance.run import Report, Result
    from pyvnet.conformance.target import Target

_PAIRS: Final = 4
_SHARED_TIMEOUT: Final = 10.0
_MAX_SECONDS: Final = 3600.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command and its options."""
    parser = subparsers.add_parser(
        "conformance",
        help="does a back-end do what the standard asks",
        description="Run the conformance suite against a virtio-net back-end.",
    )
    parser.add_argument(
        "target", metavar="TARGET", nargs="?", help=f"vhost-user:PATH, or {BUILTIN}: our own"
    )
    parser.add_argument(
        "--wire",
        metavar="WIRE",
        default=None,
        help="the other side of the device: none (default), tap:NAME, vhost-user:PATH or reflect",
    )
    parser.add_argument(
        "--only",
        metavar="NAME,…",
        type=_words,
        action="extend",
        help="cases, groups of cases or requirement ids",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help="for each case (2; 10 for builtin, whose cases share a processor); a back-end that"
        f" answers nothing any more ends the run in {BOUND} times as long at most",
    )
    parser.add_argument(
        "--control-queue",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether the back-end serves it; some leave it to their VMM (auto: try)",
    )
    parser.add_argument(
        "--pairs",
        metavar="N",
        type=int,
        default=_PAIRS,
        help="queue pairs to assume where the back-end has no configuration space (4)",
    )
    parser.add_argument(
        "--hostile", action="store_true", help="run cases that may bring a weak back-end down too"
    )
    parser.add_argument(
        "--capture", metavar="FILE", help="write every frame the cases' drivers see, as pcapng"
    )
    parser.add_argument("--list", action="store_true", help="show the cases and stop")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="write JUnit XML to FILE")


def _words(text: str) -> list[str]:
    if words := [word for word in (part.strip() for part in text.split(",")) if word]:
        return words
    raise argparse.ArgumentTypeError("no name in it")


def run(args: argparse.Namespace) -> int:
    """Run the cases and report; returns the exit status."""
    cases = select(args.only) if args.only else everything()
    if args.list:
        if args.json:
            print(json.dumps(show.listing_as_json(cases), indent=2))
        else:
            print("\n".join(show.listing(cases)))
        return 0
    if args.target is None:
        raise UsageError(f"what is to be judged? name a TARGET: vhost-user:PATH or {BUILTIN}")
    timeout = _timeout(args)
    if not 0 < timeout <= _MAX_SECONDS:
        raise UsageError(f"--timeout {timeout}: take more than 0 and up to {_MAX_SECONDS:.0f}")
    if not 1 <= args.pairs <= 127:
        raise UsageError(f"--pairs {args.pairs}: take 1 to 127")
    if args.junit is not None and str(args.junit) == args.capture:
        raise UsageError(f"--junit and --capture name one file: {args.junit}")
    target = _target(args)
    if args.junit is not None:  # refused now, and not after the run
        _write(args.junit, "", "a")
    capture = None if args.capture is None else Writer(args.capture, comment=args.target)
    runner = Runner(
        target,
        timeout=timeout,
        control_queue=args.control_queue,
        hostile=args.hostile,
        on_result=None if args.json else _print,
        capture=capture,
    )
    with capture or contextlib.nullcontext(), _silence(args):
        stopped_by = uvloop.run(_until_stopped(runner.run(cases)))
    _tell(args, runner.report)
    return 128 + stopped_by if stopped_by else runner.report.exit_status


async def _until_stopped(run: Coroutine[Any, Any, object]) -> int:
    """Wait for the end of a run; returns the signal that ended it early, or 0."""
    task, loop = asyncio.ensure_future(run), asyncio.get_running_loop()
    stopped_by: list[int] = []

    def stop(number: int) -> None:
        stopped_by.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped_by:
            raise
        return stopped_by[0]
    return 0


@contextlib.contextmanager
def _silence(args: argparse.Namespace) -> Iterator[None]:
    """Our own device has its say in the report, and none in the log but for --debug."""
    log = logging.getLogger("pyvnet")
    before = log.level
    if not args.debug:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _timeout(args: argparse.Namespace) -> float:
    if args.timeout is not None:
        return float(args.timeout)
    return _SHARED_TIMEOUT if args.target == BUILTIN else TIMEOUT


def _target(args: argparse.Namespace) -> Target:
    check_name(args.target)
    if args.target == BUILTIN:
        if args.wire is not None:
            raise UsageError(f"{BUILTIN} has a wire of its own; leave --wire away")
        from pyvnet.conformance.builtin import Builtin

        return Builtin()
    return VhostUser(args.target, open_wire(args.wire or NONE), pairs=args.pairs)


def _print(result: Result) -> None:
    if result.tried:  # the others are one line of the summary
        print("\n".join(show.lines(result)), flush=True)


def _tell(args: argparse.Namespace, report: Report) -> None:
    if args.json:
        print(json.dumps(show.as_json(report), indent=2))
    else:
        print("\n".join(show.summary(report)))
    if args.junit is not None:
        _write(args.junit, show.as_junit(report))


def _write(path: Path, text: str, mode: str = "w") -> None:
    try:
        with path.open(mode, encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise HostError(f"cannot write {path}", error.errno) from error
