# SPDX-License-Identifier: MIT
"""Filters a guest's Linux sets: what they drop never shows in the guest's own counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.uml.build import MACVLAN_MODULES, VLAN_MODULES
from tests.system.uml.support import BROADCAST, DRIVER_MAC, SOMEBODY, deliver, frame, quiet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyvnet.netdev.netns import NetNamespace
    from tests.system.uml.conftest import Boot
    from tests.system.uml.machine import Machine
    from tests.system.uml.nic import Nic

    Send = Callable[..., Awaitable[tuple[int, int]]]

pytestmark = [
    pytest.mark.guest,
    pytest.mark.needs_program("linux.uml", "busybox", "ethtool", "ip", "gcc"),
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.one_loop("a guest takes a while to boot; the back-end is tested on both"),
]

OTHER_MAC = bytes.fromhex("020000000005")
GROUP = bytes.fromhex("01005e010203")


async def boot_quietly(boot: Boot, netns: NetNamespace) -> tuple[Machine, Nic, Send]:
    """A guest that is up, on a wire where nothing is said; and how to send to it."""
    machine, nic = await boot()
    quiet(netns)
    await machine.sh("ip link set eth0 up")

    async def send(*frames: bytes) -> tuple[int, int]:
        return await deliver(nic, machine, netns, frames)

    return machine, nic, send


@pytest.mark.requirement("NET-VLAN-02", "NET-VLAN-03", "U-35")
async def test_a_vlan_passes_while_the_guest_has_an_interface_on_it(
    boot: Boot, netns: NetNamespace
) -> None:
    machine, nic, send = await boot_quietly(boot, netns)
    tagged = [frame(BROADCAST, vlan=10), frame(DRIVER_MAC, vlan=20), frame(DRIVER_MAC, vlan=10)]
    assert await send(*tagged) == (0, 3)
    await machine.sh(
        f"for m in {' '.join(VLAN_MODULES)}; do insmod /modules/$m.ko; done;"
        " ip link add link eth0 name eth0.10 type vlan id 10 && ip link set eth0.10 up"
    )
    assert 10 in nic.device.status()["rx_filter"]["vlans"]
    assert await send(*tagged, frame(DRIVER_MAC)) == (3, 1)
    assert int(await machine.sh("cat /sys/class/net/eth0.10/statistics/rx_packets")) == 2
    await machine.sh("ip link del eth0.10")
    assert await send(*tagged, frame(DRIVER_MAC)) == (1, 3)


@pytest.mark.requirement("NET-FLT-10", "NET-FLT-11", "NET-FLT-12")
async def test_addresses_the_guest_takes_on_pass_and_those_it_leaves_do_not(
    boot: Boot, netns: NetNamespace
) -> None:
    machine, nic, send = await boot_quietly(boot, netns)
    unicast = [frame(to) for to in (DRIVER_MAC, OTHER_MAC, SOMEBODY)]
    assert await send(*unicast) == (1, 2)
    await machine.sh(f"ip link set eth0 address {OTHER_MAC.hex(':')}")
    assert nic.device.status()["config"]["mac"] == OTHER_MAC.hex(":")
    assert await send(*unicast) == (1, 2)
    await machine.sh(
        f"for m in {' '.join(MACVLAN_MODULES)}; do insmod /modules/$m.ko; done;"
        f" ip link add link eth0 name second address {DRIVER_MAC.hex(':')} type macvlan"
        " && ip link set second up"
    )
    assert await send(*unicast) == (2, 1)
    await machine.sh("ip link del second")
    assert await send(*unicast) == (1, 2)
    assert await send(frame(GROUP)) == (0, 1)
    await machine.sh(f"ip maddr add {GROUP.hex(':')} dev eth0")
    assert await send(frame(GROUP)) == (1, 0)
    await machine.sh(f"ip maddr del {GROUP.hex(':')} dev eth0")
    assert await send(frame(GROUP)) == (0, 1)


@pytest.mark.requirement("NET-FLT-01", "NET-FLT-02", "NET-FLT-03", "U-34")
async def test_promiscuous_and_allmulti_modes_widen_what_passes(
    boot: Boot, netns: NetNamespace
) -> None:
    machine, _, send = await boot_quietly(boot, netns)
    frames = [frame(SOMEBODY), frame(GROUP), frame(SOMEBODY, vlan=7)]
    assert await send(*frames) == (0, 3)
    await machine.sh("ip link set eth0 allmulticast on")
    assert await send(*frames) == (1, 2)
    await machine.sh("ip link set eth0 promisc on")
    assert await send(*frames) == (3, 0)
    await machine.sh("ip link set eth0 promisc off allmulticast off")
    assert await send(*frames) == (0, 3)
