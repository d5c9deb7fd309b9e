# SPDX-License-Identifier: MIT
"""The units of examples/systemd: judged by systemd, and what they execute executed."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pyvnet import Driver
from pyvnet.netdev.netns import NetNamespace
from tests.conftest import ROOT
from tests.daemon.fd_store import Store
from tests.daemon.serving import DEADLINE, PROGRAM, Serving, environment
from tests.daemon.test_without_privilege import HOST, PEER, PLAIN, exchange, status, unprivileged
from tests.daemon.unprivileged import NOBODY, SETPRIV
from tests.netdev import kernel
from tests.system import support

if TYPE_CHECKING:
    from pathlib import Path

UNITS = ROOT / "examples/systemd"
SANDBOXED = [
    *(sys.executable, str(ROOT / "tests/daemon/sandboxed.py")),
    str(UNITS / "pyvnet@.service"),
]


def analyze(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words, f"{folder}/pyvnet@vm1.service"],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


@pytest.mark.needs_program("systemd-analyze")
def test_systemd_finds_nothing_wrong_with_them(tmp_path: Path) -> None:
    """An instance, with the program where it is here; an exposure of at most 1.0 of 10."""
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/bin/pyvnet", sys.executable)
        (tmp_path / unit.name.replace("@", "@vm1")).write_text(text)
    done = analyze(tmp_path, "verify", "--man=no")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = analyze(tmp_path, "security", "--offline=yes", "--no-pager", "--threshold=10")
    assert done.returncode == 0, done.stdout


def executed(key: str) -> list[str]:
    """What a line of the service executes for the instance vm1."""
    text = (UNITS / "pyvnet@.service").read_text()
    (line,) = re.findall(rf"^{key}=\+?/usr/bin/pyvnet (.*)$", text, re.MULTILINE)
    words = line.replace("%i", "vm1").replace("%t/pyvnet/vm1/admin.sock", "a")
    assert "%" not in words
    return shlex.split(words)


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_tap
@pytest.mark.needs_program("systemd-analyze", "gcc")
@pytest.mark.one_loop("what is tested runs in a process of its own")
async def test_what_they_execute_works_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helper as root, then the device as nobody in a network namespace without the tap.

    The device may make the system calls that the unit allows, and no others.

    The fd store hands over in the reverse of the order it was given, as systemd
    does; who asks by name is not to mind.
    """
    monkeypatch.chdir(tmp_path)
    os.chown(tmp_path, NOBODY, NOBODY)
    with NetNamespace() as host, NetNamespace() as private:
        store = Store("notify")
        words = executed("ExecStartPre")
        del words[words.index("--netns") : words.index("--netns") + 2]  # the host's is ours here
        helper = host.popen(
            [*PROGRAM, *words],
            env=environment(NOTIFY_SOCKET=str(tmp_path / "notify")),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            store.serve(helper)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind("s")
            listener.listen()
            store.stored.append(("vhost-vm1", listener.detach()))
            await serve_from(store, host, private)
        finally:
            store.close()
        assert host.call(kernel.interfaces) == {"lo"}


async def serve_from(store: Store, host: NetNamespace, private: NetNamespace) -> None:
    handed = store.stored[::-1]
    for place, (_, fd) in enumerate(handed, 200):
        os.dup2(fd, place, inheritable=False)
    # From 3 on in the child: the shell's redirections, whatever is open here.
    moved = " ".join(f"{place}<&{place + 197}" for place in range(3, 3 + len(handed)))
    shut = " ".join(f"{place + 197}<&-" for place in range(3, 3 + len(handed)))
    script = f'exec {moved} {shut}; LISTEN_PID=$$ exec "$@"'
    try:
        with Serving(
            *executed("ExecStart")[1:],
            netns=private,
            prefix=["bash", "-c", script, "start", *SETPRIV, *SANDBOXED],
            pass_fds=range(200, 200 + len(handed)),
            LISTEN_FDS=str(len(handed)),
            LISTEN_FDNAMES=":".join(name for name, _ in handed),
        ) as serving:
            unprivileged(serving)
            support.addresses(host, "vm1", HOST, [PEER])
            async with Driver.connect("vhost-user:s") as driver:
                await driver.negotiate()
                await driver.ctrl.rss_config(PLAIN)
                assert await exchange(driver, host, PLAIN, "vm1") == {0, 1, 2, 3}
                shown = status()
                assert shown["steering"]["owner"] == "ebpf"
                assert sum(queue["rx_handoffs"] for queue in shown["queues"]) < 8
            assert serving.end() == 0
    finally:
        for place in range(200, 200 + len(handed)):
            os.close(place)
