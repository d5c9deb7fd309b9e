# SPDX-License-Identifier: MIT
"""Steering set with ethtool(8) in a guest, judged frame by frame by the slow reference."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

import pytest

from pyvnet import HashType
from pyvnet.netdev.flows import start_flows
from pyvnet.reference import classify, steer
from pyvnet.spec.rss import VERIFICATION_KEY
from tests.system.support import TIMEOUT
from tests.system.uml.build import NET_MODULES
from tests.system.uml.nic import QUEUES

if TYPE_CHECKING:
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

KEY: Final = bytes(reversed(VERIFICATION_KEY))
OTHER_KEY: Final = bytes(range(1, 41))
ALL_TYPES: Final = HashType(0x3F)  # what this driver knows: no EX types
FLOWS: Final = 64
ROUNDS: Final = 2
# One worker places what all of them read: no more than it has room for between two looks.
BATCH: Final = 16


async def set_rss(machine: Machine, key: bytes, weights: str) -> None:
    await machine.sh(f"ethtool -X eth0 hkey {key.hex(':')} {weights}")


async def table_of(machine: Machine) -> list[int]:
    """The indirection table the guest believes in."""
    shown = await machine.sh("ethtool -x eth0")
    rows = re.findall(r"^ +\d+:((?: +\d+)+)$", shown, re.MULTILINE)
    return [int(queue) for row in rows for queue in row.split()]


async def per_queue(machine: Machine) -> list[int]:
    """Frames received on each queue, by the guest's count."""
    shown = await machine.sh("ethtool -S eth0")
    return [int(count) for count in re.findall(r"rx_queue_\d+_packets: (\d+)", shown)]


async def placed(nic: Nic, frames: int) -> None:
    """Wait until the workers are done with that many frames off the tap in all."""
    read = 0
    async with asyncio.timeout(TIMEOUT):
        while read < frames:
            read = nic.counters().rx_port_frames
            for pair in range(QUEUES):
                nic.device.engine.queue_state(2 * pair)
            await asyncio.sleep(0)


async def seen_by_guest(
    machine: Machine, nic: Nic, netns: NetNamespace
) -> list[tuple[int, int, bytes]]:
    """Send TCP and UDP flows over IPv4 and IPv6; returns (queue, hash, frame) for each frame.

    The device's counters and the guest's own must agree on what came where.
    """
    device_before = [nic.counters(pair).rx_packets for pair in range(QUEUES)]
    read_before = nic.counters().rx_port_frames
    guest_before = await per_queue(machine)
    watching = machine.start(f"rxhash eth0 {FLOWS * ROUNDS} {QUEUES}")
    assert await watching.line() == "ready"
    with netns.call(lambda: start_flows("vnet0", FLOWS, ROUNDS, batch=BATCH)) as flows:
        batches, sent = flows.batches(), 0
        while count := netns.call(lambda: next(batches, 0)):
            sent += count
            await placed(nic, read_before + sent)
        assert sent == FLOWS * ROUNDS
    seen = []
    for line in (await watching.wait()).output.splitlines():
        queue, value, data = line.split()
        seen.append((int(queue, 16), int(value, 16), bytes.fromhex(data)))
    assert len(seen) == FLOWS * ROUNDS
    device_after = [nic.counters(pair).rx_packets for pair in range(QUEUES)]
    guest_after = await per_queue(machine)
    arrived = [after - before for before, after in zip(device_before, device_after, strict=True)]
    assert arrived == [
        after - before for before, after in zip(guest_before, guest_after[:QUEUES], strict=True)
    ]
    assert all(
        arrived[pair] >= sum(queue == pair for queue, _, _ in seen) for pair in range(QUEUES)
    )
    return seen


@pytest.mark.requirement("NET-RSS-01", "NET-RSS-02", "NET-REP-01", "NET-REP-03", "U-12", "U-30")
async def test_flows_land_where_the_table_says_with_the_reference_hash(
    boot: Boot, netns: NetNamespace
) -> None:
    machine, nic = await boot()
    await machine.sh(f"ethtool -L eth0 combined {QUEUES}; ip link set eth0 up")
    await set_rss(machine, KEY, "weight 2 4 2 3")
    await machine.sh("ethtool -K eth0 rxhash on")
    table = await table_of(machine)
    steering = nic.device.status()["steering"]
    assert steering["indirection_table"] == table
    assert set(table) == set(range(QUEUES))
    assert steering["key"] == KEY.hex()
    assert nic.device.device.policy.hash_types == ALL_TYPES
    # Sent with every RSS_CONFIG of this driver, although it has four pairs by now.
    assert steering["max_tx_vq"] == 1
    queues = set()
    for queue, value, data in await seen_by_guest(machine, nic, netns):
        expected = classify(data, ALL_TYPES, KEY)
        assert (value, queue) == (expected.value, steer(expected, table, 0))
        queues.add(queue)
    assert queues == set(range(QUEUES))


@pytest.mark.requirement("NET-HASH-05", "U-14")
async def test_hash_types_follow_what_the_guest_asks_for(boot: Boot, netns: NetNamespace) -> None:
    machine, nic = await boot()
    await machine.sh(f"ethtool -L eth0 combined {QUEUES}; ip link set eth0 up")
    await set_rss(machine, KEY, f"equal {QUEUES}")
    await machine.sh("ethtool -K eth0 rxhash on")
    table = await table_of(machine)
    await machine.sh("ethtool -N eth0 rx-flow-hash udp4 sd && ethtool -N eth0 rx-flow-hash tcp6 sd")
    types = ALL_TYPES & ~(HashType.UDPV4 | HashType.TCPV6)
    assert nic.device.device.policy.hash_types == types
    for queue, value, data in await seen_by_guest(machine, nic, netns):
        expected = classify(data, types, KEY)
        assert queue == steer(expected, table, 0)
        # The kernel makes up a hash of its own where addresses alone were hashed.
        if classify(data, ALL_TYPES, KEY) == expected:
            assert value == expected.value
    for flow in ("udp4", "tcp6"):
        await machine.sh(f"ethtool -N eth0 rx-flow-hash {flow} sdfn")
    assert nic.device.device.policy.hash_types == ALL_TYPES
    await machine.sh("ethtool -K eth0 rxhash off")
    assert nic.device.device.policy.hash_types == 0
    assert {queue for queue, _, _ in await seen_by_guest(machine, nic, netns)} == {0}


@pytest.mark.requirement("NET-MQ-02", "NET-MQ-04", "U-15", "U-59")
async def test_a_module_loaded_again_starts_with_one_pair_and_takes_another_key(
    boot: Boot, netns: NetNamespace
) -> None:
    machine, nic = await boot()
    await machine.sh(f"ethtool -L eth0 combined {QUEUES}; ip link set eth0 up")
    await set_rss(machine, KEY, f"equal {QUEUES}")
    await machine.sh("ethtool -K eth0 rxhash on")
    driver = NET_MODULES[-1]
    await machine.sh(f"rmmod {driver} && insmod /modules/{driver}.ko")
    steering = nic.device.status()["steering"]
    assert (steering["mode"], steering["pairs"]) == ("automatic", 1)
    assert steering["hash_types"] == []
    assert nic.device.device.policy.rx_filter.promisc
    await machine.sh(f"ethtool -L eth0 combined {QUEUES}; ip link set eth0 up")
    await set_rss(machine, OTHER_KEY, "weight 3 1 0 4")
    await machine.sh("ethtool -K eth0 rxhash on")
    table = await table_of(machine)
    assert 2 not in table
    for queue, value, data in await seen_by_guest(machine, nic, netns):
        expected = classify(data, ALL_TYPES, OTHER_KEY)
        assert (value, queue) == (expected.value, steer(expected, table, 0))
    await machine.sh("ethtool -L eth0 combined 4")
