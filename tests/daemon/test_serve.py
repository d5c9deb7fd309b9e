# SPDX-License-Identifier: MIT
"""`pyvnet serve` without a tap: how front-ends reach it, what it refuses, how it ends."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyvnet import Driver
from pyvnet.daemon import sockets
from pyvnet.daemon.cli import main
from pyvnet.daemon.server import retry_delays
from pyvnet.spec.vhost_user import HEADER, Request, message
from tests.daemon.serving import PROGRAM, Serving, environment, run

if TYPE_CHECKING:
    from collections.abc import Iterator

NULL = ("--port", "null", "--queues", "1")
ROOT = Path(__file__).parent.parent.parent
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sockets go: the working directory, because their addresses must be short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def front_end(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(30)
    sock.connect(path)
    return sock


def ask_features(sock: socket.socket) -> bytes:
    sock.sendall(message(Request.GET_FEATURES))
    return sock.recv(HEADER.size + 8)


# --- the back-end program conventions -----------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "--print-capabilities"],
        ["serve", "--print-capabilities", "--nope", "--queues", "abc", "--fd"],
        ["serve", "--socket-path", "/nowhere/x", "--print-capabilities", "--config"],
    ],
)
def test_capabilities_whatever_else_is_asked(words: list[str]) -> None:
    done = run(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"type": "net"}


def test_the_description_names_a_program_that_does_as_it_says() -> None:
    """What a management stack reads, and how it then calls what it read of."""
    described = json.loads((ROOT / "share/qemu/vhost-user/50-pyvnet-net.json").read_text())
    assert described.keys() == {"description", "type", "binary", "tags"}
    program = str(Path(sys.executable).parent / Path(described["binary"]).name)
    command = [program, "--socket-path=/nowhere/s", "--print-capabilities"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {"type": described["type"]}
    done = subprocess.run([program], check=False, capture_output=True, text=True)
    assert (done.returncode, "one of socket-path, fd and connect" in done.stderr) == (2, True)


def test_capabilities_load_neither_engine_nor_loop() -> None:
    script = (
        "import sys; from pyvnet.daemon.cli import main; main(sys.argv[1:]);"
        "heavy = {'asyncio', 'uvloop', 'pyroute2', 'cffi', '_cffi_backend', 'pyvnet.runtime'};"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "serve", "--print-capabilities"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stderr == "set()\n"


@LOOPS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_and_cleanly(
    folder: Path, loop: str, number: signal.Signals
) -> None:
    with Serving("--socket-path", "s", *NULL, PYVNET_LOOP=loop) as serving:
        with closing(front_end("s")) as sock:
            assert ask_features(sock)
            assert serving.end(number) == 0
            assert sock.recv(1) == b""
        assert f"{number.name}: ending" in serving.log
    assert list(folder.iterdir()) == []


@LOOPS
def test_further_signals_do_not_keep_it_from_ending_cleanly(folder: Path, loop: str) -> None:
    with Serving("--socket-path", "s", *NULL, PYVNET_LOOP=loop) as serving:
        serving.process.send_signal(signal.SIGSTOP)
        for number in (signal.SIGTERM, signal.SIGINT):
            serving.process.send_signal(number)
        serving.process.send_signal(signal.SIGCONT)
        # So many that they come all along its way out, and not so many that it does nothing else.
        for _ in range(1000):
            if serving.process.poll() is None:
                serving.process.send_signal(signal.SIGTERM)
        assert serving.wait() == 0
        assert serving.log.count("ending") == 1
    assert list(folder.iterdir()) == []


def test_systemd_is_told(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("notify")
        systemd.settimeout(30)
        where = str(folder / "notify")
        if len(where) > 100:
            pytest.fail("the test's folder has too long a name for a socket")
        with Serving("--socket-path", "s", *NULL, NOTIFY_SOCKET=where) as serving:
            assert systemd.recv(100) == b"READY=1"
            with closing(front_end("s")):
                serving.end()
            assert systemd.recv(100) == b"STOPPING=1"


def test_standard_streams_are_left_alone(folder: Path) -> None:
    command = [*PROGRAM, "serve", "--socket-path", "s", *NULL]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        while b"ready" not in process.stderr.readline():
            pass
        links = {str(Path(f"/proc/{process.pid}/fd/{fd}").readlink()) for fd in (1, 2)}
        assert all(link.startswith("pipe:") for link in links)
        assert os.getpgid(process.pid) == os.getpgid(0)
        process.terminate()
        assert process.stdout.read() == b""
        process.stderr.read()
    assert (process.returncode, list(folder.iterdir())) == (0, [])


@pytest.mark.usefixtures("folder")
def test_log_lines_as_json_name_their_device() -> None:
    words = ("--socket-path", "s", *NULL, "--name", "vm7", "--log-format", "json")
    with Serving(*words) as serving:
        with closing(front_end("s")) as sock:
            assert ask_features(sock)
            sock.sendall(b"\xff" * 12)
            assert sock.recv(1) == b""
        assert serving.end() == 0
        lines = [json.loads(line) for line in serving.log.splitlines()]
    assert {"time", "level", "message"} <= set(lines[0])
    (blamed,) = (line for line in lines if line["level"] == "warning")
    assert blamed["device"] == "vm7"
    assert blamed["message"].startswith("front-end disconnected: ")


def test_less_is_logged_when_asked(folder: Path) -> None:
    with Serving("--socket-path", "s", *NULL, "--log-level", "warning", ready=False) as serving:
        deadline = time.monotonic() + 30
        while not (folder / "s").exists():
            assert time.monotonic() < deadline
            os.sched_yield()
        assert serving.end() in {0, -signal.SIGTERM}
        assert "info" not in serving.log


# --- one socket, one front-end ----------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_a_second_front_end_is_turned_away_and_the_first_goes_on() -> None:
    with Serving("--socket-path", "s", *NULL) as serving:
        with closing(front_end("s")) as first:
            assert ask_features(first)
            for count in (1, 2):
                with closing(front_end("s")) as second:
                    assert second.recv(1) == b""
                serving.until("refused: s has a front-end already", count)
            assert ask_features(first)
        serving.until("front-end disconnected: it closed the connection")
        with closing(front_end("s")) as third:
            assert ask_features(third)
        assert serving.end() == 0
        assert serving.log.count("refused") == 2


@LOOPS
@pytest.mark.usefixtures("folder")
def test_who_comes_right_after_the_last_one_left_is_let_in(loop: str) -> None:
    """Both are news to the service at once: the old one's last words, its end, and the next."""
    with Serving("--socket-path", "s", *NULL, PYVNET_LOOP=loop) as serving:
        with closing(front_end("s")) as last:
            assert ask_features(last)
            serving.process.send_signal(signal.SIGSTOP)
            last.sendall(message(Request.SET_OWNER) * 40 + bytes(5))
        with closing(front_end("s")) as following:
            following.sendall(message(Request.GET_FEATURES))
            serving.process.send_signal(signal.SIGCONT)
            assert following.recv(HEADER.size + 8)
        assert serving.end() == 0
        assert "refused" not in serving.log


@pytest.mark.usefixtures("folder")
async def test_a_driver_gets_its_frames_over_the_socket() -> None:
    """The whole way: our driver, the socket, the device, and the wire behind it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.settimeout(30)
    words = ("--socket-path", "s", "--port", f"pair:{far.fileno()}")
    with near, far, Serving(*words, pass_fds=[far.fileno()]) as serving:
        async with Driver.connect("vhost-user:s") as driver:
            await driver.negotiate()
            near.sendmsg([bytes(12), b"\xff" * 60])
            frame = await driver.receive(timeout=30)
            assert frame.data == b"\xff" * 60
            await driver.send(b"\xff" * 12 + b"\x88\xb5" + bytes(50))
            assert near.recv(2000)[12:] == b"\xff" * 12 + b"\x88\xb5" + bytes(50)
        assert serving.end() == 0


# --- the socket file ----------------------------------------------------------------------------


def test_a_stale_socket_file_is_replaced(folder: Path) -> None:
    with Serving("--socket-path", "s", *NULL) as serving:
        serving.process.kill()
        serving.wait()
    assert stat.S_ISSOCK((folder / "s").lstat().st_mode)
    with Serving("--socket-path", "s", *NULL) as serving, closing(front_end("s")) as sock:
        assert ask_features(sock)
        assert serving.end() == 0
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("folder")
def test_a_live_one_is_not() -> None:
    with Serving("--socket-path", "s", *NULL) as serving:
        done = run("serve", "--socket-path", "s", *NULL)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            "pyvnet: s is in use: a running program listens there;"
            " stop that program, or choose another path"
        )
        with closing(front_end("s")) as sock:
            assert ask_features(sock)
        assert serving.end() == 0


def file(path: Path) -> None:
    path.write_text("precious")


def directory(path: Path) -> None:
    path.mkdir()


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [file, directory, dangling])
def test_what_is_no_socket_is_left_alone(folder: Path, make: object) -> None:
    assert callable(make)
    make(folder / "s")
    done = run("serve", "--socket-path", "s", *NULL)
    assert done.returncode == 1
    assert "s exists and is not a socket" in done.stderr
    assert (folder / "s").lstat()


def test_who_locks_the_folder_does_not_keep_others_from_starting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_LOCK_PAUSE", 0)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        made = sockets.listen("s")
    finally:
        os.close(handle)
    made.close()
    assert list(folder.iterdir()) == []


def test_a_file_that_is_somebody_elses_by_now_stays(folder: Path) -> None:
    with Serving("--socket-path", "s", *NULL) as serving:
        (folder / "s").unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind("s")
            assert serving.end() == 0
    assert (folder / "s").exists()


@pytest.mark.parametrize(
    ("mask", "words", "mode"),
    [
        (0o022, [], 0o755),
        (0o077, [], 0o700),
        (0o022, ["--socket-mode", "0660"], 0o660),
        (0o077, ["--socket-mode", "777"], 0o777),
        (0o000, ["--socket-mode", "600"], 0o600),
    ],
)
def test_the_mode_of_the_socket_file(folder: Path, mask: int, words: list[str], mode: int) -> None:
    before = os.umask(mask)
    try:
        serving = Serving("--socket-path", "s", *NULL, *words)
    finally:
        os.umask(before)
    with serving:
        assert stat.S_IMODE((folder / "s").lstat().st_mode) == mode


@pytest.mark.needs_root
def test_the_group_of_the_socket_file(folder: Path) -> None:
    words = ("--socket-mode", "0660", "--socket-group", "nogroup")
    with Serving("--socket-path", "s", *NULL, *words):
        found = (folder / "s").lstat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, 65534)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--socket-path", "no/s"], 1, "cannot listen at no/s: No such file or directory; make"),
        (["--socket-path", "x" * 108], 2, "is too long for a socket: 107 bytes at most"),
        (["--socket-path", "s", "--socket-group", "no-such"], 2, "there is no group 'no-such'"),
        (["--connect", "x" * 108], 2, "is too long for a socket"),
        (["--fd", "77"], 1, "fd 77 is no socket to serve on: Bad file descriptor"),
        (["--fd", "0"], 1, "fd 0 is no socket to serve on"),
        (["--socket-path", "s", "--admin", "no/a"], 1, "cannot listen at no/a"),
    ],
)
def test_what_fails_at_start(folder: Path, words: list[str], status: int, message: str) -> None:
    done = run("serve", *NULL, *words, stdin=subprocess.DEVNULL)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of socket-path, fd and connect is needed"),
        (["--socket-path", "s", "--fd", "3"], "socket-path, fd and connect exclude each other"),
        (["--fd", "3", "--socket-mode", "660"], "socket-mode is for a socket-path"),
        (["--fd", "3", "--port", "null", "--tap", "t"], "tap is for the host port tap"),
        (["--fd", "3", "--tap-fds", "4", "--bridge", "b"], "bridge and tap-fds exclude each other"),
        (["--fd", "3", "--tap-fds", "4,5", "--queues", "1"], "2 file descriptors for 1 queue pair"),
        (["--fd", "3", "--tap-fds", "4,4"], "names a file descriptor twice"),
        (["--fd", "3", "--tap-fds", "3"], "fd 3 is used by net0 already"),
        (["--fd", "3", "--workers", "5"], "5 workers for 4 queue pairs"),
        (["--fd", "x"], "'x' is not a number from 0"),
        (["--fd", "3", "--queues", "128"], "'128' is not a number from 1 to 127"),
        (["--fd", "3", "--mac", "1:2"], "'1:2' is not a MAC address"),
        (["--fd", "3", "--mac", "01:00:00:00:00:01"], "is not a unicast address"),
        (["--fd", "3", "--mtu", "67"], "'67' is not a number from 68"),
        (["--fd", "3", "--features", "rss,hash_repot"], "did you mean 'hash_report'?"),
        (["--fd", "3", "--no-features", "mqq"], "there is no feature 'mqq'; did you mean 'mq'?"),
        (["--fd", "3", "--compat", "lenient"], "there is no compat switch 'lenient'"),
        (["--fd", "3", "--steering", "softwar"], "did you mean 'software'?"),
        (
            ["--fd", "3", "--steering", "ebpf", "--steering-program", "o"],
            "steering ebpf and steering-program exclude each other",
        ),
        (["--fd", "3", "--steering", "software", "--bpf-fds", "4,5"], "has no use for bpf-fds"),
        (["--fd", "3", "--bpf-fds", "4"], "'4' is not two file descriptors"),
        (["--fd", "3", "--bpf-fds", "4,3"], "fd 3 is used by net0 already"),
        (["--fd", "3", "--port", "null", "--bpf-fds", "4,5"], "bpf-fds is for the host port tap"),
        (["--fd", "3", "--queue-num-unit", "rings"], "is none of pairs, vrings"),
        (["--fd", "3", "--port", "pair"], "is none of tap, pair:FD,FD…, null and null:endless"),
        (["--fd", "3", "--tap", "x" * 16], "is too long for an interface"),
        (["--socket-path", "s", "--socket-mode", "888"], "is not an octal mode"),
        (["--socket-path", "s", "--admin", "./s"], "the socket s is used by the admin socket"),
        (["--fd", "3", "--poll-us", "-5"], "'-5' is not a number from 0 to 1000000000"),
        (["--fd", "3", "--poll-us", "5ms"], "'5ms' is not a number from 0 to 1000000000"),
        (["--fd", "3", "--io", "io_uring"], "'io_uring' is none of auto, plain, uring; did you"),
        (["--fd", "3", "--worker-cpus", "3-1"], "'3-1' is a range that goes down"),
        (["--fd", "3", "--worker-cpus", "x"], "'x' is not a number from 0 to 8191"),
        (["--fd", "3", "--worker-cpus", "0,8191"], "worker-cpus: CPU 8191 is not there or not"),
        (["--fd", "3", "--live-migration", "x"], "unrecognized arguments: --live-migration"),
        (["--sock", "s"], "unrecognized arguments: --sock"),
        (["--config", "x", "--queues", "2"], "--queues: with --config"),
    ],
)
def test_wrong_usage(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    status = main(["serve", *words])
    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert message in printed.err
    assert list(folder.iterdir()) == []


def test_features_that_need_each_other(folder: Path) -> None:
    done = run("serve", "--socket-path", "s", *NULL, "--features", "rss")
    assert done.returncode == 2
    assert "rss cannot be offered without ctrl_vq" in done.stderr
    done = run("serve", "--socket-path", "s", *NULL, "--features", "mtu")
    assert done.returncode == 2
    assert "mtu cannot be offered without saying which" in done.stderr
    with Serving("--socket-path", "s", *NULL, "--no-features", "ctrl_vq") as serving:
        assert "rss is not offered either" in serving.log
    assert list(folder.iterdir()) == []


# --- --fd ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_an_inherited_connection_is_served_once() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            serving = Serving("--fd", str(theirs.fileno()), *NULL, pass_fds=[theirs.fileno()])
        with serving:
            assert "is connected: serving this front-end and no other" in serving.log
            ours.settimeout(30)
            assert ask_features(ours)
            ours.shutdown(socket.SHUT_WR)
            assert serving.wait() == 0


def test_an_inherited_listener_is_served_for_ever(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        listener.listen()
        fd = listener.fileno()
        with Serving("--fd", str(fd), *NULL, pass_fds=[fd]) as serving:
            assert f"listening at fd {fd}" in serving.log
            for count in (1, 2):
                with closing(front_end("s")) as sock:
                    assert ask_features(sock)
                serving.until("it closed the connection", count)
            assert serving.end() == 0
    assert (folder / "s").exists()  # not ours to remove


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (socket.SOCK_DGRAM, "is a socket of another kind"),
        (socket.SOCK_STREAM, "neither listens nor is connected"),
    ],
)
def test_an_inherited_socket_of_no_use(kind: int, message: str) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        fd = sock.fileno()
        done = run("serve", "--fd", str(fd), *NULL, pass_fds=[fd])
    assert done.returncode == 1
    assert message in done.stderr


# --- --connect --------------------------------------------------------------------------------


@LOOPS
@pytest.mark.requirement("PF-F-10")
def test_connects_again_and_again(folder: Path, loop: str) -> None:
    with Serving("--connect", "s", *NULL, PYVNET_LOOP=loop) as serving:
        serving.until("cannot connect to s: No such file or directory; trying on")
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as listener:
                listener.settimeout(30)
                listener.bind("s")
                listener.listen()
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(30)
                    assert ask_features(connection)
            (folder / "s").unlink()
        serving.until("cannot connect to s", 2)
        assert serving.end() == 0
        # One line for each change, however many attempts there were.
        assert serving.log.count("connected to s") == 2
        assert serving.log.count("cannot connect") <= 3


@pytest.mark.requirement("PF-F-10")
def test_it_never_waits_long_and_never_gives_up() -> None:
    waits: Iterator[float] = retry_delays()
    slept = 0.0
    while slept < 700:
        wait = next(waits)
        assert 0 < wait <= 1
        slept += wait


# --- limits --------------------------------------------------------------------------------------


def limited(limit: int, *words: str, **options: object) -> Serving:
    prefix = ("prlimit", f"--nofile={limit}:{limit}")
    return Serving(*words, prefix=prefix, **options)  # type: ignore[arg-type]


@pytest.mark.requirement("CVE-2020-10717")
async def test_file_descriptors_are_checked_at_start(folder: Path) -> None:
    words = ("--socket-path", "s", "--port", "null", "--queues", "3", "--admin", "a")
    with limited(40, *words, ready=False) as serving:
        assert serving.wait() == 1
        assert "raise the hard limit" in serving.log
        needed = int(serving.log.split("`ulimit -Hn`) to ")[1].split()[0])
    with limited(needed - 1, *words, ready=False) as serving:
        assert serving.wait() == 1
        assert f"to {needed}" in serving.log
    for limit in (needed, needed + 1):
        with limited(limit, *words) as serving:
            # All it can be made to open: rings, the admin's clients, a message full of fds.
            clients = [front_end("a") for _ in range(16)]
            async with Driver.connect("vhost-user:s") as driver:
                await driver.negotiate(pairs=3)
            with closing(front_end("s")) as sock, (folder / "f").open("w") as file:
                socket.send_fds(sock, [message(Request.GET_FEATURES)], [file.fileno()] * 32)
                assert sock.recv(1) == b""
                serving.until("32 file descriptors")
            for client in clients:
                client.close()
            assert serving.end() == 0
