# SPDX-License-Identifier: MIT
"""Levels and titles of the ids cases cite: docs/requirements.md and docs/decisions.md, shipped.

``ids.tsv`` is written by ``make gen`` from the documents.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

DECISION: Final = "DECISION"
# Strongest first; what a level is made of decides where it stands ("SHOULD / MUST" is a MUST).
_ORDER: Final = ("MUST", "SHOULD", "DESC", "DRV", "MAY", "OUR", DECISION)


class Requirement(NamedTuple):
    """One row: what is asked for, in our words, and how strongly."""

    id: str
    level: str
    section: str
    title: str

    @property
    def rank(self) -> int:
        """Place in the order of levels; 0 is a MUST."""
        return next((i for i, word in enumerate(_ORDER) if word in self.level), len(_ORDER))


@cache
def table() -> dict[str, Requirement]:
    """Every id a case may cite."""
    text = (files(__package__) / "ids.tsv").read_text("utf-8")
    rows = (Requirement(*line.split("\t")) for line in text.splitlines())
    return {row.id: row for row in rows}


def strongest(ids: tuple[str, ...]) -> str:
    """The plain level (``MUST``, ``SHOULD``, …) of the strongest of some ids."""
    rank = min((table()[row].rank for row in ids), default=len(_ORDER))
    return _ORDER[min(rank, len(_ORDER) - 1)]
