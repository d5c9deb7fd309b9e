# SPDX-License-Identifier: MIT
"""`pyvnet helper --serve`: what it makes, for whom, and what hostile peers get out of it."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvnet import Driver
from pyvnet.daemon.helper import protocol
from pyvnet.daemon.helper.request import Session
from pyvnet.errors import FrontendError, HostError
from pyvnet.netdev.netns import NetNamespace
from pyvnet.offload import program
from tests.daemon.serving import DEADLINE, PROGRAM, Serving, environment
from tests.daemon.test_without_privilege import PLAIN, exchange, status, unprivileged
from tests.daemon.unprivileged import NOBODY, SETPRIV
from tests.netdev import kernel
from tests.system import support

if TYPE_CHECKING:
    from collections.abc import Iterator

HELLO = {"op": "hello", "version": 1}
# Two instructions: return 0.
RETURN_0 = struct.pack("<QQ", 0xB7, 0x95)


class Broker:
    """A running broker in a namespace, and clients of it as whoever they are."""

    def __init__(self, netns: NetNamespace, *words: str) -> None:
        self.netns = netns
        command = [*PROGRAM, "helper", "--serve", "b", "--user", str(NOBODY), *words]
        self.process: subprocess.Popen[str] = netns.popen(
            command, stderr=subprocess.PIPE, text=True, env=environment()
        )
        assert self.process.stderr is not None
        self.log = self.process.stderr
        line = self.log.readline()
        assert "ready at b for nobody (uid 65534)" in line, line + self.log.read()

    @property
    def interfaces(self) -> set[str]:
        return self.netns.call(kernel.interfaces)

    @property
    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(DEADLINE)
        assert "Traceback" not in self.log.read()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        self.log.close()


class Peer:
    """A client that says whatever it likes."""

    def __init__(self, greet: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(DEADLINE)
        before = os.geteuid()
        os.seteuid(NOBODY)  # what SO_PEERCRED will say
        try:
            self.socket.connect("b")
        finally:
            os.seteuid(before)
        if greet:
            assert self.ask(**HELLO)[0]["version"] == 1

    def ask(self, **request: Any) -> tuple[dict[str, Any], tuple[int, ...]]:
        self.send(json.dumps({k.replace("_", "-"): v for k, v in request.items()}).encode())
        return self.answer()

    def send(self, data: bytes, fds: list[int] | None = None) -> None:
        socket.send_fds(self.socket, [data], fds or [])

    def answer(self) -> tuple[dict[str, Any], tuple[int, ...]]:
        data, fds = protocol.receive(self.socket)
        return (json.loads(data) if data else {}), fds

    def over(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("broker")
    made.chmod(0o755)
    (made / "nobody").mkdir()
    os.chown(made / "nobody", NOBODY, NOBODY)
    before = Path.cwd()
    os.chdir(made)
    yield made
    os.chdir(before)


@pytest.fixture(scope="module")
def broker(folder: Path) -> Iterator[Broker]:
    """One for all tests: it must live through everything they do to it."""
    assert folder == Path.cwd()
    with NetNamespace() as netns:
        netns.call(lambda: kernel.ip("link", "add", "br0", "type", "bridge"))
        netns.call(lambda: kernel.ip("link", "add", "br1", "type", "bridge"))
        words = ("--allow-tap", "vm*", "--allow-bridge", "br0", "--queues", "4")
        with Broker(netns, *words) as running:
            yield running
            assert running.end() == 0
    assert not (folder / "b").exists()


@pytest.fixture(autouse=True)
def _alive_and_clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test the broker lives, and holds what it held before."""
    if "broker" not in request.fixturenames:
        yield
        return
    broker: Broker = request.getfixturevalue("broker")
    before = broker.open_files
    yield
    with Peer() as peer:
        assert peer.ask(op="status")[0] == {"ok": True, "objects": []}
    with Peer():  # when this one was greeted, the one before is over
        assert broker.open_files <= before + 1
    assert broker.interfaces == {"lo", "br0", "br1"}


def close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.may_leak("the broker of all these tests runs on"),
]


# --- what it is for ------------------------------------------------------------------------


def test_the_broker_itself(broker: Broker) -> None:
    found = Path("b").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, NOBODY)
    text = Path(f"/proc/{broker.process.pid}/status").read_text()
    kept = (1 << 12) | (1 << 38) | (1 << 39)  # CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert int(text.partition(f"{name}:")[2].split()[0], 16) == kept
    assert "NoNewPrivs:\t1" in text


def test_a_tap_lives_as_long_as_anybody_holds_it(broker: Broker) -> None:
    with Peer() as peer:
        answer, fds = peer.ask(op="make-tap", queues=3, name="vm1", mtu=1400, bridge="br0")
        assert answer == {"ok": True, "object": 1, "name": "vm1"}
        assert len(fds) == 3
        link = support.link(broker.netns, "vm1")
        assert (link["mtu"], link["master"], "UP" in link["flags"]) == (1400, "br0", True)
        assert peer.ask(op="status")[0]["objects"] == [{"object": 1, "kind": "tap", "name": "vm1"}]
        close(*fds)
        assert "vm1" in broker.interfaces  # the broker keeps one queue, to attach programs by
        assert peer.ask(op="close", object=1)[0] == {"ok": True}
        assert "vm1" not in broker.interfaces
        _, fds = peer.ask(op="make-tap", queues=1)
        assert "vnet0" in broker.interfaces
    with Peer():  # the last one is over
        assert "vnet0" in broker.interfaces
    close(*fds)
    assert "vnet0" not in broker.interfaces


def test_programs_and_maps(broker: Broker) -> None:
    assert broker.process.poll() is None
    with Peer() as peer, ExitStack() as stack:

        def made(**request: Any) -> dict[str, Any]:
            answer, fds = peer.ask(**request)
            stack.callback(close, *fds)
            assert answer["ok"], answer
            return answer | {"fds": fds}

        steering = made(op="load-steering")
        program.check(*steering["fds"])
        tap = made(op="make-tap", queues=2)
        for chosen in (steering["program"], None):
            assert peer.ask(op="attach", tap=tap["object"], program=chosen)[0] == {"ok": True}
        array = made(op="make-map", type=2, key_size=4, value_size=8, entries=4)
        code = base64.b64encode(RETURN_0).decode()
        own = made(op="load-program", code=code, maps=[array["object"]], license="GPL")
        answer = peer.ask(op="attach", tap=tap["object"], program=own["object"])[0]
        assert answer == {"ok": True}
        kinds = [held["kind"] for held in peer.ask(op="status")[0]["objects"]]
        assert kinds == ["program", "map", "tap", "map", "program"]


# --- what it refuses, and goes on ------------------------------------------------------------

KEEPS_POINTERS = struct.pack("<QQ", 0x00000000000001BF, 0x95)  # r1 = r0, which is not set
REFUSED = {
    "a tap of another name": ({"op": "make-tap", "queues": 1, "name": "eth0"}, "--allow-tap"),
    "another bridge": ({"op": "make-tap", "queues": 1, "bridge": "br1"}, "--allow-bridge"),
    "too many queues": ({"op": "make-tap", "queues": 5}, "4 are allowed"),
    "no interface's name": ({"op": "make-tap", "queues": 1, "name": "vm/1"}, "cannot name"),
    "a name with a zero": ({"op": "make-tap", "queues": 1, "name": "vm\0"}, "cannot name"),
    "half a character": ({"op": "make-tap", "queues": 1, "name": "vm\ud800"}, ""),
    "an MTU no tap has": ({"op": "make-tap", "queues": 1, "mtu": 1}, "cannot set"),
    "an object of nobody": ({"op": "close", "object": 99}, "there is no object 99"),
    "a tap of nobody": ({"op": "attach", "tap": 1, "program": None}, "there is no tap 1"),
    "a map of no kind": (
        {"op": "make-map", "type": 77, "key-size": 4, "value-size": 4, "entries": 1},
        "type 77",
    ),
    "a huge map": (
        {"op": "make-map", "type": 2, "key-size": 4, "value-size": 1 << 20, "entries": 1 << 20},
        "map",
    ),
    "an empty program": (
        {"op": "load-program", "code": "", "maps": [], "license": "GPL"},
        "not whole instructions",
    ),
    "a program that leaks": (
        {
            "op": "load-program",
            "code": base64.b64encode(KEEPS_POINTERS).decode(),
            "maps": [],
            "license": "GPL",
        },
        "",
    ),
    "a map of somebody else": (
        {
            "op": "load-program",
            "code": base64.b64encode(RETURN_0).decode(),
            "maps": [1],
            "license": "GPL",
        },
        "there is no map 1",
    ),
    "a map that is no number": (
        {
            "op": "load-program",
            "code": base64.b64encode(RETURN_0).decode(),
            "maps": [[1]],
            "license": "GPL",
        },
        "there is no map [1]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_and_the_next_thing_done(broker: Broker, case: str) -> None:
    request, message = REFUSED[case]
    with Peer() as peer:
        peer.send(json.dumps(request).encode())
        answer, fds = peer.answer()
        assert (answer["ok"], fds, "fatal" in answer) == (False, (), False)
        assert message in answer["error"]
        assert peer.ask(op="status")[0]["ok"]
    assert broker.process.poll() is None


def test_a_name_that_is_taken(broker: Broker) -> None:
    with Peer() as one, Peer() as two:
        _, fds = one.ask(op="make-tap", queues=1, name="vm1")
        answer, none = two.ask(op="make-tap", queues=1, name="vm1")
        assert (answer["ok"], none) == (False, ())
        assert "an interface of that name exists" in answer["cure"]
        # Nor can one client name what another one has.
        assert "there is no tap 1" in two.ask(op="attach", tap=1, program=None)[0]["error"]
        assert broker.interfaces >= {"vm1"}
        close(*fds)


def test_objects_are_counted(broker: Broker) -> None:
    with Peer() as peer:
        for count in range(33):
            answer, fds = peer.ask(op="make-map", type=2, key_size=4, value_size=4, entries=1)
            close(*fds)
            assert answer["ok"] is (count < 32)
        assert "32 are the most" in answer["error"]
        assert "32 are the most" in peer.ask(op="load-steering")[0]["error"]
    assert broker.process.poll() is None


def test_taps_are_counted_even_when_only_their_clients_hold_them(broker: Broker) -> None:
    """Who closes the object and keeps the descriptor has no more of them than others."""
    with Peer() as peer, ExitStack() as stack:
        for count in range(65):
            answer, fds = peer.ask(op="make-tap", queues=1)
            stack.callback(close, *fds)
            assert answer["ok"] is (count < 64), (count, answer)
            if answer["ok"]:
                assert peer.ask(op="close", object=answer["object"])[0]["ok"]
        assert "64 taps are there" in answer["error"]
    assert len(broker.interfaces) == 3
    with Peer() as peer:
        answer, fds = peer.ask(op="make-tap", queues=1)
        close(*fds)
        assert answer["ok"]


# --- what ends a connection --------------------------------------------------------------------

FATAL = {
    "no JSON": b"\xff\xfe",
    "no object": b"[1]",
    "half an object": b'{"op": "status"',
    "depth": b"[" * 60000,
    "a long number": b'{"op": "status", "n": ' + b"9" * 60000 + b"}",
    "no operation": b"{}",
    "an operation that is a list": b'{"op": ["status"]}',
    "an unknown operation": b'{"op": "exec"}',
    "an unknown key": b'{"op": "status", "path": "/etc/shadow"}',
    "no number": b'{"op": "make-tap", "queues": "1"}',
    "true for a number": b'{"op": "make-tap", "queues": true}',
    "a fraction": b'{"op": "make-tap", "queues": 1.5}',
    "not a number": b'{"op": "make-tap", "queues": NaN}',
    "no queues": b'{"op": "make-tap", "queues": 0}',
    "below zero": b'{"op": "close", "object": -1}',
    "what is missing": b'{"op": "close"}',
    "another namespace": b'{"op": "make-tap", "queues": 1, "netns": "/proc/1/ns/net"}',
    "no base64": b'{"op": "load-program", "code": "?", "maps": [], "license": "GPL"}',
    "too long": b'{"op": "status"}' + b" " * 65536,
    "another version": b'{"op": "hello", "version": 2}',
}


@pytest.mark.parametrize("case", FATAL)
def test_who_does_not_keep_to_the_protocol_is_told_and_let_go(broker: Broker, case: str) -> None:
    with Peer() as peer:
        _, fds = peer.ask(op="make-tap", queues=1, name="vm1")
        close(*fds)
        peer.send(FATAL[case])
        answer, fds = peer.answer()
        assert (answer["ok"], answer["fatal"], fds) == (False, True, ())
        assert peer.over()
    assert "vm1" not in broker.interfaces


def test_hello_comes_first(broker: Broker) -> None:
    assert broker.process.poll() is None
    with Peer(greet=False) as peer:
        assert peer.ask(op="status")[0]["error"] == "hello comes first"
        assert peer.over()


@pytest.mark.parametrize("count", [1, 253])
def test_foreign_descriptors_are_closed_and_refused(broker: Broker, count: int) -> None:
    ours, theirs = os.pipe()
    with Peer() as peer:
        peer.send(json.dumps({"op": "status"}).encode(), [theirs] * count)
        os.close(theirs)
        assert "carries no descriptors" in peer.answer()[0]["error"]
        assert os.read(ours, 1) == b""  # nobody holds the other end any more
    os.close(ours)
    assert broker.process.poll() is None


def test_another_uid_is_told_and_let_go(broker: Broker) -> None:
    assert broker.process.poll() is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as root:
        root.connect("b")
        answer = json.loads(root.recv(4096))
        assert answer["error"] == f"this broker is for uid {NOBODY}, and you are 0"
        assert root.recv(1) == b""


def test_who_does_not_read_his_answers_is_let_go(broker: Broker) -> None:
    assert broker.process.poll() is None
    with Peer() as flood, Peer() as other:
        flood.socket.setblocking(False)
        asked = 0
        while asked < 100_000:
            try:
                flood.send(b'{"op": "status"}')
                asked += 1
            except BlockingIOError:
                assert other.ask(op="status")[0]["ok"]  # its turn comes all the same
            except (BrokenPipeError, ConnectionResetError):
                break
        assert asked < 100_000


def test_clients_are_counted(broker: Broker) -> None:
    assert broker.process.poll() is None
    with ExitStack() as stack:
        for _ in range(32):
            stack.enter_context(Peer())
        last = stack.enter_context(Peer(greet=False))
        assert "32 clients are connected" in last.answer()[0]["error"]
        assert last.over()


def test_going_away_half_way(broker: Broker) -> None:
    """Before, between and instead of answers, with taps and programs made and not fetched."""
    for count in range(12):
        peer = Peer(greet=count > 0)
        if count == 0:
            peer.send(json.dumps(HELLO).encode())
        if count % 3 == 0:
            peer.send(b'{"op": "make-tap", "queues": 4, "name": "vm1"}')
        if count % 2 == 0:
            peer.send(b'{"op": "load-steering"}')
        if count in {3, 8}:
            answer, fds = peer.answer()
            close(*fds)
            assert answer["ok"]
        peer.close()
    assert broker.process.poll() is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    """The invariant: the table's types and bounds hold for all that comes through."""
    try:
        operation, values = protocol.read_request(data)
    except FrontendError:
        return
    assert set(values) == set(protocol.OPERATIONS[operation])


VALUES: st.SearchStrategy[Any] = st.integers() | st.sampled_from(
    [None, True, False, 1.0, 1e300, "", "1", "vm1", "\0", [], [1], [[]], {}, {"op": 1}]
)
KEYS = sorted({key for fields in protocol.OPERATIONS.values() for key in fields})


@settings(max_examples=50)
@given(st.sampled_from(sorted(protocol.OPERATIONS)), st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_values_that_come_through_are_of_their_type(operation: str, values: Any) -> None:
    try:
        _, read = protocol.read_request(json.dumps({"op": operation} | values).encode())
    except FrontendError:
        return
    for key, field in protocol.OPERATIONS[operation].items():
        if read[key] is None:
            assert field.optional
        else:
            assert type(read[key]) is field.type
            assert field.type is not int or field.low <= read[key] <= field.high


# --- a device behind it -----------------------------------------------------------------------


@pytest.mark.one_loop("what is tested runs in a process of its own")
async def test_a_device_gets_all_it_needs_and_outlives_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "nobody")
    asked = ("--helper", "b", "--tap", "vm1", "--queues", "4", "--mtu", "1400")
    words = ("--socket-path", "s", "--admin", "a", *asked)
    with NetNamespace() as netns, Broker(netns, "--allow-tap", "vm1") as broker:
        with Serving(*words, prefix=SETPRIV, netns=netns) as serving:
            unprivileged(serving)
            support.addresses(netns, "vm1", "198.18.9.1", ["198.18.9.2"])
            async with Driver.connect("vhost-user:s") as driver:
                await driver.negotiate()
                assert driver.config.mtu == 1400
                await driver.ctrl.rss_config(PLAIN)
                assert await exchange(driver, netns, PLAIN, "vm1") == {0, 1, 2, 3}
                broker.process.kill()
                broker.process.wait(DEADLINE)
                assert await exchange(driver, netns, PLAIN, "vm1", flows=8)
                assert status()["steering"]["owner"] == "ebpf"
            assert serving.end() == 0
        assert netns.call(kernel.interfaces) == {"lo"}


LIARS: dict[str, list[bytes]] = {
    "nothing": [],
    "no JSON": [b"hello"],
    "no answer": [b"{}"],
    "no descriptors": [b'{"ok": true}', b'{"ok": true}'],
    "a refusal": [b'{"ok": false, "error": "no", "errno": 1, "cure": "ask"}'],
    "a strange refusal": [b'{"ok": false, "error": [], "errno": "x", "cure": 1}'],
}


@pytest.mark.parametrize("case", LIARS)
def test_a_helper_that_lies_is_an_error_with_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("liar")
        listener.listen()

        def lie() -> None:
            connection, _ = listener.accept()
            with connection:
                for answer in LIARS[case]:
                    connection.recv(4096)
                    connection.send(answer)

        thread = threading.Thread(target=lie)
        thread.start()
        with pytest.raises(HostError, match="helper"), Session("liar") as session:
            session.make_tap(1, None, None, None)
        thread.join()


def test_a_helper_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"no helper at .*start `pyvnet helper --serve"):
        Session(str(tmp_path / "b"))
