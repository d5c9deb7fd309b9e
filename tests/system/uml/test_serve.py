# SPDX-License-Identifier: MIT
"""Guests on `pyvnet serve`, operated from outside as its users do.

The back-end is nobody's process, without a capability; tap and steering
program were handed over by `pyvnet helper`.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet import HashType
from pyvnet.daemon import admin_client
from pyvnet.daemon.admin import parse
from pyvnet.netdev import rtnl
from pyvnet.netdev.flows import start_flows
from pyvnet.reference import classify, steer
from pyvnet.spec.rss import VERIFICATION_KEY
from tests.daemon.serving import Serving
from tests.daemon.unprivileged import NOBODY, helper, without_privilege
from tests.system.support import TIMEOUT, addresses
from tests.system.uml.machine import Machine
from tests.system.uml.support import GUEST, HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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


FLOWS = 64
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


def placed(admin: Path, frames: int) -> None:
    """Wait until the workers took so many frames off the tap."""
    deadline = time.monotonic() + TIMEOUT
    while (read := sum(queue["rx_port_frames"] for queue in status(admin)["queues"])) < frames:
        assert time.monotonic() < deadline, f"{read} of {frames} frames"


async def steered(machine: Machine, netns: NetNamespace, admin: Path) -> set[int]:
    """Send flows; each frame is to be where table and reference say; returns their queues."""
    key = VERIFICATION_KEY[::-1]
    await machine.sh(f"ethtool -X eth0 hkey {key.hex(':')} weight 2 4 2 3")
    await machine.sh("ethtool -K eth0 rxhash on")
    shown = status(admin)
    table = shown["steering"]["indirection_table"]
    watching = machine.start(f"rxhash eth0 {FLOWS} 4")
    assert await watching.line() == "ready"
    sent = sum(queue["rx_port_frames"] for queue in shown["queues"])
    mac = shown["config"]["mac"]
    with netns.call(lambda: start_flows("vnet0", FLOWS, 1, batch=16, peer_mac=mac)) as flows:
        batches = flows.batches()
        while count := netns.call(lambda: next(batches, 0)):
            sent += count
            placed(admin, sent)
    queues = set()
    for line in (await watching.wait()).output.splitlines():
        queue, value, data = line.split()
        expected = classify(bytes.fromhex(data), HashType(0x3F), key)
        assert (int(value, 16), int(queue, 16)) == (expected.value, steer(expected, table, 0))
        queues.add(int(queue, 16))
    return queues


@pytest.mark.requirement("U-59", "NET-LNK-01", "NET-MQ-02", "NET-RSS-02", "NET-REP-01")
async def test_guests_one_after_the_other_on_a_served_device_that_is_operated(
    built: Built, netns: NetNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nic, admin = tmp_path / "net0", tmp_path / "admin"
    monkeypatch.chdir(tmp_path)  # which nobody can reach by its full name
    os.chown(tmp_path, NOBODY, NOBODY)
    named = ("--tap-fds", "named", "--bpf-fds", "named")
    words = ("--socket-path", "net0", "--admin", "admin", *named)
    made = helper("--tap", "vnet0", "--queues", "4")
    with Serving(*words, netns=netns, prefix=made) as serving:
        text = await asyncio.to_thread(Path(f"/proc/{serving.process.pid}/status").read_text)
        without_privilege(text)
        addresses(netns, "vnet0", HOST, [])
        async with guest(built, tmp_path, nic) as machine:
            await machine.sh("ethtool -L eth0 combined 4; ethtool -X eth0 equal 4")
            first = status(admin)
            assert first["steering"]["mode"] == "rss"
            assert first["steering"]["owner"] == "ebpf"
            assert first["steering"]["queues_in_force"] == [0, 1, 2, 3]
            assert await steered(machine, netns, admin) == {0, 1, 2, 3}
            assert status(admin)["steering"]["owner"] == "ebpf"
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
