# SPDX-License-Identifier: MIT
"""Namespaces belong to threads: entering, visiting, and what other threads see of it."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from pyvnet.errors import HostError
from pyvnet.netdev import Tap, fresh_thread, rtnl
from pyvnet.netdev.netns import NetNamespace
from tests.netdev.kernel import interfaces, ip, open_fds

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns]


def here() -> str:
    return str(Path("/proc/thread-self/ns/net").readlink())


def test_entering_moves_this_thread_and_those_it_starts(request: pytest.FixtureRequest) -> None:
    seen: list[str] = []
    go = threading.Event()

    def older_thread() -> None:
        go.wait()
        seen.append(here())

    older = threading.Thread(target=older_thread)
    older.start()
    before = here()
    request.getfixturevalue("private_netns")
    go.set()
    older.join()
    assert seen == [before]
    assert here() != before
    assert fresh_thread.call(here) == here()
    assert interfaces() == {"lo"}
    link = rtnl.get_link("lo")
    assert link is not None
    assert link.up


def test_a_namespace_lives_while_it_is_held() -> None:
    before, fds = here(), open_fds()
    with NetNamespace() as namespace:
        namespace.call(lambda: ip("link", "add", "b0", "type", "bridge"))
        assert namespace.call(interfaces) == {"lo", "b0"}
        assert "b0" in namespace.run(["ip", "link"], capture_output=True, text=True).stdout
        with namespace.popen(["ip", "link", "show", "b0"], stdout=subprocess.DEVNULL) as child:
            assert child.wait() == 0
    assert here() == before
    namespace.close()
    assert open_fds() == fds


def test_what_fails_in_a_namespace_fails_here() -> None:
    def fail() -> None:
        raise ValueError("inside")

    with NetNamespace() as namespace, pytest.raises(ValueError, match="inside"):
        namespace.call(fail)


@pytest.mark.parametrize("name", ["no-such-namespace", "/no/such/path"])
def test_no_such_namespace(name: str) -> None:
    with pytest.raises(HostError, match=r"cannot open network namespace .*`ip netns add"):
        NetNamespace.named(name)


def test_a_file_that_is_no_namespace(tmp_path: Path) -> None:
    other = tmp_path / "file"
    other.touch()
    with (
        NetNamespace(other) as namespace,
        pytest.raises(HostError, match="cannot enter the network namespace"),
    ):
        namespace.call(here)


@pytest.mark.needs_tap
@pytest.mark.usefixtures("private_netns")
def test_a_tap_in_another_namespace() -> None:
    fds = open_fds()
    with NetNamespace() as other:
        path = f"/proc/self/fd/{other.fileno()}"
        with Tap("far", queues=2, mtu=1400, netns=path) as tap:
            assert interfaces() == {"lo"}
            assert other.call(interfaces) == {"lo", "far"}
            assert tap.statistics().rx_packets == 0
        assert other.call(interfaces) == {"lo"}
    assert open_fds() == fds


@pytest.mark.needs_tap
@pytest.mark.usefixtures("private_netns")
def test_a_tap_stays_reachable_from_threads_elsewhere() -> None:
    with NetNamespace() as elsewhere, Tap("ours", queues=1) as tap:
        assert elsewhere.call(tap.statistics).rx_packets == 0
        elsewhere.call(tap.close)
        assert interfaces() == {"lo"}
