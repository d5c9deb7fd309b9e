# SPDX-License-Identifier: MIT
"""rtnetlink from anywhere: inside loops, under either policy, in the caller's namespace."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from pyvnet.errors import HostError
from pyvnet.netdev import fresh_thread, rtnl
from tests.netdev import kernel
from tests.netdev.kernel import ip

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.usefixtures("private_netns"),
]


@pytest.fixture
def tap_fd(private_netns: None) -> Iterator[int]:  # noqa: ARG001 it is made there
    """The queue that gives the tap a carrier."""
    fd = kernel.attach("t0", kernel.IFF_TAP | kernel.IFF_NO_PI)
    yield fd
    os.close(fd)


@pytest.fixture
def tap(tap_fd: int) -> str:  # noqa: ARG001 held open meanwhile
    """An interface to try things on."""
    return "t0"


def found(name: str) -> rtnl.Link:
    link = rtnl.get_link(name)
    assert link is not None
    return link


def test_up_down_mtu(tap: str) -> None:
    assert not found(tap).up
    rtnl.set_up(tap)
    assert found(tap).up
    rtnl.set_down(tap)
    assert not found(tap).up
    rtnl.set_mtu(tap, 1400)
    assert found(tap).mtu == 1400
    assert found(tap).kind == "tun"
    assert found("lo").tun is None


def test_addresses_are_usable_at_once_and_may_be_there_already(tap: str) -> None:
    rtnl.set_up(tap)
    for _ in range(2):
        rtnl.add_address(tap, "198.18.0.1", 24)
        rtnl.add_address(tap, "2001:2::1", 64)
    shown = ip("address", "show", "dev", tap)
    assert "inet 198.18.0.1/24" in shown
    assert "inet6 2001:2::1/64 scope global nodad" in shown
    assert "tentative" not in shown.partition("2001:2::1")[2].partition("valid_lft")[0]


def test_neighbours_are_permanent(tap: str) -> None:
    rtnl.set_up(tap)
    mac = "02:00:00:00:00:07"
    rtnl.add_neighbours(tap, {"198.18.0.9": mac, "2001:2::9": mac})
    shown = ip("neighbour", "show", "dev", tap)
    assert f"198.18.0.9 lladdr {mac} PERMANENT" in shown
    assert f"2001:2::9 lladdr {mac} PERMANENT" in shown


def test_statistics_count_what_was_read(tap: str, tap_fd: int) -> None:
    rtnl.set_up(tap)
    rtnl.add_address(tap, "198.18.0.1", 24)
    rtnl.add_neighbours(tap, {"198.18.0.9": "02:00:00:00:00:07"})
    before = rtnl.statistics(tap)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(bytes(100), ("198.18.0.9", 9))
    assert rtnl.statistics(tap) == before
    os.set_blocking(tap_fd, False)
    frames = kernel.drain(tap_fd)
    after = rtnl.statistics(tap)
    assert after.tx_packets == before.tx_packets + len(frames)
    assert after.tx_bytes == before.tx_bytes + sum(map(len, frames))
    assert 142 in map(len, frames)


def test_no_such_interface() -> None:
    assert rtnl.get_link("nope") is None
    with pytest.raises(HostError, match="there is no interface nope; `ip link`"):
        rtnl.set_up("nope")
    with pytest.raises(HostError, match="there is no interface nope"):
        rtnl.statistics("nope")


def test_a_refusal_says_what_was_tried(tap: str) -> None:
    with pytest.raises(HostError, match="cannot set the MTU of t0 to 1: Invalid argument"):
        rtnl.set_mtu(tap, 1)


async def test_works_inside_a_running_loop(tap: str) -> None:
    rtnl.set_up(tap)
    assert (await fresh_thread.off_loop(found, tap)).up


async def test_off_loop_keeps_the_loop_running() -> None:
    proceed = threading.Event()
    asyncio.get_running_loop().call_soon(proceed.set)
    assert await fresh_thread.off_loop(proceed.wait, 10)


async def test_off_loop_works_in_the_namespace_of_its_caller(tap: str) -> None:
    # The default executor's threads may be older than the namespace; a fresh one is not.
    assert await fresh_thread.off_loop(rtnl.get_link, tap) is not None


WHICH_FLAVOUR_WORKS = """
import asyncio, gc, sys, uvloop
from pyroute2 import AsyncIPRoute, IPRoute

async def asynchronous():
    async with AsyncIPRoute() as ipr:
        return [link async for link in await ipr.get_links()]

async def synchronous():
    with IPRoute() as ipr:
        return ipr.get_links()

for run in (asyncio.run, uvloop.run):
    for work in (asynchronous, synchronous):
        try:
            run(work())
        except Exception as error:
            print(run.__module__, work.__name__, type(error).__name__, error)
        else:
            print(run.__module__, work.__name__, "works")
"""


def test_why_rtnl_uses_the_synchronous_flavour_in_a_thread() -> None:
    """Pins down pyroute2's limits: when this fails, upstream mended one; simplify ``rtnl``."""
    child = subprocess.run(
        [sys.executable, "-c", WHICH_FLAVOUR_WORKS], check=True, capture_output=True, text=True
    )
    assert child.stdout.splitlines() == [
        "asyncio.runners asynchronous works",
        "asyncio.runners synchronous RuntimeError This event loop is already running",
        "uvloop asynchronous ValueError cannot open a UDP handle, invalid family 16",
        "uvloop synchronous RuntimeError this event loop is already running.",
    ]


def test_works_where_uvloop_is_the_installed_policy() -> None:
    script = "import uvloop; uvloop.install(); from pyvnet.netdev import rtnl; rtnl.set_up('lo')"
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
