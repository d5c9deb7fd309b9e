# SPDX-License-Identifier: MIT
"""docs/conformance.md: its example is a case that judges, its commands and names are real."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pyvnet.conformance.builtin import Builtin
from pyvnet.conformance.case import Case, Verdict
from pyvnet.conformance.cases import everything
from pyvnet.conformance.ids import table
from pyvnet.conformance.run import suite
from pyvnet.daemon.cli import _parser
from pyvnet.datapath.native import Native
from pyvnet.device.device import DEFAULT_OFFER
from pyvnet.spec.features import Feature

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs/conformance.md").read_text()
COMMANDS = re.findall(r"^    pyvnet (conformance[^#\n]*)", TEXT, re.MULTILINE)
WITHIN = 20.0


@cache
def example() -> Case:
    (source,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    module = ModuleType("example")
    exec(compile(source, "docs/conformance.md", "exec"), vars(module))  # noqa: S102 (our own words)
    (case,) = (value for value in vars(module).values() if isinstance(value, Case))
    return case


async def verdict(target: Builtin) -> tuple[Verdict, str]:
    (result,) = await suite(target, [example()], timeout=WITHIN, control_queue="yes")
    return result.verdict, result.reason


async def test_the_example_passes_on_our_device() -> None:
    assert await verdict(Builtin()) == (Verdict.PASSED, "")


async def test_the_example_does_not_apply_without_rss() -> None:
    found, why = await verdict(Builtin(features=DEFAULT_OFFER & ~Feature.RSS))
    assert (found, why) == (Verdict.NOT_APPLICABLE, "not offered: rss")


async def test_the_example_fails_where_the_table_takes_everything(
    native_hooks: tuple[Any, Any],
) -> None:
    native = Native(*native_hooks)
    native.lib.vnet_test_mutant(b"UNCLASSIFIED_BY_TABLE")
    try:
        found, why = await verdict(Builtin(native=native))
    finally:
        native.lib.vnet_test_mutant(b"")
    assert found is Verdict.FAILED
    assert why == "receiveq of a frame without hash: expected 1, seen 0"


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str) -> None:
    options = _parser(words := shlex.split(command)).parse_args(words)
    assert set(options.only or ()) <= {case.name for case in everything()}


def test_names_and_ids_exist() -> None:
    ids = set(re.findall(r"\b(?:NET|VIO|OUR|VHU)-[A-Z]+-\d+\b|\bU-\d+\b", TEXT))
    assert ids
    assert ids <= set(table())
    for name in re.findall(r"`((?:src|tests)/[\w/.]+)`", TEXT):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\(([\w./-]+)\)", TEXT):
        assert (ROOT / "docs" / name).exists(), name


def test_what_no_case_judges_is_listed() -> None:
    """Each id once: with a case, or in the table with the reason there is none."""
    section = TEXT.partition("## What no case judges")[2].partition("\n## ")[0]
    listed: list[str] = []
    for cell in re.findall(r"^\| ([A-Z].*?) \|", section, re.MULTILINE):
        for word in cell.split(", "):
            named = re.compile(re.escape(word).replace(r"\\\*", r"\d+"))
            matching = [row for row in table() if named.fullmatch(row)]
            assert matching, word
            listed += matching
    assert len(set(listed)) == len(listed)
    cited = {row for case in everything() for row in case.ids}
    assert sorted(listed) == sorted(set(table()) - cited)
