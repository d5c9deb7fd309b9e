# SPDX-License-Identifier: MIT
# ruff: noqa: INP001 - a script, not a package
"""Seed inputs of fuzz_parse.c: frames of the coverage matrix, uncut and as planned.

Run from the root of the repository: python -m native.fuzz.make_corpus

The inputs are committed, so that replaying them needs no Python.
"""

from __future__ import annotations

import hashlib
import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from tests.differential.axes import AXES, HASHED, PORTS, Planner
from tests.differential.cases import build_case

if TYPE_CHECKING:
    from tests.differential.cases import Case

DIRECTORY = Path(__file__).parent / "corpus" / "parse"
# The first plans of a covering array cover the most pairs each.
COUNTS = ((AXES, 50), (HASHED, 60), (PORTS, 60))


def pack(case: Case) -> bytes:
    """An input: hash types and order, where to cut, the whole frame."""
    options = case.hash_types | case.ex_types_always << 15
    return struct.pack("<HH", options, len(case.data)) + case.frame.data


def main() -> None:
    """Replace the corpus."""
    rng = random.Random(26)  # noqa: S311 - the same files every time
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for old in DIRECTORY.iterdir():
        old.unlink()
    for axes, count in COUNTS:
        for plan in Planner(rng, axes).covering_array()[:count]:
            data = pack(build_case(plan, rng))
            name = hashlib.sha256(data).hexdigest()[:16]
            (DIRECTORY / name).write_bytes(data)


if __name__ == "__main__":
    main()
