# SPDX-License-Identifier: MIT
"""``pyvnet conformance``: what it prints, writes and returns."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast
from xml.etree import ElementTree as ET

import pytest

from pyvnet.conformance.cases import everything
from pyvnet.daemon.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE = 60.0  # a hang guard
PASSES = ["conformance", "builtin", "--only", "version-1-is-offered,VIO-RST-01"]


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """The command lowers its own process's voice."""
    before = logging.getLogger("pyvnet").level
    yield
    logging.getLogger("pyvnet").setLevel(before)


def started(*words: str) -> subprocess.Popen[str]:
    """The command as a process of its own, whose pipes are read here."""
    command = [sys.executable, "-m", "pyvnet", "conformance", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def piped(stream: IO[str] | None) -> IO[str]:
    """One of its pipes."""
    return cast("IO[str]", stream)


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
    out, err = capsys.readouterr()
    assert "cannot write" in err
    assert out == "", "it is told before the run, not after"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "what is to be judged?"),
        (["eth0"], "'eth0' is no target"),
        (["builtin", "--wire", "tap:x"], "a wire of its own"),
        (["vhost-user:/x", "--wire", "string"], "'string' is no wire"),
        (["builtin", "--only", "nothing"], "called 'nothing'"),
        (["builtin", "--only", ","], "no name in it"),
        (["builtin", "--timeout", "0"], "--timeout 0.0"),
        (["builtin", "--timeout", "nan"], "--timeout nan"),
        (["builtin", "--pairs", "128"], "--pairs 128"),
        (["builtin", "--junit", "/no/x", "--capture", "/no/x"], "name one file: /no/x"),
    ],
)
def test_wrong_usage(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_list_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--list", "--json", "--only", "rss"]) == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = (row for row in told["cases"] if row["name"] == "queue-is-the-table-entry-of-the-hash")
    assert {"id": "NET-RSS-02", "level": "MUST"}.items() <= row["ids"][0].items()
    assert {"rss", "wire", "control"} <= set(row["needs"])


def test_an_interrupted_run_tells_what_it_knows(tmp_path: Path) -> None:
    junit = tmp_path / "result.xml"
    with started("builtin", "--junit", str(junit)) as running:
        first = piped(running.stdout).readline()
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=DEADLINE)
    assert running.returncode == 128 + signal.SIGTERM
    assert err == ""
    assert "interrupted: cases that had not ended are inconclusive" in out
    count = len(everything())
    assert f"{count} cases: " in out
    root = ET.fromstring(junit.read_text())  # noqa: S314 (our own)
    assert int(root.get("tests", "0")) == count
    assert first.split()[2] in {element.get("name") for element in root.iter("testcase")}
    assert "the run was interrupted" in {
        (element.get("message") or "").rpartition(": ")[2] for element in root.iter("error")
    }


def test_a_reader_that_goes_is_no_traceback() -> None:
    with started("builtin") as running:
        assert piped(running.stdout).readline()
        piped(running.stdout).close()
        err = piped(running.stderr).read()
    assert running.returncode == 128 + signal.SIGPIPE
    assert err == ""


def test_a_full_disk_under_the_report() -> None:
    command = [sys.executable, "-m", "pyvnet", "conformance", "--list"]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == ("pyvnet: cannot write to standard output: No space left on device\n")
