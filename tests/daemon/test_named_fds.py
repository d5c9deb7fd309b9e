# SPDX-License-Identifier: MIT
"""Descriptors handed over by name: what `pyvnet serve` takes, and what it says of the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.daemon.named_fds import resolve
from pyvnet.daemon.options import NAMED_FD, NAMED_FDS, DeviceOptions
from pyvnet.errors import UsageError
from tests.daemon.serving import PROGRAM, Serving

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE: dict[str, Any] = {"socket_path": "s"}
NAMED = HERE | {"tap_fds": NAMED_FDS, "bpf_fds": NAMED_FDS}
TAPS = "tap-net0:tap-net0"

WRONG: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "nothing was handed over": (NAMED, {"LISTEN_FDS": ""}, "no descriptors were handed over"),
    "to somebody else": (NAMED, {"LISTEN_PID": "1"}, "descriptors were handed to process 1"),
    "no number": (NAMED, {"LISTEN_FDS": "two"}, "LISTEN_FDS is 'two', not a number"),
    "none": (NAMED, {"LISTEN_FDS": "0"}, "LISTEN_FDS is '0'"),
    "fewer names": (NAMED, {"LISTEN_FDNAMES": "tap-net0"}, "2 descriptors were handed over with 1"),
    "no tap": (NAMED, {"LISTEN_FDNAMES": "a:b"}, "tap-fds: nothing is called 'tap-net0'"),
    "another device's": (
        NAMED,
        {"LISTEN_FDNAMES": "tap-net0:tap-net1"},
        "'tap-net1' was handed over and nothing asks for it; did you mean 'tap-net0'?",
    ),
    "nobody asked": (
        HERE | {"tap_fds": NAMED_FDS},
        {"LISTEN_FDNAMES": "tap-net0:bpf-map-net0"},
        "'bpf-map-net0' was handed over and nothing asks for it",
    ),
    "half a program": (
        NAMED,
        {"LISTEN_FDNAMES": "tap-net0:bpf-map-net0"},
        "bpf-fds: nothing is called 'bpf-program-net0'",
    ),
    "two sockets": (
        {"fd": NAMED_FD},
        {"LISTEN_FDNAMES": "vhost-net0:vhost-net0"},
        "fd: 2 descriptors are called 'vhost-net0'",
    ),
    "one that is not open": (
        NAMED,
        {"LISTEN_FDS": "4000", "LISTEN_FDNAMES": ":".join(["tap-net0"] * 4000)},
        "was said to be handed over and is not open",
    ),
    "more queues than pairs": (
        NAMED | {"queues": 1},
        {"LISTEN_FDNAMES": TAPS},
        "2 file descriptors for 1 queue pairs",
    ),
}


@pytest.fixture
def handed() -> Iterator[dict[str, str]]:
    """Two descriptors that are no taps at 3 and 4, whatever is open there otherwise."""
    kept = [os.dup(fd) if _is_open(fd) else -1 for fd in (3, 4)]
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (3, 4):
        os.dup2(null, fd)
    if null not in {3, 4}:
        os.close(null)
    yield {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": TAPS}
    for fd, copy in zip((3, 4), kept, strict=True):
        os.close(fd)
        if copy >= 0:
            os.dup2(copy, fd, inheritable=False)
            os.close(copy)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_has_its_name(handed: dict[str, str], case: str) -> None:
    options, changed, message = WRONG[case]
    with pytest.raises(UsageError) as refused:
        resolve([DeviceOptions(**options)], handed | changed)
    assert message in str(refused.value)


def test_each_device_gets_its_own_and_the_variables_are_gone(handed: dict[str, str]) -> None:
    handed["LISTEN_FDNAMES"] = "tap-b:tap-a"
    several = [DeviceOptions(name=n, **NAMED) for n in "ab"]
    first, second = resolve(several, handed)
    assert (first.tap_fds, second.tap_fds, first.bpf_fds) == ((4,), (3,), None)
    assert handed == {}
    assert not os.get_inheritable(3)


def test_who_asks_for_no_name_is_not_bothered(handed: dict[str, str]) -> None:
    before = handed | {"LISTEN_FDS": "x"}
    (device,) = resolve([DeviceOptions(**HERE, tap_fds=(7,))], before)
    assert (device.tap_fds, before["LISTEN_FDS"]) == ((7,), "x")


def test_what_excludes_a_helper() -> None:
    for options, message in (
        (NAMED | {"helper": "h"}, "helper and tap-fds exclude each other"),
        (HERE | {"helper": "h", "tap_persist": True}, "tap-persist and helper exclude each other"),
        (HERE | {"helper": "h", "netns": "n"}, "netns and helper exclude each other"),
        (HERE | {"helper": "h", "bpf_fds": (3, 4)}, "bpf-fds and helper exclude each other"),
    ):
        assert message in DeviceOptions(**options).problems()


def test_they_are_asked_for_in_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = '[[device]]\nname = "{}"\nfd = "named"\nport = "null"\n'
    Path("f").write_text(table.format("a") + table.format("b"))
    listening = "import os, socket, sys\n"
    listening += "for fd in 3, 4:\n s = socket.socket(1); s.bind(str(fd)); s.listen()\n"
    listening += " os.dup2(s.detach(), fd); os.set_inheritable(fd, True)\n"
    listening += "os.environ['LISTEN_PID'] = str(os.getpid())\nos.execv(sys.argv[1], sys.argv[1:])"
    with Serving(
        *("--config", "f"),
        prefix=[PROGRAM[0], "-c", listening],
        LISTEN_FDS="2",
        LISTEN_FDNAMES="vhost-b:vhost-a",
    ) as serving:
        assert "a: listening at fd 4" in serving.log
        assert "b: listening at fd 3" in serving.log
        assert serving.end() == 0
