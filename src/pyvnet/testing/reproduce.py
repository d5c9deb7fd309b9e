# SPDX-License-Identifier: MIT
"""One line that fails as a random test failed.

Two kinds of tests are random:

`vnet_random`, `vnet_seed`
  The first is seeded by the second and the name of the test, so a test sees the
  same numbers alone as among others.  Without `--vnet-seed` the run chooses one.

hypothesis
  A seed is not enough here: what is drawn depends on which modules are loaded
  as well, and with one test alone fewer are.  So hypothesis is asked for the
  failing example itself (``print_blob``), and `--vnet-example` plays that one.
  Only where it has none to give (a failure that came and went) its seed stands
  in the line.  Concerns tests that use a fixture of ours and modules that
  import pyvnet; nobody else's suite is touched.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What the line leaves out of the command that was given: how much is shown, how many run.
_FLAGS: Final = re.compile(
    r"-[qvxlsh]+$|-r\w*$|-n\w+$|--(lf|ff|sw|nf|last-failed|failed-first|stepwise|new-first|exitfirst|"
    r"verbose|quiet|showlocals|no-loadscope-reorder|pdb|no-header|no-summary|once)$|"
    r"--(tb|color|durations|maxfail|junit-?xml|numprocesses|dist|maxprocesses|deselect|ignore|"
    r"vnet-seed|vnet-example|show-capture|verbosity)="
)
_WITH_VALUE: Final = (
    *("-k", "-n", "--tb", "--color", "--durations", "--maxfail", "--junitxml", "--numprocesses"),
    *("--dist", "--maxprocesses", "--deselect", "--ignore", "--vnet-seed", "--vnet-example"),
    "--show-capture",
)
_BLOB: Final = re.compile(r"@reproduce_failure\('([^']+)', b'([^']+)'\)")


def check_example(items: Sequence[pytest.Item], example: str) -> None:
    """Raise UsageError unless there is one test to play it, and it looks like one."""
    functions = {id(item.function) for item in items if _concerns(item)}  # type: ignore[attr-defined]
    if len(functions) != 1:
        raise pytest.UsageError(
            f"--vnet-example is played by one hypothesis test, not by {len(functions)}: name it"
        )
    if not re.fullmatch(r"[\w.]+:[\w+/=-]+", example):
        raise pytest.UsageError("--vnet-example is VERSION:EXAMPLE, as a failure prints it")


def prepare(item: pytest.Item) -> None:
    """Have hypothesis say its failing example, or play the one that was asked for."""
    if not _concerns(item):
        return
    from hypothesis import reproduce_failure, settings

    target = _hypothesis_target(item)
    if target is None:
        return
    holder, name, test = target
    current = getattr(holder, name, None)
    if isinstance(current, settings) and not current.print_blob:
        setattr(holder, name, settings(current, print_blob=True))
    if example := item.config.getoption("--vnet-example"):
        version, _, blob = example.partition(":")
        reproduce_failure(version, blob.encode())(test)


def how(item: pytest.Item, error: BaseException) -> list[str] | None:
    """Options under which the item fails once more; None: it is not random."""
    options = []
    if "vnet_seed" in getattr(item, "fixturenames", ()):
        options.append(f"--vnet-seed={item.config.getoption('--vnet-seed')}")
    elif not _concerns(item):
        return None
    if not _concerns(item):
        return options
    for said in _everything_said(error):
        if found := _BLOB.search(said):
            return [*options, f"--vnet-example={found[1]}:{found[2]}"]
    seed = getattr(item.function, "_hypothesis_internal_use_generated_seed", None)  # type: ignore[attr-defined]
    return [*options, *([] if seed is None else [f"--hypothesis-seed={seed}"])]


def line(config: pytest.Config, nodeid: str, options: Sequence[str]) -> str:
    """The command, to be run where this one was."""
    place, separator, rest = nodeid.partition("::")
    path = os.path.relpath(config.rootpath / place, config.invocation_params.dir)
    test = f"{path}{separator}{rest}"
    return shlex.join([*_pytest(), *_given(config), test, *options])


def _pytest() -> list[str]:
    """How pytest was started."""
    if Path(sys.argv[0]).name == "__main__.py":
        return [sys.orig_argv[0], "-m", "pytest"]
    if Path(sys.argv[0]).name != "pytest" or shutil.which("pytest") == sys.argv[0]:
        return ["pytest"]
    return [sys.argv[0]]


def _given(config: pytest.Config) -> Iterator[str]:
    """The options that were given, as far as they matter to one test."""
    words = iter(map(str, config.invocation_params.args))
    for word in words:
        if word in _WITH_VALUE:
            next(words, None)
        elif word not in config.args and not _FLAGS.match(word):
            yield word


def _concerns(item: pytest.Item) -> bool:
    """A hypothesis test, of those we may touch."""
    function = getattr(item, "function", None)
    if not getattr(function, "is_hypothesis_test", False):
        return False
    if any(name.startswith("vnet") for name in getattr(item, "fixturenames", ())):
        return True
    module = getattr(item, "module", None)
    return any(map(_ours, vars(module).values())) if module else False


def _ours(value: Any) -> bool:
    home = getattr(value, "__module__", None) or getattr(value, "__name__", None)
    return isinstance(home, str) and home.partition(".")[0] == "pyvnet"


def _hypothesis_target(item: Any) -> tuple[Any, str, Any] | None:
    """Where its settings are, under which name, and what a failing example is given to."""
    function = item.function
    machine = getattr(function, "_hypothesis_state_machine_class", None)
    if machine is not None:
        return item.cls, "settings", machine
    function = getattr(function, "__func__", function)
    return function, "_hypothesis_internal_use_settings", function


def _everything_said(error: BaseException) -> Iterator[str]:
    yield from getattr(error, "__notes__", ())
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _everything_said(one)
