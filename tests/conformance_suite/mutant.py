# SPDX-License-Identifier: MIT
"""What a deliberate fault of our device is; how one is switched on is `mutants.py`'s."""

from __future__ import annotations

from typing import NamedTuple

from tests.spoilt import Fragment


class Mutant(NamedTuple):
    """One fault.

    Attributes:
        ids: requirements it violates; at least one case that fails with it cites one of them.
        why: what it does, and who must see it.
        faults: none: the one of its name in the engine.
    """

    ids: tuple[str, ...]
    why: str
    faults: tuple[Fragment, ...] = ()


def one(file: str, function: str, fragment: str, becomes: str) -> tuple[Fragment, ...]:
    """The fault is in one place."""
    return (Fragment(file, function, fragment, becomes),)
