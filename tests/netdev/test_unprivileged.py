# SPDX-License-Identifier: MIT
"""What a user without privileges may do, and what he is told otherwise.

Each test is a child process: it imports, arranges the scene as root in mount
and network namespaces of its own, gives its privileges away and goes on.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.needs_tap]

SCENE = """
import contextlib, ctypes, os, stat, subprocess
from pathlib import Path
from pyvnet.errors import HostError
from pyvnet.netdev import Tap, host, netns, probe, rtnl, tun_uapi

assert netns.enter_private_netns() is None
Tap("warm-up", queues=1).__enter__().close()  # late imports, while they can be read
rtnl.offload_names("lo")

libc = ctypes.CDLL(None, use_errno=True)

def checked(result):
    assert result == 0, os.strerror(ctypes.get_errno())

def device_node(mode):
    CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
    checked(libc.unshare(CLONE_NEWNS))
    checked(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    checked(libc.mount(b"tmpfs", b"/dev/net", b"tmpfs", 0, None))
    if mode is not None:
        os.mknod("/dev/net/tun", stat.S_IFCHR, os.makedev(10, 200))
        os.chmod("/dev/net/tun", mode)

def drop_privileges():
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    PR_SET_DUMPABLE = 4  # as after the execve() a real user's program starts with
    checked(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))

def attempt(name, queues):
    before = sorted(os.listdir("/proc/self/fd"))
    try:
        with Tap(name, queues=queues) as tap:
            print("opened", tap.name, len(tap.fds))
    except HostError as error:
        print(error)
    assert sorted(os.listdir("/proc/self/fd")) == before
"""


def run(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCENE + script],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_no_device_node() -> None:
    (message,) = run("device_node(None); attempt('t0', 1)")
    assert message.startswith("cannot open /dev/net/tun: No such file or directory; load")
    assert "`modprobe tun`; a container needs the device passed in" in message


def test_no_access_to_the_device_node() -> None:
    (message,) = run("device_node(0o600); drop_privileges(); attempt('t0', 1)")
    assert message.startswith("cannot open /dev/net/tun: Permission denied; grant access")


def test_no_right_to_make_a_tap() -> None:
    (message,) = run("device_node(0o666); drop_privileges(); attempt('t0', 2)")
    assert message.startswith("cannot attach to tap t0: Operation not permitted; run as root")
    assert "ip tuntap add NAME mode tap multi_queue user USER" in message


def test_a_tap_of_my_own_needs_no_right_when_it_is_ready() -> None:
    prepare = """
device_node(0o666)
for name, user in (("mine", "65534"), ("yours", "1")):
    subprocess.run(["ip", "tuntap", "add", name, "mode", "tap", "multi_queue", "user", user])
    subprocess.run(["ip", "link", "set", name, "up"])
drop_privileges()
attempt("mine", 3)
attempt("mine", 3)
attempt("yours", 3)
"""
    opened, again, refused = run(prepare)
    assert opened == again == "opened mine 3"
    assert refused.startswith("cannot attach to tap yours: Operation not permitted")


def test_a_tap_of_my_own_that_is_down_stays_down() -> None:
    prepare = """
device_node(0o666)
subprocess.run(["ip", "tuntap", "add", "mine", "mode", "tap", "multi_queue", "user", "65534"])
drop_privileges()
attempt("mine", 3)
"""
    assert run(prepare) == [
        "cannot bring mine up: Operation not permitted; run as root or with CAP_NET_ADMIN"
    ]


def test_a_user_namespace_of_ones_own_allows_taps() -> None:
    script = """
device_node(0o666); drop_privileges()
print(netns.enter_private_netns())
attempt(None, 2)
assert rtnl.get_link("lo").up
"""
    assert run(script) == ["None", "opened vnet0 2"]


def test_where_user_namespaces_are_forbidden_the_reason_is_returned() -> None:
    # A limit set inside a user namespace holds for those made in it.
    script = """
drop_privileges()
assert netns.enter_private_netns() is None
Path("/proc/sys/user/max_user_namespaces").write_text("0")

class Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]

_LINUX_CAPABILITY_VERSION_3 = 0x20080522
header, none = Header(_LINUX_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
checked(libc.capset(ctypes.byref(header), none))
print(netns.enter_private_netns())
"""
    assert run(script) == ["neither CAP_SYS_ADMIN nor user namespaces: No space left on device"]


def test_a_process_with_threads_is_told_so() -> None:
    script = """
import threading
stop = threading.Event()
other = threading.Thread(target=stop.wait)
other.start()
drop_privileges()
print(netns.enter_private_netns())
stop.set()
other.join()
"""
    assert run(script) == ["only a process with one thread may make a user namespace"]


def test_the_probe_tells_a_user_what_he_lacks() -> None:
    script = """
device_node(0o666); drop_privileges()
assert not any(finding.available for finding in host.capabilities().values())
assert "grant it" in host.capabilities()["cap_net_admin"].cure
answers = probe._probe_here()
assert answers["private_tap"] == answers["multi_queue"] == {"available": True}, answers
"""
    assert run(script) == []


def test_the_probe_without_a_device_node() -> None:
    script = "device_node(None); print(probe._probe_here()['device']['reason'])"
    assert run(script) == ["No such file or directory"]
