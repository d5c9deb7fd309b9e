# SPDX-License-Identifier: MIT
"""The cases, one module per subject; every `Case` at the top of a module here is in the suite."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from pyvnet.conformance.case import Case
from pyvnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@cache
def everything() -> tuple[Case, ...]:
    """All cases, by module and then as they stand there.

    Raises:
        UsageError: two have the same name.
    """
    cases: dict[str, Case] = {}
    for module in sorted(info.name for info in iter_modules(__path__)):
        for case in _of(vars(import_module(f"{__name__}.{module}"))):
            if cases.setdefault(case.name, case) is not case:
                raise UsageError(f"two cases are called {case.name}")
    return tuple(cases.values())


def _of(module: dict[str, object]) -> Iterator[Case]:
    """Cases of a module, also those in a list or tuple of them."""
    for value in module.values():
        if isinstance(value, Case):
            yield value
        elif isinstance(value, list | tuple):
            yield from (entry for entry in value if isinstance(entry, Case))


def select(words: Sequence[str]) -> tuple[Case, ...]:
    """Cases that are called so, stand in a module called so or cite an id called so.

    Raises:
        UsageError: a word fits nothing.
    """
    chosen = set()
    for word in words:
        fitting = {
            case.name
            for case in everything()
            if word in {case.name, case.group} or word.upper() in case.ids
        }
        if not fitting:
            raise UsageError(f"no case, group or requirement is called {word!r} (--list)")
        chosen |= fitting
    return tuple(case for case in everything() if case.name in chosen)
