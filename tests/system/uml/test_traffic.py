# SPDX-License-Identifier: MIT
"""Linux's virtio_net in a guest talks to the kernel on the tap's other side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.support import addresses

if TYPE_CHECKING:
    from pyvnet.netdev.netns import NetNamespace
    from tests.system.uml.conftest import Boot

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.one_loop("a guest takes a while to boot; the back-end is tested on both"),
]

HOST, GUEST = "198.18.9.1", "198.18.9.2"


async def test_a_guest_boots_and_pings(boot: Boot, netns: NetNamespace) -> None:
    machine, nic = await boot()
    addresses(netns, "vnet0", HOST, [])
    await machine.sh(f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up")
    assert "3 packets received" in await machine.sh(f"ping -c 3 -i 0.1 {HOST}")
    assert nic.counters().rx_packets >= 3
