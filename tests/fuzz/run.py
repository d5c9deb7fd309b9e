# SPDX-License-Identifier: MIT
"""Run the fuzz targets.

    python -m tests.fuzz.run replay            every corpus file once, as CI does
    python -m tests.fuzz.run NAME [OPTION…]    fuzz one target; libFuzzer's options

Fuzzing takes atheris (``pip install atheris``); replaying takes nothing.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TARGETS: Final = ("session", "control", "object")
CORPUS: Final = Path(__file__).parent / "corpus"


def target(name: str) -> Callable[[bytes], None]:
    """The function that takes one input."""
    check: Callable[[bytes], None] = importlib.import_module(f"tests.fuzz.{name}").check
    return check


def replay() -> None:
    """Every corpus file once; raises what a target raises, with a note naming the file."""
    for name in TARGETS:
        check = target(name)
        inputs = sorted((CORPUS / name).iterdir())
        for path in inputs:
            try:
                check(path.read_bytes())
            except BaseException as error:
                error.add_note(f"the input is {path}")
                raise
        sys.stdout.write(f"fuzz-replay: {name}: {len(inputs)} inputs\n")


def fuzz(name: str, options: Sequence[str]) -> None:
    """Let atheris look for inputs; does not return."""
    import atheris

    with atheris.instrument_imports(include=["pyvnet"]):
        check = target(name)
    atheris.Setup([sys.argv[0], *options], check)
    atheris.Fuzz()


def main() -> None:
    """See the module."""
    match sys.argv[1:]:
        case ["replay"]:
            replay()
        case [name, *options] if name in TARGETS:
            fuzz(name, options)
        case _:
            sys.exit(f"one of: replay, {', '.join(TARGETS)}")


if __name__ == "__main__":
    main()
