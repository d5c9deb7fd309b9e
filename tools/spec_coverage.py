# SPDX-License-Identifier: MIT
"""Write docs/spec-coverage.md: every id we answer for → the tests that keep it, or why none does.

Ids come from three tables: docs/requirements.md, docs/decisions.md and
docs/peer-faults.md.  Tests cite them with the marker
`pytest.mark.requirement("…")` on a function, a class, one parameter set or
(pytestmark) a module; a C fuzz target with `requirement(ID, ID)` in a comment.
What nothing keeps has a reason in docs/spec-coverage.toml.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "docs/spec-coverage.md"
REASONS = ROOT / "docs/spec-coverage.toml"
MISSING = "**missing**"
TABLES = ("requirements.md", "decisions.md", "peer-faults.md")
_ID = re.compile(r"(?:VIO|NET|OUR|VHU)-[A-Z]+-\d\d|U-\d\d|PF-[A-H]-\d\d|CVE-\d{4}-\d+(?:-[a-z])?")


@dataclass(frozen=True, slots=True)
class Row:
    """One id, the document that defines it, and its level ("" where the table has none)."""

    id: str
    document: str
    level: str


@dataclass(slots=True)
class Coverage:
    """Everything known about the ids, and what is wrong with it."""

    rows: dict[str, Row] = field(default_factory=dict)
    tests: dict[str, list[str]] = field(default_factory=dict)
    later: dict[str, str] = field(default_factory=dict)
    not_applicable: dict[str, str] = field(default_factory=dict)
    feature: dict[str, str] = field(default_factory=dict)
    offered: frozenset[str] = frozenset()
    problems: list[str] = field(default_factory=list)


def known_rows() -> dict[str, Row]:
    """Return every id of the three tables, in their order.

    Raises:
        ValueError: an id is defined twice.
    """
    rows: dict[str, Row] = {}
    for document in TABLES:
        for line in (ROOT / "docs" / document).read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if not line.startswith("| ") or not _ID.fullmatch(cells[0]):
                continue
            if cells[0] in rows:
                raise ValueError(f"{document}: {cells[0]} is defined twice")
            level = cells[-1] if document == "requirements.md" else ""
            rows[cells[0]] = Row(cells[0], document, level)
    return rows


def _cited_in_tests() -> Iterator[tuple[str, str]]:
    """Yield (id, test) as pytest sees the markers; tests/conftest.py writes them down."""
    # Nothing runs, so no sanitizer and no other build of the extension is wanted here.
    sanitizing = ("LD_PRELOAD", "PYVNET_NATIVE", "PYTHONMALLOC")
    environment = {k: v for k, v in os.environ.items() if k not in sanitizing}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "cited.json")
        pytest = [sys.executable, "-m", "pytest", "-qq", "--collect-only", "-p", "no:cacheprovider"]
        result = subprocess.run(  # noqa: S603 our own interpreter on our own tests
            [*pytest, f"--requirements-to={target}", str(ROOT / "tests")],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise ValueError(f"the tests cannot be collected:\n{result.stdout}{result.stderr}")
        for test, ids in json.loads(target.read_text()).items():
            for cited_id in ids:
                yield cited_id, test


def _cited_in_fuzzers(path: Path) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"\brequirement\(([^)]*)\)", path.read_text()):
        for cited in re.split(r"[\s,*]+", match[1].strip()):
            yield cited, path.relative_to(ROOT).as_posix()


def cited() -> Iterator[tuple[str, str]]:
    """Yield (id, place) for every citation in tests and fuzz targets.

    Raises:
        ValueError: pytest cannot collect the tests.
    """
    yield from _cited_in_tests()
    for path in sorted((ROOT / "native/fuzz").glob("fuzz_*.c")):
        yield from _cited_in_fuzzers(path)


def collect() -> Coverage:
    """Read tables, tests and reasons; contradictions end up in `problems`."""
    coverage = Coverage(rows=known_rows())
    for cited_id, place in cited():
        if cited_id not in coverage.rows:
            coverage.problems.append(f"{place} cites {cited_id}, which no table defines")
            continue
        places = coverage.tests.setdefault(cited_id, [])
        if place not in places:
            places.append(place)
    reasons = tomllib.loads(REASONS.read_text())
    coverage.offered = frozenset(reasons["features"]["offered"])
    for feature, ids in reasons["features"]["musts"].items():
        _put(coverage, coverage.feature, dict.fromkeys(ids, feature))
    for subject, ids in reasons["later"].items():
        _put(coverage, coverage.later, dict.fromkeys(ids, subject))
    _put(coverage, coverage.not_applicable, reasons["not_applicable"])
    coverage.problems += chain(_unmapped(coverage), _musts(coverage))
    return coverage


def _put(coverage: Coverage, table: dict[str, str], entries: dict[str, str]) -> None:
    for entry, reason in entries.items():
        if entry not in coverage.rows:
            coverage.problems.append(f"{REASONS.name} names {entry}, which no table defines")
        if entry in table:
            coverage.problems.append(f"{REASONS.name} names {entry} twice")
        table[entry] = reason


def _unmapped(coverage: Coverage) -> Iterator[str]:
    for row in coverage.rows:
        if row in coverage.not_applicable and (row in coverage.tests or row in coverage.later):
            yield f"{row}: not applicable, and yet tested or planned"
        elif answer(coverage, row) == MISSING:
            yield f"{row}: no test cites it and {REASONS.name} gives no reason"


def _musts(coverage: Coverage) -> Iterator[str]:
    for row in coverage.rows.values():
        if "MUST" not in row.level:
            continue
        feature = coverage.feature.get(row.id)
        if feature is None:
            yield f"{row.id}: a MUST without a feature in {REASONS.name}"
        elif feature in coverage.offered and row.id in coverage.later:
            yield f"{row.id}: a MUST of {feature}, which is offered, cannot be later"


def answer(coverage: Coverage, row: str) -> str:
    """Return the last column of one id's line."""
    tests = "<br>".join(f"`{place}`" for place in coverage.tests.get(row, []))
    if row in coverage.later:
        return f"{tests}<br>the rest " * bool(tests) + f"later: {coverage.later[row]}"
    if row in coverage.not_applicable:
        return f"not applicable: {coverage.not_applicable[row]}"
    return tests or MISSING


def counts(coverage: Coverage, ids: list[str]) -> list[int]:
    """Return how many ids are tested, tested in part, for later, not applicable."""
    tested = {row for row in ids if row in coverage.tests}
    later = {row for row in ids if row in coverage.later}
    none = {row for row in ids if row in coverage.not_applicable}
    return [len(tested - later), len(tested & later), len(later - tested), len(none)]


def render(coverage: Coverage) -> str:
    """Return the text of docs/spec-coverage.md."""
    lines = [
        "# Which test keeps which promise",
        "",
        "Generated by `make coverage-doc`; do not edit. The three documents define the ids;",
        "what has no test has its reason in [spec-coverage.toml](spec-coverage.toml).",
        "",
        "| document | ids | tested | in part | later | not applicable |",
        "|---|---|---|---|---|---|",
    ]
    for document in TABLES:
        ids = [row.id for row in coverage.rows.values() if row.document == document]
        lines.append(
            f"| [{document}]({document}) | {len(ids)} | "
            + " | ".join(map(str, counts(coverage, ids)))
            + " |"
        )
    for document in TABLES:
        lines += ["", f"## {document}", "", "| id | level | kept by |", "|---|---|---|"]
        lines += [
            f"| {row.id} | {row.level} | {answer(coverage, row.id)} |"
            for row in coverage.rows.values()
            if row.document == document
        ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the document; with --check compare instead. Status 1: out of date, or problems."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    coverage = collect()
    text = render(coverage)
    if not check:
        OUTPUT.write_text(text)
    elif OUTPUT.read_text() != text:
        coverage.problems.append(f"{OUTPUT.name} is out of date: make coverage-doc")
    for problem in coverage.problems:
        print(problem, file=sys.stderr)
    return 1 if coverage.problems else 0


if __name__ == "__main__":
    sys.exit(main())
