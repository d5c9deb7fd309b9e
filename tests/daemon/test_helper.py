# SPDX-License-Identifier: MIT
"""`pyvnet helper` once: what it hands over, to whom, and what is left when something fails."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.daemon import cli
from pyvnet.netdev.netns import NetNamespace
from tests.daemon.fd_store import Store
from tests.daemon.serving import DEADLINE, PROGRAM, environment
from tests.daemon.unprivileged import NOBODY, helper, without_privilege
from tests.netdev import kernel
from tests.system import support

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
]

# What the child finds: a small program, so that it can say what it was given.
LOOK = """
import json, os
print(json.dumps({
    "status": open("/proc/self/status").read(),
    "environment": dict(os.environ), "pid": os.getpid(),
    "fds": sorted(os.listdir("/proc/self/fd"), key=int)[:-1],  # the last one lists them
    "info": [open(f"/proc/self/fdinfo/{fd}").read() for fd in range(3, 6)],
}))
"""


@pytest.fixture
def netns() -> Iterator[NetNamespace]:
    with NetNamespace() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(
    netns: NetNamespace, command: Sequence[str], **options: Any
) -> subprocess.CompletedProcess[str]:
    return netns.call(
        lambda: subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            **{"env": environment()} | options,
        )
    )


def interfaces(netns: NetNamespace) -> set[str]:
    return netns.call(kernel.interfaces)


# --- to a command --------------------------------------------------------------------------


def test_a_command_gets_the_descriptors_and_nothing_else(netns: NetNamespace) -> None:
    extra = os.open("/dev/null", os.O_RDONLY)
    words = helper("--name", "vm1", "--tap", "t", "--queues", "3", "--no-steering")
    try:
        done = run(netns, [*words, sys.executable, "-I", "-c", LOOK], pass_fds=[extra])
    finally:
        os.close(extra)
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    status = without_privilege(seen["status"])
    assert status["Groups"].split() in ([], [str(NOBODY)])
    said = seen["environment"]
    assert said["LISTEN_FDNAMES"] == "tap-vm1:tap-vm1:tap-vm1"
    assert (said["LISTEN_FDS"], said["LISTEN_PID"]) == ("3", str(seen["pid"]))
    assert [info for info in seen["info"] if "iff:\tt\n" in info] == seen["info"]
    assert seen["fds"] == [str(fd) for fd in range(6)]
    assert interfaces(netns) == {"lo"}


def test_the_tap_is_as_it_was_asked_for(netns: NetNamespace) -> None:
    netns.call(lambda: kernel.ip("link", "add", "br0", "type", "bridge"))
    words = ("--tap", "t", "--queues", "2", "--mtu", "4000", "--bridge", "br0", "--owner", "1234")
    ask = ("ip", "-json", "-details", "link", "show", "t")
    done = run(netns, [*helper(*words, "--no-steering"), *ask])
    assert done.stderr == ""
    (link,) = json.loads(done.stdout)
    info = link["linkinfo"]["info_data"]
    assert (link["mtu"], link["master"], "UP" in link["flags"]) == (4000, "br0", True)
    assert {key: info[key] for key in ("type", "pi", "vnet_hdr", "multi_queue", "persist")} == {
        "type": "tap",
        "pi": False,
        "vnet_hdr": True,
        "multi_queue": True,
        "persist": False,
    }
    assert (info["numqueues"], str(info["user"])) == (2, "1234")


def test_nobody_but_root_may_attach_queues_unless_told() -> None:
    with NetNamespace() as netns:
        attach = (
            "from pyvnet.netdev import tun_uapi as t\n"
            "t.set_iff(t.open_clone_device(), 't', t.Iff.TAP | t.Iff.NO_PI | t.Iff.VNET_HDR"
            " | t.Iff.MULTI_QUEUE)\nprint('attached')"
        )
        for owner, said in (([], "PermissionError"), (["--owner", str(NOBODY)], "attached")):
            words = helper("--tap", "t", "--queues", "2", "--no-steering", *owner)
            done = run(netns, [*words, sys.executable, "-c", attach])
            assert said in done.stdout + done.stderr


def test_the_tap_goes_to_another_namespace_and_the_command_stays(netns: NetNamespace) -> None:
    with NetNamespace() as other:
        place = other.popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            words = ("--netns", f"/proc/{place.pid}/ns/net", "--tap", "t", "--no-steering")
            listing = [
                sys.executable,
                "-c",
                "print(open('/proc/self/net/dev').read(), flush=1); input()",
            ]
            started = netns.popen(
                [*helper(*words), *listing], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert started.stdout is not None
            seen = [started.stdout.readline() for _ in range(4)]
            assert [line.partition(b":")[0].strip() for line in seen[2:]] == [b"lo", b""]
            assert interfaces(other) == {"lo", "t"}
            started.communicate(b"\n")
        finally:
            place.communicate(b"\n")
        assert interfaces(other) == {"lo"}


def test_a_tap_that_is_to_stay_does_unless_nobody_got_it(netns: NetNamespace) -> None:
    words = helper("--tap", "t", "--persist", "--no-steering")
    done = run(netns, [*words, "/no/such/program"])
    assert (done.returncode, "cannot execute /no/such/program as nobody" in done.stderr) == (
        1,
        True,
    )
    assert interfaces(netns) == {"lo"}
    assert run(netns, [*words, "true"]).returncode == 0
    assert interfaces(netns) == {"lo", "t"}


REFUSED = {
    "a name that is taken": (["--tap", "lo"], 1, "an interface of that name exists"),
    "no such bridge": (["--bridge", "br9"], 1, "there is no bridge br9"),
    "what is no bridge": (["--bridge", "lo"], 1, "there is no bridge lo"),
    "an MTU out of range": (["--mtu", "10"], 1, "Invalid argument"),
    "no such namespace": (["--netns", "no-such"], 1, "cannot open /run/netns/no-such"),
    "no namespace": (["--netns", "/etc/passwd"], 1, "/etc/passwd is not a network namespace"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_their_reason_and_leave_nothing(netns: NetNamespace, case: str) -> None:
    words, status, message = REFUSED[case]
    done = run(netns, [*PROGRAM, "helper", "--user", "1", *words, "--no-steering", "--", "true"])
    assert (done.returncode, message in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr
    assert interfaces(netns) == {"lo"}


USAGE = {
    "no queues": (["--queues", "0"], 2, "0 queues; a tap has 1 to 256"),
    "too many queues": (["--queues", "257"], 2, "257 queues"),
    "a name no interface has": (["--tap", "a/b"], 2, "cannot name an interface"),
    "a name no descriptor has": (["--name", "a:b"], 2, "it holds a colon"),
    "root": (["--user", "root"], 2, "name a user other than root"),
    "number 0": (["--user", "0:5"], 2, "name a user other than root"),
    "no such user": (["--user", "no-such-user"], 2, "there is no user 'no-such-user'"),
    "no such group": (["--user", "1:no-such"], 2, "there is no group 'no-such'"),
    "two ways": (["--fdstore"], 2, "one of `-- COMMAND`, --fdstore and --serve"),
}


@pytest.mark.parametrize("case", USAGE)
def test_what_makes_no_sense_is_said_before_anything_is_done(
    capsys: pytest.CaptureFixture[str], case: str
) -> None:
    words, status, message = USAGE[case]
    assert cli.main(["helper", "--user", "1", *words, "--", "true"]) == status
    assert message in capsys.readouterr().err


# Forks a helper again and again; its Nth call into the kernel fails, or it is killed there.
STEPS = """
import errno, os, signal, sys
from pyvnet.daemon import cli
from pyvnet.daemon.commands import helper
from pyvnet.daemon.helper import handover, made, paths, privileges, programs, taps
fault, words = sys.argv[1], sys.argv[2:]
told, tell = os.pipe()
os.set_blocking(told, False)

def hook(number):
    seen = 0
    def profile(frame, event, call):
        nonlocal seen
        module = getattr(call, "__module__", None) if event == "c_call" else None
        ours = "pyvnet/daemon" in frame.f_code.co_filename or "netdev" in frame.f_code.co_filename
        if module not in {"posix", "fcntl", "_socket"} or not ours:
            return
        seen += 1
        if seen == number:
            sys.setprofile(None)
            os.write(0, b"!")  # what else there was is closed by now
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.EIO, "injected")
    return profile

number = 0
while True:
    number += 1
    child = os.fork()
    if child == 0:
        os.dup2(tell, 0)
        os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
        sys.setprofile(hook(number))
        os._exit(cli.main(words))
    _, status = os.waitpid(child, 0)
    left = open("/proc/self/net/dev").read().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in left] == ["lo"], (number, left)
    try:
        os.read(told, 1)
    except BlockingIOError:  # there was no Nth call
        assert status == 0
        break
    # Some failures are none: a descriptor that was closed already, say.
    assert status in ({signal.SIGKILL} if fault == "kill" else {0, 1 << 8}), (number, status)
print(number)
"""


@pytest.mark.parametrize("fault", ["kill", "fail"])
def test_dying_or_failing_at_any_step_leaves_nothing(netns: NetNamespace, fault: str) -> None:
    words = ("helper", "--user", str(NOBODY), "--queues", "2", "--tap", "t", "--no-steering")
    done = run(
        netns,
        [sys.executable, "-c", STEPS, fault, *words, "--", "/bin/true"],
        cwd=serving_root(),
    )
    assert done.stderr == ""
    assert int(done.stdout) > 20


def serving_root() -> Path:
    from tests.conftest import ROOT

    return ROOT


@pytest.mark.parametrize("limit", [5, 12])
def test_a_limit_of_open_files_in_the_way(netns: NetNamespace, limit: int) -> None:
    limited = ["prlimit", f"--nofile={limit}", *PROGRAM, "helper", "--user", "1"]
    done = run(netns, [*limited, "--queues", "16", "--tap", "t", "--", "true"])
    assert done.returncode != 0
    assert interfaces(netns) == {"lo"}


# What docs/threat-model.md says a holder can do with a queue of the tap, by ioctl.
HOLDER = """
import ctypes, errno, fcntl, os, struct, sys
insn = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFF))
number = lambda value: struct.pack("i", value)
tries = {
    "TUNSETPERSIST": (0x400454CB, 1), "and off": (0x400454CB, 0),
    "TUNSETOWNER": (0x400454CC, 1), "TUNSETGROUP": (0x400454CE, 1),
    "TUNATTACHFILTER": (0x401054D5, struct.pack("HxxxxxxQ", 1, ctypes.addressof(insn))),
    "SIOCSIFHWADDR": (0x8924, struct.pack("16sH6s16x", b"", 1, bytes([2, 0, 0, 0, 0, 9]))),
    "TUNSETSNDBUF": (0x400454D4, number(100000)), "TUNSETOFFLOAD": (0x400454D0, 0),
    "TUNSETVNETHDRSZ": (0x400454D8, number(12)), "TUNSETCARRIER": (0x400454E2, number(1)),
    "TUNSETSTEERINGEBPF": (0x800454E0, number(-1)), "TUNSETFILTEREBPF": (0x800454E1, number(-1)),
    "TUNGETDEVNETNS": (0x54E3, 0),
}
for name, (request, argument) in tries.items():
    try:
        fcntl.ioctl(3, request, argument)
    except OSError as error:
        print(name, errno.errorcode[error.errno])
for name, call in (
    ("a tap", lambda: fcntl.ioctl(
        os.open("/dev/net/tun", os.O_RDWR), 0x400454CA, struct.pack("16sH22x", b"u", 0x5102))),
    ("a map", lambda: bpf.map_create(image.MapSpec("m", 2, 4, 4, 1))),
    ("a program", lambda: bpf.prog_load(bytes([0xB7, *bytes(7), 0x95, *bytes(7)]),
                                        name="p", license_="GPL")),
):
    try:
        call()
    except (OSError, HostError) as error:
        print(name, errno.errorcode[error.errno])
"""


def test_what_a_holder_can_do_and_cannot(netns: NetNamespace) -> None:
    script = "from pyvnet.errors import HostError\nfrom pyvnet.offload import bpf, image\n" + HOLDER
    words = helper("--tap", "t", "--queues", "2", "--no-steering")
    done = run(netns, [*words, sys.executable, "-c", script])
    assert done.stderr == ""
    refused = ["TUNGETDEVNETNS EPERM", "a tap EPERM"]
    if Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text().strip() != "0":
        refused += ["a map EPERM", "a program EPERM"]
    assert done.stdout.splitlines() == refused
    assert interfaces(netns) == {"lo"}


# --- paths -----------------------------------------------------------------------------------


@pytest.mark.requirement("CVE-2026-1386")
@pytest.mark.parametrize("where", ["the name itself", "a folder on the way"])
def test_no_link_is_followed_wherever_it_is_planted(
    netns: NetNamespace, folder: Path, where: str
) -> None:
    """The paths a helper opens: namespace, NOTIFY_SOCKET, and where a broker's socket goes."""
    (folder / "real").mkdir()
    (folder / "folder").symlink_to("real")
    for name in ("netns", "notify"):
        (folder / "real" / f"link-{name}").symlink_to(name)
    (folder / "real/netns").touch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("real/notify")
        at = "real/link-" if where == "the name itself" else "folder/"
        (folder / "real/link-b").symlink_to("b")
        user, taken = ("--user", "1"), "b exists and is not a socket"
        for words, env in (
            ((*user, "--netns", f"{folder}/{at}netns", "--", "true"), {}),
            (("--fdstore", "--tap", "t"), {"NOTIFY_SOCKET": f"{folder}/{at}notify"}),
            ((*user, "--serve", f"{at}b"), {}),
        ):
            done = run(netns, [*PROGRAM, "helper", *words], env=environment(**env))
            assert done.returncode == 1
            refused = "a symbolic link on the way is not followed" in done.stderr
            assert refused or taken in done.stderr
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(1)
    assert interfaces(netns) == {"lo"}
    assert not (folder / "real/b").exists()


def test_root_loads_no_more_than_it_needs(netns: NetNamespace) -> None:
    """No engine, no event loop, no netlink library: what a helper may do wrong is its own."""
    look = (
        "import sys; from pyvnet.daemon import cli\n"
        "sys.addaudithook(lambda name, _: name == 'os.exec' and print(*sys.modules))\n"
        "cli.main(['helper', '--user', '1', '--', 'true'])"
    )
    loaded = set(run(netns, [sys.executable, "-c", look]).stdout.split())
    assert "pyvnet.daemon.helper.handover" in loaded
    assert "pyvnet.offload.program" in loaded
    unwanted = {"pyvnet._native", "pyvnet.datapath", "uvloop", "asyncio", "pyroute2", "cffi"}
    assert loaded & unwanted == set()


# --- to the fd store -----------------------------------------------------------------------


def test_the_fd_store_gets_them_and_forgets_the_last_ones(
    netns: NetNamespace, folder: Path
) -> None:
    store = Store("notify")

    def run_helper(queues: int) -> None:
        words = ("helper", "--fdstore", "--name", "vm1", "--tap", "t", "--no-steering")
        helper = netns.popen(
            [*PROGRAM, *words, "--queues", str(queues)],
            env=environment(NOTIFY_SOCKET=str(folder / "notify")),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        store.serve(helper)
        assert [name for name, _ in store.stored] == ["tap-vm1"] * queues
        assert support.attached(netns, "t") == queues

    try:
        run_helper(3)
        # The service starts once more: the tap of the last time makes room for this one.
        run_helper(2)
    finally:
        store.close()
    assert interfaces(netns) == {"lo"}


def test_killed_while_the_fd_store_is_busy(netns: NetNamespace, folder: Path) -> None:
    store = Store("notify")
    helper = netns.popen(
        [*PROGRAM, "helper", "--fdstore", "--tap", "t", "--no-steering"],
        env=environment(NOTIFY_SOCKET=str(folder / "notify")),
    )
    try:
        store.socket.recv(4096)  # it is under way
        helper.kill()
        assert helper.wait(DEADLINE) == -9
    finally:
        store.close()
    assert interfaces(netns) == {"lo"}


def test_an_fd_store_that_is_not_there(netns: NetNamespace, folder: Path) -> None:
    command = [*PROGRAM, "helper", "--fdstore", "--tap", "t", "--no-steering"]
    done = run(netns, command)
    assert (done.returncode, "NOTIFY_SOCKET is not set" in done.stderr) == (1, True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind("notify")
    for address, message in (
        ("notify", "Connection refused"),
        (str(folder), "is not a socket"),
    ):
        done = run(netns, command, env=environment(NOTIFY_SOCKET=address))
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert interfaces(netns) == {"lo"}
