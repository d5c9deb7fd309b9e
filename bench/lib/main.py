# SPDX-License-Identifier: MIT
"""``pyvnet bench`` from a source checkout; the command line is daemon/commands/bench.py."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.lib import report
from bench.lib.harness import Plan, measure, say
from bench.lib.machine import describe, reserved_hugepages
from bench.lib.record import joined, read, write
from bench.lib.room import Cpus
from bench.lib.row import Row
from pyvnet.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

FOLDER: Final = Path(__file__).resolve().parents[1]
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def rows(folder: Path = FOLDER) -> list[Row]:
    """Every row of the folder, in order.

    Raises:
        UsageError: a row file declares nothing, or nonsense.
    """
    found: dict[int, Row] = {}
    for path in sorted(folder.glob("row[0-9]*.py")):
        row = getattr(import_module(f"{folder.name}.{path.stem}"), "ROW", None)
        if not isinstance(row, Row):
            raise UsageError(f"{path.name} has no ROW")
        if problems := row.problems():
            raise UsageError(f"{path.name}: {'; '.join(problems)}")
        if row.number in found:
            raise UsageError(f"{path.name}: row {row.number} is there already")
        found[row.number] = row
    return [found[number] for number in sorted(found)]


def chosen(every: Sequence[Row], wanted: str | None) -> list[Row]:
    """Those of ``1,3,5-7``; all of them for None.

    Raises:
        UsageError: no such row, or not a list of rows.
    """
    if wanted is None:
        return list(every)
    numbers: set[int] = set()
    for part in wanted.split(","):
        match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part)
        if not match:
            raise UsageError(f"--rows {wanted}: write it like 1,3,5-7; --list shows them")
        numbers |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    known = {row.number for row in every}
    if strangers := sorted(numbers - known):
        raise UsageError(f"--rows {wanted}: there is no row {strangers[0]}; --list shows them")
    return [row for row in every if row.number in numbers]


def run(args: argparse.Namespace, every: Sequence[Row] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    selected = chosen(rows() if every is None else every, args.rows)
    if args.list:
        _list(selected, as_json=args.json)
        return 0
    if args.plot:
        from bench.lib.plot import require

        require()
    if args.rounds is not None and not 1 <= args.rounds <= 1000:
        raise UsageError(f"--rounds {args.rounds}: take 1 to 1000")
    # Rows asked for by number leave the others of the record as they are.
    kept = read(args.record) if args.record and args.rows and args.record.exists() else None
    if args.replay:
        document, failed = read(args.replay), list[str]()
    else:
        document, failed = _measure(selected, Plan(args.quick, args.rounds))
    if args.record:
        write(joined(kept, document) if kept else document, args.record)
    if args.plot:
        from bench.lib.plot import draw

        draw(document, args.plot)
    if args.json:
        print(json.dumps(document, indent=1))
    else:
        print("\n".join(report.lines(document)))
    for line in failed:
        print(f"pyvnet bench: {line}", file=sys.stderr)
    return 1 if failed else 0


def _measure(selected: Sequence[Row], plan: Plan) -> tuple[dict[str, Any], list[str]]:
    began = time.monotonic()
    cpus = Cpus.choose()
    machine = describe(cpus)
    if cpus.backend == cpus.frontend:
        say("one CPU only: back-end and front-end share it, and figures are not comparable")
    with interruptible(), reserved_hugepages(max(map(hugepages_of, selected), default=0)):
        answers = [measure(row, plan, cpus) for row in selected]
    failed = [
        f"row {answer.row.number}: {taken.variant.name} was not measured: "
        + (taken.missing or "; ".join(taken.errors))
        for answer in answers
        for taken in answer.failed
    ]
    seconds = time.monotonic() - began
    return report.document(machine, answers, quick=plan.quick, seconds=seconds), failed


def hugepages_of(row: Row) -> int:
    """MiB that a row takes at the same time: of all its variants where it keeps them."""
    each = [sum(need.hugepages for need in variant.needs) for variant in row.variants]
    return (sum if row.keep else max)(each)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT, SIGTERM or SIGHUP ends the run once; while it is tidied up, no other disturbs."""

    def stop(*_: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _list(selected: Sequence[Row], *, as_json: bool) -> None:
    if as_json:
        listed = [
            {
                "row": row.number,
                "question": row.question,
                "meaning": row.meaning,
                "variants": [variant.name for variant in row.variants],
            }
            for row in selected
        ]
        print(json.dumps(listed, indent=1))
        return
    for row in selected:
        print(f"{row.number:>3}  {row.question}")
        print(f"     {', '.join(variant.name for variant in row.variants)}")
