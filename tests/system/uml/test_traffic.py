# SPDX-License-Identifier: MIT
"""Linux's virtio_net in a guest talks to the kernel on the tap's other side."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from pyvnet.spec.features import Feature, feature_names
from pyvnet.spec.offloads import GUEST_OFFLOADS
from tests.system.support import TIMEOUT, addresses
from tests.system.uml.support import GUEST, HOST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyvnet.netdev.netns import NetNamespace
    from tests.system.uml.conftest import Boot
    from tests.system.uml.machine import Machine
    from tests.system.uml.nic import Nic

pytestmark = [
    pytest.mark.guest,
    pytest.mark.needs_program("linux.uml", "busybox", "ethtool", "ip", "gcc"),
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.one_loop("a guest takes a while to boot; the back-end is tested on both"),
]

HOST6, GUEST6 = "2001:db8:9::1", "2001:db8:9::2"
PORT: Final = 5000
MIB: Final = 1 << 20
SWITCHES: Final = 3
LARGEST: Final = 1514  # a frame nobody needs to cut, at the usual MTU of 1500
CUT: Final = Feature.GUEST_TSO4 | Feature.GUEST_TSO6 | Feature.GUEST_ECN


@dataclass(frozen=True, slots=True)
class Wire:
    """A guest with addresses, and data in /share for it to send."""

    machine: Machine
    nic: Nic
    netns: NetNamespace
    data: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    async def from_guest(self, host: str = HOST) -> float:
        """The guest sends the data; returns the average length of its frames."""
        before = self.nic.counters()
        with self.listening(host) as listener:
            sending = self.machine.start(f"stream send {host} {PORT} < /share/data")
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(TIMEOUT):
                connection, _ = await loop.sock_accept(listener)
                hashed = hashlib.sha256()
                with connection:
                    connection.setblocking(False)
                    while received := await loop.sock_recv(connection, MIB):
                        hashed.update(received)
            assert hashed.hexdigest() == self.digest
            assert await sending.wait() == (0, "")
        after = self.nic.counters()
        return (after.tx_bytes - before.tx_bytes) / (after.tx_packets - before.tx_packets)

    async def to_guest(self, guest: str = GUEST) -> float:
        """The guest receives the data; returns the average length of the frames to it."""
        before = self.nic.counters()
        receiving = self.machine.start(f"stream receive {PORT} | sha256sum")
        assert await receiving.line() == "ready"
        family = socket.AF_INET6 if ":" in guest else socket.AF_INET
        loop = asyncio.get_running_loop()
        with self.netns.call(lambda: socket.socket(family, socket.SOCK_STREAM)) as connection:
            connection.setblocking(False)
            async with asyncio.timeout(TIMEOUT):
                await loop.sock_connect(connection, (guest, PORT))
                await loop.sock_sendall(connection, self.data)
        assert (await receiving.wait()).output.split()[0] == self.digest
        after = self.nic.counters()
        return (after.rx_bytes - before.rx_bytes) / (after.rx_packets - before.rx_packets)

    @contextmanager
    def listening(self, host: str) -> Iterator[socket.socket]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with self.netns.call(lambda: socket.create_server((host, PORT), family=family)) as listener:
            listener.setblocking(False)
            yield listener


async def boot_wired(boot: Boot, netns: NetNamespace, folder: Path, size: int) -> Wire:
    machine, nic = await boot()
    addresses(netns, "vnet0", HOST, [])
    netns.run(["ip", "addr", "add", f"{HOST6}/64", "dev", "vnet0", "nodad"])
    await machine.sh(
        f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up;"
        f" ip addr add {GUEST6}/64 dev eth0 nodad"
    )
    data = os.urandom(size)
    (folder / "data").write_bytes(data)
    return Wire(machine, nic, netns, data)


@pytest.mark.requirement("NET-RX-11", "NET-RX-12")
async def test_a_guest_pings_and_both_ways_16_mib_go_in_segments_larger_than_frames(
    boot: Boot, netns: NetNamespace, tmp_path: Path
) -> None:
    wire = await boot_wired(boot, netns, tmp_path, 16 * MIB)
    assert "3 packets received" in await wire.machine.sh(f"ping -c 3 -i 0.1 {HOST}")
    for host, guest in ((HOST, GUEST), (HOST6, GUEST6)):
        # Twice the largest frame on average: most of it went uncut.
        assert await wire.from_guest(host) > 2 * LARGEST
        assert await wire.to_guest(guest) > 2 * LARGEST
    assert wire.nic.counters().tx_drops == 0


@pytest.mark.requirement("NET-OFL-01", "NET-OFL-02")
async def test_receive_offloads_are_switched_while_traffic_flows(
    boot: Boot, netns: NetNamespace, tmp_path: Path
) -> None:
    wire = await boot_wired(boot, netns, tmp_path, 4 * MIB)
    negotiated = wire.nic.device.device.features & GUEST_OFFLOADS
    assert wire.nic.device.device.policy.guest_offloads == negotiated
    await wire.machine.sh("ethtool -K eth0 rx-gro-hw off")
    uncut = wire.nic.device.device.policy.guest_offloads
    assert feature_names(uncut) == feature_names(negotiated & ~CUT)
    for guest in (GUEST, GUEST6):
        assert await wire.to_guest(guest) <= LARGEST
    await wire.machine.sh("ethtool -K eth0 rx-gro-hw on")
    assert wire.nic.device.device.policy.guest_offloads == negotiated
    assert await wire.to_guest() > LARGEST
    commands = wire.nic.device.status()["counters"]["control_commands"]
    switching = asyncio.create_task(
        wire.machine.sh(
            f"for i in $(seq {SWITCHES});"
            " do ethtool -K eth0 rx-gro-hw off; ethtool -K eth0 rx-gro-hw on; done"
        )
    )
    while not switching.done():
        await wire.to_guest()
    await switching
    switched = wire.nic.device.status()["counters"]["control_commands"] - commands
    assert switched == 2 * SWITCHES
    assert wire.nic.device.status()["counters"]["control_failures"] == 0


async def test_a_guest_that_cuts_and_sums_itself_is_understood(
    boot: Boot, netns: NetNamespace, tmp_path: Path
) -> None:
    wire = await boot_wired(boot, netns, tmp_path, 4 * MIB)
    await wire.machine.sh("ethtool -K eth0 tso off")
    assert await wire.from_guest() <= LARGEST
    await wire.machine.sh("ethtool -K eth0 tx off")
    assert await wire.from_guest(HOST6) <= LARGEST
    await wire.machine.sh("ethtool -K eth0 tx on tso on gro off")
    assert await wire.from_guest() > LARGEST
    assert await wire.to_guest() > LARGEST
    # Nothing but what the guest left to the device was taken from it.
    assert "rx-checksumming: on [fixed]" in await wire.machine.sh("ethtool -k eth0")


@pytest.mark.requirement("NET-OFL-02", "NET-RX-11", "NET-MQ-04")
async def test_a_guest_with_an_xdp_program_gets_frames_cut_and_summed(
    boot: Boot, netns: NetNamespace, tmp_path: Path
) -> None:
    wire = await boot_wired(boot, netns, tmp_path, 2 * MIB)
    negotiated = wire.nic.device.device.policy.guest_offloads
    program = wire.machine.start("xdp eth0")
    assert await program.line() == "ready"
    assert wire.nic.device.device.policy.guest_offloads == 0
    # It has a transmit queue more, for what the program sends.
    assert wire.nic.device.device.policy.pairs == 2
    for host, guest in ((HOST, GUEST), (HOST6, GUEST6)):
        assert await wire.to_guest(guest) <= LARGEST
        assert await wire.from_guest(host) > LARGEST
    await program.kill()
    assert wire.nic.device.device.policy.guest_offloads == negotiated
    assert await wire.to_guest() > LARGEST
