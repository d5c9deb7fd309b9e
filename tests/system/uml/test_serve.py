# SPDX-License-Identifier: MIT
"""A guest on `pyvnet serve`, operated from outside as its users do."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.daemon import admin_client
from pyvnet.daemon.admin import parse
from pyvnet.netdev import rtnl
from tests.daemon.serving import Serving
from tests.system.support import addresses
from tests.system.uml.machine import Machine
from tests.system.uml.support import GUEST, HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pyvnet.netdev.netns import NetNamespace
    from tests.system.uml.build import Built

pytestmark = [
    pytest.mark.guest,
    pytest.mark.needs_program("linux.uml", "busybox", "ethtool", "ip", "gcc"),
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.one_loop("a guest takes a while to boot; the back-end is tested on both"),
]


CARRIER = "$(cat /sys/class/net/eth0/carrier)"


def ask(admin: Path, *command: str) -> Any:
    """What the service answers to an operator."""
    return admin_client.ask(str(admin), parse(" ".join(command).encode()))


def status(admin: Path) -> Any:
    (device,) = ask(admin, "status")["devices"]
    return device


@asynccontextmanager
async def guest(built: Built, folder: Path, nic: Path) -> AsyncIterator[Machine]:
    """One with an address; the host answers its pings."""
    async with Machine(built, folder, [nic]) as machine:
        await machine.sh(f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up")
        await machine.sh(f"ping -c 2 -i 0.1 {HOST}")
        yield machine


@pytest.mark.requirement("U-59", "NET-LNK-01", "NET-MQ-02")
async def test_guests_one_after_the_other_on_a_served_device_that_is_operated(
    built: Built, netns: NetNamespace, tmp_path: Path
) -> None:
    nic, admin = tmp_path / "net0", tmp_path / "admin"
    words = f"--socket-path {nic} --tap vnet0 --queues 4 --admin {admin}".split()
    with Serving(*words, netns=netns) as serving:
        addresses(netns, "vnet0", HOST, [])
        async with guest(built, tmp_path, nic) as machine:
            await machine.sh("ethtool -L eth0 combined 4; ethtool -X eth0 equal 4")
            first = status(admin)
            assert first["steering"]["mode"] == "rss"
            assert first["steering"]["queues_in_force"] == [0, 1, 2, 3]
        serving.until("front-end disconnected")
        async with guest(built, tmp_path, nic) as machine:
            second = status(admin)
            assert second["frontend"]["connections"] == 2
            assert second["config"]["mac"] == first["config"]["mac"]
            assert second["features"] == first["features"]
            assert second["steering"]["mode"] == "automatic"
            assert second["steering"]["queues_in_force"] == [0]
            # Out at the host's end, then at the guest's: either is enough.
            netns.run(["ip", "link", "set", "vnet0", "carrier", "off"])
            await machine.until(f"[ {CARRIER} = 0 ]")
            ask(admin, "link", "down")
            netns.run(["ip", "link", "set", "vnet0", "carrier", "on"])
            assert await machine.sh(f"echo {CARRIER}") == "0\n"
            ask(admin, "link", "up")
            await machine.until(f"[ {CARRIER} = 1 ]")
            assert ask(admin, "announce")["announced"]
            await machine.sh(f"ping -c 2 -i 0.1 {HOST}")
            assert serving.end() == 0
            assert await machine.sh("echo alive") == "alive\n"
    assert not nic.exists()
    assert netns.call(lambda: rtnl.get_link("vnet0")) is None
