# SPDX-License-Identifier: MIT
"""A recorded run: FILE.json, and FILE.md and FILE.svg made from it and from nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from bench.lib import plot, report
from pyvnet.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_INTRODUCTION: Final = """\
# Performance

Made from [{name}]({name}), one recorded run of `make bench`; not edited by hand.

- Figures of two machines, or of one machine on two days, are not comparable. **Ratios within one
  run are**: the variants of a question took turns, round by round, in changing order.
- Each figure is the median of its rounds, with first and third quartile. A ratio is the median of
  the rounds' ratios, with its 95 % bootstrap interval. A goal is *met* if the whole interval is
  within it, *missed* if all of it is outside, otherwise *inconclusive*.
- 64-byte frames unless said otherwise. One CPU belongs to the back-end, the other to front-end
  and generator.
- How each is measured: [bench/README.md](../bench/README.md), and the file of the question."""


def read(path: Path) -> dict[str, Any]:
    """A recorded document.

    Raises:
        HostError: it cannot be read.
        UsageError: it is no such document.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HostError(f"cannot read {path}", error.errno) from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("version") != report.VERSION:
        raise UsageError(f"{path} is not a record of this version of the benchmark")
    return document


def joined(kept: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """A record in which the rows of another run replace their like; each says where it is from."""
    own = {key: document[key] for key in ("machine", "quick")}
    measured = {row["row"]: {**row, **own} for row in document["rows"]}
    rows = {row["row"]: row for row in kept["rows"]} | measured
    return {**kept, "rows": [rows[number] for number in sorted(rows)]}


def write(document: dict[str, Any], path: Path) -> None:
    """Write FILE.json, FILE.md and FILE.svg.

    Raises:
        HostError: a file cannot be written, or matplotlib is missing.
    """
    plot.require()
    try:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(markdown(document, path.stem), encoding="utf-8")
    except OSError as error:
        raise HostError(f"cannot write the record {path}", error.errno) from error
    plot.draw(document, path.with_suffix(".svg"))


def markdown(document: dict[str, Any], stem: str) -> str:
    """The text of FILE.md."""
    return "\n".join(_lines(document, stem)) + "\n"


def _lines(document: dict[str, Any], stem: str) -> Iterator[str]:
    yield _INTRODUCTION.format(name=f"{stem}.json")
    yield ""
    yield f"![the first figure of each question]({stem}.svg)"
    yield ""
    for line in report.machine_lines(document):
        yield f"- {line}"
    for row in document["rows"]:
        yield ""
        yield f"## {row['row']}. {row['question']}"
        yield ""
        yield row["meaning"]
        yield ""
        if "machine" in row:
            yield "Of a run of its own:"
            yield ""
            for line in report.machine_lines(row):
                yield f"- {line}"
            yield ""
        heads, *cells = report.variant_cells(row)
        yield _cells(heads)
        yield _cells(["---", *("---:" for _ in heads[1:])])
        ours = {variant["name"] for variant in row["variants"] if variant["ours"]}
        for name, *rest in cells:
            yield _cells([f"**{name}**" if name in ours else name, *rest])
        yield ""
        for text in report.goal_lines(row):
            yield f"- {' '.join(text.split())}"


def _cells(words: list[str]) -> str:
    return f"| {' | '.join(word.replace('|', '/') for word in words)} |"
