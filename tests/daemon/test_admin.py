# SPDX-License-Identifier: MIT
"""The admin socket: what it answers, and clients that do not behave."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.daemon.admin import CLIENTS_MAX, LINE_MAX
from tests.daemon.serving import Serving, run

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPS = ["asyncio", "uvloop"]


@pytest.fixture(params=LOOPS, scope="module")
def serving(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """A service with its admin socket at `a`, which outlives whatever its clients do."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("admin"))
    try:
        words = ("--socket-path", "s", "--port", "null", "--admin", "a")
        with Serving(*words, PYVNET_LOOP=request.param) as running:
            yield running
            assert running.end() == 0
    finally:
        os.chdir(before)


class Client:
    """One connection to the admin socket."""

    def __init__(self, path: str = "a") -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(path)
        self.file = self.sock.makefile("rb")
        self.banner = self.read()

    def read(self) -> Any:
        line = self.file.readline()
        return json.loads(line) if line else None

    def ask(self, line: str | bytes) -> Any:
        self.sock.sendall(line.encode() + b"\n" if isinstance(line, str) else line)
        return self.read()

    def close(self) -> None:
        self.file.close()
        self.sock.close()


def test_who_connects_is_told_whom_he_talks_to(serving: Serving) -> None:
    with closing(Client()) as client:
        assert client.banner == {
            "version": version("pyvnet"),
            "pid": serving.process.pid,
            "schema": "pyvnet/1",
        }
    assert stat.S_IMODE(Path("a").lstat().st_mode) == 0o600


def test_commands_as_words_and_as_json(serving: Serving) -> None:
    with closing(Client()) as client:
        for request in ("status", '{"command": "status"}', '{"command":"status","device":"net0"}'):
            answer = client.ask(request)
            assert answer["ok"] is True
            (device,) = answer["result"]["devices"]
            assert (device["name"], device["config"]["link"]) == ("net0", "up")
        for request, link in (
            ("link down", "down"),
            ('{"command": "link", "device": "net0", "state": "up"}', "up"),
            ("link down net0", "down"),
            ("  link   up  ", "up"),
        ):
            assert client.ask(request)["ok"] is True
            (device,) = client.ask("status")["result"]["devices"]
            assert (device["config"]["link"], device["plugged"]) == (link, link == "up")
        # Nobody there who could announce anything.
        assert client.ask("announce") == {
            "ok": True,
            "result": {"device": "net0", "announced": False},
        }
        assert "link up|down [DEVICE]" in client.ask("help")["result"]["commands"]
    assert serving.process.poll() is None


GARBAGE = [
    (b"\n", "an empty line is no request; help lists the commands"),
    (b"sstatus\n", "there is no command 'sstatus'; did you mean 'status'?"),
    (b"link\n", "usage: link up|down [DEVICE]"),
    (b"link sideways\n", "usage: link up|down [DEVICE]"),
    (b"steering-program\n", "usage: steering-program OBJ|none [DEVICE]"),
    (b"steering-program none a b\n", "usage: steering-program OBJ|none [DEVICE]"),
    (b"steering-program none nobody\n", "there is no device 'nobody'"),
    (b"steering-program own.o\n", "the host port is a null port; use a tap"),
    (b"status a b\n", "usage: status [DEVICE]"),
    (b"status nobody\n", "there is no device 'nobody'"),
    (b"\xff\xfe\n", "a request is a line of UTF-8"),
    (b"{\n", "that is not JSON"),
    (b"{}\n", "a request names its command"),
    (b'{"command": 3}\n', "command must be a string"),
    (b'{"command": "status", "nope": ""}\n', "unknown key 'nope' in a request"),
    (b'{"command": ' + b"[" * 4000 + b"\n", "that is not JSON"),
    (bytes(100) + b"\n", "there is no command"),
]


def test_garbage_gets_an_error_and_the_next_request_an_answer(serving: Serving) -> None:
    with closing(Client()) as client:
        for request, reason in GARBAGE:
            answer = client.ask(request)
            assert answer["ok"] is False
            assert answer["error"].startswith(reason)
            assert client.ask("help")["ok"] is True
    assert serving.process.poll() is None


def test_a_line_without_end_is_refused(serving: Serving) -> None:
    with closing(Client()) as client:
        answer = client.ask(b"x" * (3 * LINE_MAX))
        assert answer == {"ok": False, "error": f"a request has at most {LINE_MAX} bytes"}
    with closing(Client()) as client:
        assert client.ask("help")["ok"] is True
    assert serving.process.poll() is None


def test_half_a_line_is_no_request(serving: Serving) -> None:
    client = Client()
    client.sock.sendall(b"link down")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.read() is None
    client.close()
    with closing(Client()) as client:
        (device,) = client.ask("status")["result"]["devices"]
        assert device["plugged"] is True
    assert serving.process.poll() is None


@pytest.mark.requirement("CVE-2020-27174")
def test_a_client_that_never_reads_is_dropped_and_not_read_from_meanwhile(serving: Serving) -> None:
    with closing(Client()) as polite:
        rude = Client()
        rude.sock.setblocking(False)
        flood = b"status\n" * 1000
        sent = 0
        while True:  # others are answered all the while
            assert polite.ask("help")["ok"] is True
            try:
                sent += rude.sock.send(flood)
            except BlockingIOError:
                continue
            except ConnectionError:
                break
        # What the kernel holds for one socket; of its answers the service holds one at most.
        assert sent < 1 << 20
        serving.until("admin: client dropped")
        rude.close()


@pytest.mark.requirement("CVE-2020-27174")
def test_there_is_a_largest_number_of_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Serving("--socket-path", "s", "--port", "null", "--admin", "a") as serving:
        fds = Path(f"/proc/{serving.process.pid}/fd")
        before = len(list(fds.iterdir()))
        clients = [Client() for _ in range(CLIENTS_MAX)]
        surplus = Client()
        refusal = f"{CLIENTS_MAX} clients are connected already"
        assert surplus.banner == {"ok": False, "error": refusal}
        assert surplus.read() is None
        surplus.close()
        assert all(client.ask("help")["ok"] for client in clients)
        for client in clients:
            client.sock.shutdown(socket.SHUT_WR)
            assert client.read() is None  # it has let go of this one
            client.close()
        with closing(Client()) as client:
            assert client.ask("help")["ok"] is True
            assert len(list(fds.iterdir())) == before + 1


def test_status_and_admin_as_commands(serving: Serving) -> None:
    done = run("status", "a")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"pyvnet {version('pyvnet')}, process {serving.process.pid}\n")
    assert "net0: serving" in done.stdout
    assert "  pair 3: nothing yet" in done.stdout
    status = json.loads(run("status", "a", "--json").stdout)
    assert status["schema"] == "pyvnet/1"
    assert status["devices"][0]["socket"] == {"kind": "listen", "at": "s"}
    done = run("admin", "a", "link", "down")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "device: net0")
    done = run("admin", "a", "--json", "link", "up")
    assert json.loads(done.stdout)["plugged"] is True
    done = run("admin", "a", "nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no command 'nope'" in done.stderr


def test_asking_where_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (("status", "a"), ("admin", "a", "help")):
        done = run(*command)
        assert done.returncode == 1
        assert "nobody answers at a: No such file or directory; name the socket" in done.stderr


def test_asking_the_wrong_socket(serving: Serving) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("other")
        other.listen()

        def greet() -> None:  # a server that says something else
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        done = run("status", "other")
        thread.join()
    assert done.returncode == 1
    assert "other does not answer as an admin socket does" in done.stderr
    assert serving.process.poll() is None
