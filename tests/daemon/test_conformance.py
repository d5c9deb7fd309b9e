# SPDX-License-Identifier: MIT
"""``pyvnet conformance``: what it prints, writes and returns."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from pyvnet.conformance.cases import everything
from pyvnet.daemon.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSES = ["conformance", "builtin", "--only", "version-1-is-offered,VIO-RST-01"]


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """The command lowers its own process's voice."""
    before = logging.getLogger("pyvnet").level
    yield
    logging.getLogger("pyvnet").setLevel(before)


def test_a_table_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(PASSES) == 0
    out, err = capsys.readouterr()
    assert "passed   MUST     version-1-is-offered  [VIO-FEAT-05 (MUST)]" in out
    assert "builtin: 4 queue pairs, control queue served, offers " in out
    assert "0 failed, 0 inconclusive, 0 not-applicable" in out
    assert err == ""


def test_json_and_junit_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "result.xml"
    assert main([*PASSES, "--json", "--junit", str(target)]) == 0
    told = json.loads(capsys.readouterr().out)
    root = ET.fromstring(target.read_text())  # noqa: S314 (our own)
    assert told["summary"]["passed"] == len(told["cases"]) == int(root.get("tests", "0")) >= 2


def test_a_list_needs_no_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {case.name}: " in out for case in everything())


def test_nobody_there_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--only", "initialization", "--timeout", "0.2"]
    assert main(["conformance", f"vhost-user:{tmp_path}/gone", *words]) == 1
    out = capsys.readouterr().out
    assert "nothing could be judged" in out
    assert "No such file or directory" in out


def test_a_report_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PASSES, "--junit", str(tmp_path / "no" / "x.xml")]) == 1
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "what is to be judged?"),
        (["eth0"], "'eth0' is no target"),
        (["builtin", "--wire", "tap:x"], "a wire of its own"),
        (["vhost-user:/x", "--wire", "string"], "'string' is no wire"),
        (["builtin", "--only", "nothing"], "called 'nothing'"),
        (["builtin", "--timeout", "0"], "--timeout 0.0"),
        (["builtin", "--timeout", "nan"], "--timeout nan"),
        (["builtin", "--pairs", "128"], "--pairs 128"),
    ],
)
def test_wrong_usage(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", *words]) == 2
    assert said in capsys.readouterr().err
