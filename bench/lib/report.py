# SPDX-License-Identifier: MIT
"""The document of a run, and the table made from it.

The table is made from the document alone, so that one can be made from a
recorded run as well.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any, Final

from bench.lib import stats
from bench.lib.steal import ALLOWED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.lib.harness import Answer, Reading, Taken
    from bench.lib.row import Figure

VERSION: Final = 1
_DIGITS: Final = 3


def document(
    machine: dict[str, Any], answers: Sequence[Answer], *, quick: bool, seconds: float
) -> dict[str, Any]:
    """What ``--json`` prints: the machine, and per row the rounds, medians and goals."""
    return {
        "version": VERSION,
        "machine": machine,
        "quick": quick,
        "seconds": round(seconds, 1),
        "rows": [_row(answer) for answer in answers],
    }


def _row(answer: Answer) -> dict[str, Any]:
    row = answer.row
    return {
        "row": row.number,
        "question": row.question,
        "meaning": row.meaning,
        "figures": [
            {"name": figure.name, "unit": figure.unit, "better": figure.better}
            for figure in row.figures
        ],
        "seconds": round(answer.seconds, 1),
        "variants": [_variant(taken, row.figures) for taken in answer.taken],
        "goals": [_goal(reading) for reading in answer.readings],
    }


def _variant(taken: Taken, figures: Iterable[Figure]) -> dict[str, Any]:
    summary = {}
    for figure in figures:
        if values := taken.known(figure.name):
            median, low, high = stats.spread(values)
            summary[figure.name] = {"median": median, "quartiles": [low, high]}
    return {
        "name": taken.variant.name,
        "ours": taken.variant.ours,
        "missing": taken.missing,
        "errors": taken.errors,
        "rounds": [None if seen is None else dict(seen) for seen in taken.rounds],
        "summary": summary,
        "steal": [round(share, 3) for share in taken.steal],
        "taken_again": taken.again,
    }


def _goal(reading: Reading) -> dict[str, Any]:
    goal, interval = reading.goal, reading.interval
    return {
        "figure": goal.figure,
        "of": goal.of,
        "to": goal.to,
        "at_least": goal.at_least,
        "at_most": goal.at_most,
        "stretch": goal.stretch,
        "reaching": goal.reaching,
        "median": None if interval is None else interval.median,
        "interval": None if interval is None else [interval.low, interval.high],
        "verdict": reading.verdict or None,
        "stretch_verdict": reading.stretch,
        "why": reading.why,
    }


# Text.


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    text = f"{value:.{_DIGITS}g}"
    return f"{value:.6f}" if "e" in text else text


def lines(document: dict[str, Any]) -> Iterator[str]:
    """The run as text."""
    yield from machine_lines(document)
    for row in document["rows"]:
        yield ""
        yield f"{row['row']}. {row['question']}"
        yield f"   {row['meaning']}"
        if "machine" in row:
            yield from (f"   {line}" for line in machine_lines(row))
        yield from (f"   {line}" for line in table(variant_cells(row)))
        yield from (f"   {line}" for line in goal_lines(row))


def machine_lines(document: dict[str, Any]) -> Iterator[str]:
    """Where and when: of a run, or of a row that was recorded apart from the others."""
    machine = document["machine"]
    flags = ", ".join(machine["cpu_flags"])
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    yield f"pyvnet {machine['pyvnet']} ({machine['commit']}), {machine['date']}"
    yield f"{machine['cpu']} ({flags}), {machine['cpus']} CPUs, Linux {machine['kernel']}"
    yield (
        f"back-end on CPU {machine['backend_cpu']}, front-end and generator on CPU "
        f"{machine['frontend_cpu']}, load before {machine['load']}; {packages}"
    )
    if machine["mitigations"]:
        yield f"mitigations: {'; '.join(machine['mitigations'])}"
    if document["quick"]:
        yield "a quick run: short measurements, few rounds"


def variant_cells(row: dict[str, Any]) -> list[list[str]]:
    """The table of a row: a heading, then a line for each variant; what is missing is last."""
    heads = [f"{figure['name'].replace('_', ' ')}, {figure['unit']}" for figure in row["figures"]]
    cells = [["", *(word for head in heads for word in (head, "quartiles")), "rounds"]]
    for variant in row["variants"]:
        line = [variant["name"]]
        for figure in row["figures"]:
            seen = variant["summary"].get(figure["name"])
            low, high = seen["quartiles"] if seen else (0, 0)
            line += (
                [number(seen["median"]), f"{number(low)} – {number(high)}"] if seen else ["", ""]
            )
        line.append(str(sum(seen is not None for seen in variant["rounds"])))
        cells.append(line)
    return cells


def goal_lines(row: dict[str, Any]) -> Iterator[str]:
    """A line for each goal, and one for each variant that was left out or failed."""
    for goal in row["goals"]:
        yield goal_line(goal)
    for variant in row["variants"]:
        if variant["missing"]:
            yield f"{variant['name']} left out: {variant['missing']}"
        for error in variant["errors"]:
            yield f"{variant['name']} failed: {error}"
    if line := steal_line(row):
        yield line


def steal_line(row: dict[str, Any]) -> str:
    """What the host took away while the row was measured; empty: too little to matter."""
    again = sum(variant.get("taken_again", 0) for variant in row["variants"])
    shares = [share for variant in row["variants"] for share in variant.get("steal", ())]
    disturbed = sum(share > ALLOWED for share in shares)
    if not again and not disturbed:
        return ""
    return (
        f"other guests of the host took CPU time: {again} readings were taken again, and of the "
        f"{len(shares)} that count {disturbed} lost more than {ALLOWED:.0%}"
    )


def goal_line(goal: dict[str, Any]) -> str:
    """A goal and its reading."""
    bound = goal["at_least"] if goal["at_least"] is not None else goal["at_most"]
    sign = "≥" if goal["at_least"] is not None else "≤"
    unit = " ×" if goal["to"] else ""
    what = f"{goal['of']} / {goal['to']}" if goal["to"] else goal["of"]
    text = f"{goal['figure'].replace('_', ' ')}, {what}: "
    if goal["interval"] is None:
        return f"{text}{sign} {number(bound)}{unit} not read: {goal['why']}"
    low, high = goal["interval"]
    text += f"{number(goal['median'])}{unit} [{number(low)}, {number(high)}]"
    text += f", goal {sign} {number(bound)}{unit}: {goal['verdict']}"
    if goal["stretch"] is not None:
        text += f"; stretch {sign} {number(goal['stretch'])}{unit}: {goal['stretch_verdict']}"
    return text


def table(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns aligned: the first to the left, the others to the right."""
    widths = [max(_width(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        first = row[0] + " " * (widths[0] - _width(row[0]))
        rest = [
            " " * (width - _width(cell)) + cell for cell, width in zip(row, widths, strict=True)
        ]
        yield "  ".join([first, *rest[1:]]).rstrip()


def _width(text: str) -> int:
    return sum(1 for letter in text if not unicodedata.combining(letter))
