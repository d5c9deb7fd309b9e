# SPDX-License-Identifier: MIT
"""What a guest and the device tell each other: cables, announcements, refusals, beginnings."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.datapath.native import Native
from tests.system.support import DRIVER_MAC, TIMEOUT, addresses
from tests.system.uml.nic import QUEUES
from tests.system.uml.support import GUEST, HOST, packet_socket, quiet

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from pyvnet.netdev.netns import NetNamespace
    from tests.system.uml.conftest import Boot

pytestmark = [
    pytest.mark.guest,
    pytest.mark.needs_program("linux.uml", "busybox", "ethtool", "ip", "gcc"),
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.one_loop("a guest takes a while to boot; the back-end is tested on both"),
]

# enum vnet_fail_site of native/src/test_hooks.h
FAIL_ALLOC, FAIL_PORT_ATTACH, FAIL_PORT_OFFLOADS = 0, 6, 7
CARRIER = "$(cat /sys/class/net/eth0/carrier)"
OPERSTATE = "cat /sys/class/net/eth0/operstate"
UNBOUND = "[ ! -e /sys/class/net/eth0 ]"


@pytest.fixture
def hooks(native_hooks: tuple[Any, Any]) -> Iterator[Native]:
    native = Native(*native_hooks)
    yield native
    for site in (FAIL_ALLOC, FAIL_PORT_ATTACH, FAIL_PORT_OFFLOADS):
        native.lib.vnet_test_fail(site, 0)


async def arp(wire: socket.socket) -> bytes:
    """The next ARP packet a guest sends."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(TIMEOUT):
        while (got := await loop.sock_recv(wire, 2048))[12:14] != b"\x08\x06":
            pass
    return got


@pytest.mark.requirement("NET-LNK-01", "NET-ANN-01", "NET-ANN-02")
async def test_a_guest_sees_the_cable_and_announces_itself_when_asked(
    boot: Boot, netns: NetNamespace
) -> None:
    machine, nic = await boot()
    quiet(netns)
    await machine.sh(f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up")
    await machine.until(f"[ $({OPERSTATE}) = up ]")
    nic.device.set_link(up=False)
    await machine.until(f"[ {CARRIER} = 0 ]")
    await machine.until(f"[ $({OPERSTATE}) = down ]")
    nic.device.set_link(up=True)
    await machine.until(f"[ {CARRIER} = 1 ]")
    await machine.until(f"[ $({OPERSTATE}) = up ]")
    commands = nic.device.status()["counters"]["control_commands"]
    with packet_socket(netns) as wire:
        assert nic.device.announce()
        said = await arp(wire)
    # Who has GUEST? tell GUEST: for everybody to learn where it is.
    address = bytes(map(int, GUEST.split(".")))
    assert said[:12] == b"\xff" * 6 + DRIVER_MAC
    assert (said[28:32], said[38:42]) == (address, address)
    async with asyncio.timeout(TIMEOUT):
        while nic.device.status()["config"]["announce"]:
            await machine.sh("true")
    assert nic.device.status()["counters"]["control_commands"] == commands + 1
    assert (await machine.sh(OPERSTATE)).strip() == "up"


@pytest.mark.requirement("U-07")
async def test_what_the_device_refuses_is_an_invalid_argument_to_the_guests_tools(
    boot: Boot, netns: NetNamespace, hooks: Native
) -> None:
    machine, nic = await boot(native=hooks)
    addresses(netns, "vnet0", HOST, [])
    await machine.sh(f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up")
    refused = [
        (FAIL_PORT_ATTACH, f"ethtool -L eth0 combined {QUEUES}", "Invalid argument"),
        (FAIL_PORT_OFFLOADS, "ethtool -K eth0 rx-gro-hw off", "rx-gro-hw: on [requested off]"),
        (FAIL_ALLOC, "ip link set eth0 address 02:00:00:00:00:07", "Invalid argument"),
        (FAIL_PORT_ATTACH, f"ethtool -X eth0 equal {QUEUES}", ""),  # this driver does not look
    ]
    for failures, (site, command, said) in enumerate(refused, 1):
        before = nic.device.device.policy
        hooks.lib.vnet_test_fail(site, 1)
        result = await machine.run(command)
        hooks.lib.vnet_test_fail(site, 0)
        assert said in result.output
        assert bool(result.status) == bool(said)
        assert nic.device.status()["counters"]["control_failures"] == failures
        assert nic.device.device.policy == before
        # Leaves two queues of the tap for the last one to attach.
        await machine.sh(f"ethtool -L eth0 combined {QUEUES}; ethtool -X eth0 equal 2")
    assert "1 packets received" in await machine.sh(f"ping -c 1 {HOST}")


@pytest.mark.requirement("NET-MQ-02", "U-12", "U-59")
async def test_a_driver_unbound_and_bound_again_sends_on_all_queues_whatever_max_tx_vq_says(
    boot: Boot, netns: NetNamespace
) -> None:
    machine, nic = await boot()
    addresses(netns, "vnet0", HOST, [])
    for _ in range(2):
        await machine.sh("echo virtio0 > /sys/bus/virtio/drivers/virtio_net/unbind")
        await machine.until(UNBOUND)
        await machine.sh("echo virtio0 > /sys/bus/virtio/drivers/virtio_net/bind")
        await machine.until("[ -e /sys/class/net/eth0 ]")
        steering = nic.device.status()["steering"]
        assert (steering["mode"], steering["pairs"]) == ("automatic", 1)
    await machine.sh(
        f"ethtool -L eth0 combined {QUEUES};"
        f" ip addr add {GUEST}/24 dev eth0; ip link set eth0 up;"
        f" ethtool -X eth0 equal {QUEUES}; ethtool -K eth0 rxhash on"
    )
    assert nic.device.status()["steering"]["max_tx_vq"] == 1
    before = [nic.counters(pair).tx_packets for pair in range(QUEUES)]
    # A connection each, refused: flows that the guest's kernel spreads over its queues.
    await machine.run(f"for i in $(seq 64); do stream send {HOST} 9 </dev/null; done")
    sent = [nic.counters(pair).tx_packets - before[pair] for pair in range(QUEUES)]
    assert min(sent) > 0
    assert sum(sent) >= 64
    assert nic.counters().tx_drops == 0
