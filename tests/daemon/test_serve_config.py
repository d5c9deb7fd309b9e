# SPDX-License-Identifier: MIT
"""`--config`: what a file may say, what is wrong with it, and devices that share a process."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from pyvnet.daemon.config import load
from pyvnet.daemon.readers import Port
from pyvnet.datapath.config import EngineConfig
from pyvnet.errors import UsageError
from pyvnet.spec.features import Feature
from pyvnet.spec.vhost_user import HEADER, Request, message
from tests.daemon.serving import Serving, run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sockets go: the working directory, because their addresses must be short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def device(name: str, more: str = "") -> str:
    return f'[[device]]\nname = "{name}"\nsocket-path = "{name}.s"\nport = "null"\n{more}\n'


def wrong(folder: Path, text: str) -> list[str]:
    """What is found wrong, a line each."""
    (folder / "f").write_text(text)
    with pytest.raises(UsageError) as caught:
        load("f")
    return [line.strip() for line in str(caught.value).splitlines()]


def test_every_key(folder: Path) -> None:
    (folder / "f").write_text("""
        admin = "a"
        log-level = "debug"
        log-format = "json"

        [[device]]
        name = "vm1"
        socket-path = "vm1.sock"
        socket-mode = "0660"
        socket-group = "nogroup"
        tap = "vm1"
        tap-persist = true
        netns = "blue"
        bridge = "br0"
        queues = 8
        mac = "02:00:00:00:00:01"
        mtu = 9000
        no-features = ["hash_report", "guest_announce"]
        steering = "software"
        queue-num-unit = "vrings"
        compat = ["ex-types-always"]
        workers = 2
        worker-cpus = [0]
        poll-us = 50
        io = "plain"
        pin-guest-memory = true

        [[device]]
        name = "vm2"
        fd = 3
        features = "rss,ctrl_vq"
        tap-fds = [4, 5]
        bpf-fds = [8, 9]

        [[device]]
        name = "vm3"
        connect = "vm3.sock"
        port = "pair:6,7"

        [[device]]
        name = "vm4"
        socket-path = "vm4.sock"
        steering-program = "own.o"
    """)
    options = load("f")
    one, two, three, four = options.devices
    assert (options.admin, options.log_level, options.log_format) == ("a", "debug", "json")
    assert (one.name, one.socket_path, one.socket_mode) == ("vm1", "vm1.sock", 0o660)
    assert (one.tap, one.tap_persist, one.netns, one.bridge) == ("vm1", True, "blue", "br0")
    assert (one.pairs, one.mac, one.mtu, one.workers) == (8, b"\x02\0\0\0\0\x01", 9000, 2)
    assert one.engine_config == EngineConfig(
        worker_cpus=(0,), poll_us=50, io="plain", pin_guest_memory=True
    )
    assert one.no_features == Feature.HASH_REPORT | Feature.GUEST_ANNOUNCE
    assert (one.queue_num_unit, one.compat) == ("vrings", ("ex-types-always",))
    assert (two.fd, two.tap_fds, two.pairs) == (3, (4, 5), 2)
    assert (one.steering, two.steering, two.bpf_fds) == ("software", "auto", (8, 9))
    assert four.steering_program == "own.o"
    assert two.features == Feature.RSS | Feature.CTRL_VQ
    assert (three.connect, three.port, three.pairs) == ("vm3.sock", Port("pair", (6, 7)), 2)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["there is no [[device]] table"]),
        ("device = 3", ["device: write each device as a table headed [[device]]"]),
        ("[device]\nname = 'a'", ["device: write each device as a table headed [[device]]"]),
        ("adminn = 'x'\n" + device("a"), ["unknown key 'adminn'; did you mean 'admin'?"]),
        (
            "queues = 3\n" + device("a"),
            ["unknown key 'queues'; it belongs into a [[device]] table"],
        ),
        ("admin = 3\n" + device("a"), ["admin: 3 is not a path"]),
        ("log-level = 'loud'\n" + device("a"), ["log-level: 'loud' is not one of debug, info"]),
        (device("a", "quues = 3"), ["a: unknown key 'quues'; did you mean 'queues'?"]),
        (device("a", "queues = '3'"), ["a: queues: '3' is not a number"]),
        (device("a", "queues = true"), ["a: queues: true is not a number"]),
        (device("a", "queues = 0"), ["a: queues: '0' is not a number from 1 to 127"]),
        (device("a", "queues = -1"), ["a: queues: '-1' is not a number from 1 to 127"]),
        (device("a", "queues = 1.5"), ["a: queues: 1.5 is not a number"]),
        (device("a", "mac = 3"), ["a: mac: 3 is not a string"]),
        (device("a", "socket-mode = 660"), ["a: socket-mode: 660 is not a string"]),
        (device("a", "tap-persist = 1"), ["a: tap-persist: 1 is not true or false"]),
        (device("a", "tap-fds = 'x'"), ["a: tap-fds: 'x' is not a number from 0 to"]),
        (device("a", "features = [1]"), ["a: features: [1] is not a string or a list of strings"]),
        (device("a", "features = ['rs']"), ["a: features: there is no feature 'rs'; did you mean"]),
        (device("a", "[device.queues]"), ["a: queues: a table is not a number"]),
        (device("a", "netns = ''"), ["a: netns: it is empty"]),
        (device("a", "fd = 3"), ["a: socket-path, fd and connect exclude each other"]),
        (device("a", "tap = 't'"), ["a: tap is for the host port tap"]),
        ("[[device]]\nfd = 3", ["device 1: it has no name"]),
        (device("a") + device("a"), ["a: the name 'a' is used", "a: the socket a.s is used by a"]),
        (
            device("a").replace("a.s", "x") + device("b").replace("b.s", "./x"),
            ["b: the socket ./x is used by a already"],
        ),
        ("admin = 'a.s'\n" + device("a"), ["a: the socket a.s is used by the admin socket"]),
        (
            "[[device]]\nname='a'\nfd=3\ntap='t'\n[[device]]\nname='b'\nfd=3\ntap='t'",
            ["b: the tap t is used by a already", "b: fd 3 is used by a already"],
        ),
    ],
)
def test_what_is_found_wrong(folder: Path, text: str, problems: list[str]) -> None:
    found = wrong(folder, text)
    assert found[0] == "f:"
    assert len(found) == 1 + len(problems)
    for line, problem in zip(found[1:], problems, strict=True):
        assert line.startswith(problem)


def test_the_same_tap_name_in_two_namespaces_is_no_clash(folder: Path) -> None:
    (folder / "f").write_text(
        "[[device]]\nname='a'\nfd=3\ntap='t'\n[[device]]\nname='b'\nfd=4\ntap='t'\nnetns='n'"
    )
    assert len(load("f").devices) == 2


def test_all_of_it_is_reported_at_once(folder: Path) -> None:
    text = "adminn = 'x'\n" + device("a", "quues = 3\nmtu = 5") + device("b", "fd = 3")
    (folder / "f").write_text(text)
    done = run("serve", "--config", "f")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 5
    assert list(folder.iterdir()) == [folder / "f"]


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (None, 1, "cannot read f: No such file or directory"),
        (b"a = ", 2, "f is not TOML: Invalid value"),
        (b"\xff", 2, "f is not TOML"),
        (b"#" * (1 << 21), 2, "is larger than"),
    ],
)
def test_what_is_no_configuration(
    folder: Path, content: bytes | None, status: int, message: str
) -> None:
    if content is not None:
        (folder / "f").write_bytes(content)
    done = run("serve", "--config", "f")
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# --- several devices ------------------------------------------------------------------------


def ask_features(path: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(path)
        sock.sendall(message(Request.GET_FEATURES))
        return sock.recv(HEADER.size + 8)


def test_several_devices_and_a_hostile_front_end_of_one(folder: Path) -> None:
    names = ("vm1", "vm2", "vm3")
    (folder / "f").write_text("admin = 'a'\n" + "".join(device(name) for name in names))
    with Serving("--config", "f") as serving:
        with socket.socket(socket.AF_UNIX) as hostile:
            hostile.settimeout(30)
            hostile.connect("vm2.s")
            hostile.sendall(b"\xff" * 12)
            assert hostile.recv(1) == b""
        log = serving.until("vm2: front-end disconnected")
        assert all(" vm2: " in line for line in log.splitlines() if "warning" in line)
        assert all(ask_features(f"{name}.s") for name in names)
        status = json.loads(run("status", "a", "--json").stdout)
        assert [entry["name"] for entry in status["devices"]] == list(names)
        one = json.loads(run("status", "a", "vm2", "--json").stdout)
        assert [entry["name"] for entry in one["devices"]] == ["vm2"]
        done = run("admin", "a", "link", "down")
        assert (done.returncode, "which device? one of vm1, vm2, vm3" in done.stderr) == (2, True)
        done = run("admin", "a", "link", "down", "vm4")
        assert "there is no device 'vm4'; did you mean 'vm" in done.stderr
        assert run("admin", "a", "link", "down", "vm3").returncode == 0
        status = json.loads(run("status", "a", "--json").stdout)
        links = {entry["name"]: entry["config"]["link"] for entry in status["devices"]}
        assert links == {"vm1": "up", "vm2": "up", "vm3": "down"}
        assert serving.end() == 0
    assert list(folder.iterdir()) == [folder / "f"]


def test_one_that_does_not_start_leaves_the_others_be(folder: Path) -> None:
    (folder / "vm2.s").write_text("in the way")
    devices = "".join(device(name) for name in ("vm1", "vm2", "vm3"))
    (folder / "f").write_text("admin = 'a'\n" + devices)
    with Serving("--config", "f") as serving:
        assert "error vm2: did not start: vm2.s exists and is not a socket" in serving.log
        assert ask_features("vm1.s")
        assert ask_features("vm3.s")
        status = json.loads(run("status", "a", "--json").stdout)
        states = {entry["name"]: entry["state"] for entry in status["devices"]}
        assert states == {"vm1": "serving", "vm2": "failed", "vm3": "serving"}
        assert "vm2.s exists and is not a socket" in status["devices"][1]["failure"]
        assert "vm2: failed (vm2.s exists" in run("status", "a").stdout
        done = run("admin", "a", "announce", "vm2")
        assert done.returncode == 2
        assert "vm2 did not start: vm2.s exists" in done.stderr
        assert serving.end() == 0


def test_none_that_starts_is_a_failure(folder: Path) -> None:
    for name in ("vm1", "vm2"):
        (folder / f"{name}.s").write_text("in the way")
    (folder / "f").write_text(device("vm1") + device("vm2"))
    done = run("serve", "--config", "f")
    assert done.returncode == 1
    assert "pyvnet: none of 2 devices started; see the log" in done.stderr
