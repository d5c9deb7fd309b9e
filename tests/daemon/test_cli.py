# SPDX-License-Identifier: MIT
"""The command line: what there is, what failures look like, and what they cost in time."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import termios
from array import array
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from pyvnet.daemon import cli, commands
from pyvnet.errors import DriverError, HostError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

RUNS_ON = {"serve", "helper"}  # has nothing to report at its end
FRAME = "ffffffffffff02000000000188b5" + "00" * 46


def pyvnet(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pyvnet", *words]
    environment = {key: value for key, value in os.environ.items() if key != "PYVNET_DEBUG"}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


# --- what there is ----------------------------------------------------------------------


def test_help_lists_what_is_built_and_nothing_else() -> None:
    done = pyvnet("--help")
    listed = re.findall(r"^    (\w+)(?:  |$)", done.stdout, re.MULTILINE)
    built = {path.stem for path in Path(commands.__path__[0]).glob("[!_]*.py")}
    assert (done.returncode, done.stderr) == (0, "")
    assert set(listed) == set(cli.COMMANDS) == built


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_and_its_summary_is_one(command: str) -> None:
    done = pyvnet(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: pyvnet {command} ")
    assert ("--json" in done.stdout) is (command not in RUNS_ON)


def test_version() -> None:
    done = pyvnet("--version")
    assert (done.returncode, done.stdout) == (0, f"pyvnet {version('pyvnet')}\n")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["nope"]])
def test_asking_for_help_loads_neither_engine_nor_netlink(words: list[str]) -> None:
    script = (
        "import sys; from pyvnet.daemon.cli import main; main(sys.argv[1:]);"
        "heavy = {'asyncio', 'uvloop', 'pyroute2', 'cffi', '_cffi_backend', 'rich'};"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], check=True, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["swerve"], "invalid choice: 'swerve'"),
        (["--nope", "caps"], "unrecognized arguments: --nope"),
        (["caps", "--nope"], "unrecognized arguments: --nope"),
        (["caps", "extra"], "unrecognized arguments: extra"),
        (["--js"], "required: COMMAND"),
    ],
)
def test_wrong_usage(words: list[str], message: str) -> None:
    done = pyvnet(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# --- what failures look like --------------------------------------------------------------


@pytest.fixture
def fails_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Install a command `boom` that raises."""

    def install(error: BaseException) -> None:
        module = ModuleType("pyvnet.daemon.commands.boom")

        def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
            subparsers.add_parser("boom")

        def run(_: argparse.Namespace) -> int:
            raise error

        vars(module).update(add_parser=add_parser, run=run)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(cli, "COMMANDS", {**cli.COMMANDS, "boom": "fails"})
        monkeypatch.delenv("PYVNET_DEBUG", raising=False)

    return install


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (HostError("no tap", 1, "run as root"), 1, "no tap: Operation not permitted; run as root"),
        (DriverError("bad chain"), 1, "bad chain"),
        (UsageError("0 queues"), 2, "0 queues"),
        (KeyboardInterrupt(), 130, None),
    ],
)
def test_exit_status_and_message(
    fails_with: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    message: str | None,
) -> None:
    fails_with(error)
    assert cli.main(["boom"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (f"pyvnet: {message}\n" if message else "")


@pytest.mark.parametrize(
    ("words", "variable", "shown"),
    [
        (["boom"], None, False),
        (["boom"], "", False),
        (["boom"], "0", False),
        (["boom"], "1", True),
        (["--debug", "boom"], None, True),
        (["boom", "--debug"], None, True),
        (["--debug", "boom"], "0", True),
    ],
)
def test_a_traceback_only_for_who_asks(
    fails_with: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    variable: str | None,
    shown: bool,
) -> None:
    fails_with(HostError("no tap"))
    if variable is not None:
        monkeypatch.setenv("PYVNET_DEBUG", variable)
    assert cli.main(words) == 1
    captured = capsys.readouterr()
    assert ("Traceback" in captured.err) is shown
    assert captured.err.endswith("pyvnet: no tap\n")


def test_a_bug_is_not_dressed_up(fails_with: Callable[[BaseException], None]) -> None:
    fails_with(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["boom"])


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_ends_us_quietly(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "pyvnet", "hash", FRAME],
        check=False,
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_is_slow_gets_everything(tmp_path: Path, unbuffered: str) -> None:
    command = [sys.executable, "-m", "pyvnet", "conformance", f"vhost-user:{tmp_path}/no", "--json"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as running:
        assert running.stdout
        full = fcntl.fcntl(running.stdout, fcntl.F_GETPIPE_SZ)
        lying = array("i", [0])
        while running.poll() is None and lying[0] < full:
            fcntl.ioctl(running.stdout, termios.FIONREAD, lying)
        with suppress(subprocess.TimeoutExpired):  # the kernel's time to cut the write short
            running.wait(0.5)
        assert len(json.loads(running.stdout.read())["cases"]) > 1
