# SPDX-License-Identifier: MIT
"""Steering set with ethtool(8) in a guest, judged frame by frame by the slow reference.

A guest has a NIC for each way of steering.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from pyvnet import HashType
from pyvnet.netdev.flows import start_flows
from pyvnet.netdev.netns import NetNamespace
from pyvnet.reference import classify, steer
from pyvnet.spec.rss import VERIFICATION_KEY
from tests.system.support import TIMEOUT
from tests.system.traffic import STEERINGS
from tests.system.uml.build import NET_MODULES
from tests.system.uml.machine import Machine
from tests.system.uml.nic import QUEUES, Nic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.system.uml.build import Built

    Sides = list["Side"]
    BootSides = Callable[[], Awaitable[Sides]]

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


@dataclass(frozen=True)
class Side:
    """One NIC: the guest's interface, the device, and the namespace of its tap."""

    machine: Machine
    eth: str
    nic: Nic
    netns: NetNamespace
    steering: str

    async def sh(self, command: str) -> str:
        """Run a shell command, in which ``ETH`` is the interface."""
        return await self.machine.sh(command.replace("ETH", self.eth))

    def steering_status(self) -> dict[str, Any]:
        """As status output shows it, owner and all; the owner is the one asked for."""
        status: dict[str, Any] = self.nic.device.status()["steering"]
        wanted = self.steering if status["mode"] == "rss" else "kernel-auto"
        assert status["owner"] == wanted, status
        return status


@pytest.fixture
async def boot_sides(built: Built, tmp_path: Path) -> AsyncIterator[BootSides]:
    """Boots a guest with a NIC for each way of steering."""
    async with AsyncExitStack() as stack:

        async def boot_now() -> Sides:
            nics = []
            for steering in STEERINGS:
                netns = stack.enter_context(NetNamespace())
                nic = Nic(netns, tmp_path / steering, steering=steering)
                nics.append((await stack.enter_async_context(nic), netns, steering))
            paths = [nic.path for nic, _, _ in nics]
            machine = await stack.enter_async_context(Machine(built, tmp_path, paths))
            return [Side(machine, f"eth{i}", *nic) for i, nic in enumerate(nics)]

        yield boot_now


async def set_rss(side: Side, key: bytes, weights: str) -> None:
    await side.sh(f"ethtool -X ETH hkey {key.hex(':')} {weights}")


async def table_of(side: Side) -> list[int]:
    """The indirection table the guest believes in."""
    shown = await side.sh("ethtool -x ETH")
    rows = re.findall(r"^ +\d+:((?: +\d+)+)$", shown, re.MULTILINE)
    return [int(queue) for row in rows for queue in row.split()]


async def per_queue(side: Side) -> list[int]:
    """Frames received on each queue, by the guest's count."""
    shown = await side.sh("ethtool -S ETH")
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


async def seen_by_guest(side: Side) -> list[tuple[int, int, bytes]]:
    """Send TCP and UDP flows over IPv4 and IPv6; returns (queue, hash, frame) for each frame.

    The device's counters and the guest's own must agree on what came where.
    """
    nic, netns = side.nic, side.netns
    before = nic.counters()
    device_before = [nic.counters(pair).rx_packets for pair in range(QUEUES)]
    guest_before = await per_queue(side)
    watching = side.machine.start(f"rxhash {side.eth} {FLOWS * ROUNDS} {QUEUES}")
    assert await watching.line() == "ready"
    with netns.call(lambda: start_flows("vnet0", FLOWS, ROUNDS, batch=BATCH)) as flows:
        batches, sent = flows.batches(), 0
        while count := netns.call(lambda: next(batches, 0)):
            sent += count
            await placed(nic, before.rx_port_frames + sent)
        assert sent == FLOWS * ROUNDS
    seen = []
    for line in (await watching.wait()).output.splitlines():
        queue, value, data = line.split()
        seen.append((int(queue, 16), int(value, 16), bytes.fromhex(data)))
    assert len(seen) == FLOWS * ROUNDS
    device_after = [nic.counters(pair).rx_packets for pair in range(QUEUES)]
    guest_after = await per_queue(side)
    arrived = [after - before for before, after in zip(device_before, device_after, strict=True)]
    assert arrived == [
        after - before for before, after in zip(guest_before, guest_after[:QUEUES], strict=True)
    ]
    assert all(
        arrived[pair] >= sum(queue == pair for queue, _, _ in seen) for pair in range(QUEUES)
    )
    after = nic.counters()
    if side.steering == "ebpf":
        assert after.rx_handoffs == before.rx_handoffs
        assert after.rx_resteered == before.rx_resteered
    return seen


@pytest.mark.requirement("NET-RSS-01", "NET-RSS-02", "NET-REP-01", "NET-REP-03", "U-12", "U-30")
async def test_flows_land_where_the_table_says_with_the_reference_hash(
    boot_sides: BootSides,
) -> None:
    for side in await boot_sides():
        await side.sh(f"ethtool -L ETH combined {QUEUES}; ip link set ETH up")
        await set_rss(side, KEY, "weight 2 4 2 3")
        await side.sh("ethtool -K ETH rxhash on")
        table = await table_of(side)
        steering = side.steering_status()
        assert steering["indirection_table"] == table
        assert set(table) == set(range(QUEUES))
        assert steering["key"] == KEY.hex()
        assert side.nic.device.device.policy.hash_types == ALL_TYPES
        # Sent with every RSS_CONFIG of this driver, although it has four pairs by now.
        assert steering["max_tx_vq"] == 1
        queues = set()
        for queue, value, data in await seen_by_guest(side):
            expected = classify(data, ALL_TYPES, KEY)
            assert (value, queue) == (expected.value, steer(expected, table, 0))
            queues.add(queue)
        assert queues == set(range(QUEUES))


@pytest.mark.requirement("NET-HASH-05", "U-14")
async def test_hash_types_follow_what_the_guest_asks_for(boot_sides: BootSides) -> None:
    for side in await boot_sides():
        await side.sh(f"ethtool -L ETH combined {QUEUES}; ip link set ETH up")
        await set_rss(side, KEY, f"equal {QUEUES}")
        await side.sh("ethtool -K ETH rxhash on")
        table = await table_of(side)
        await side.sh("ethtool -N ETH rx-flow-hash udp4 sd && ethtool -N ETH rx-flow-hash tcp6 sd")
        types = ALL_TYPES & ~(HashType.UDPV4 | HashType.TCPV6)
        policy = side.nic.device.device
        assert policy.policy.hash_types == types
        for queue, value, data in await seen_by_guest(side):
            expected = classify(data, types, KEY)
            assert queue == steer(expected, table, 0)
            # The kernel makes up a hash of its own where addresses alone were hashed.
            if classify(data, ALL_TYPES, KEY) == expected:
                assert value == expected.value
        for flow in ("udp4", "tcp6"):
            await side.sh(f"ethtool -N ETH rx-flow-hash {flow} sdfn")
        assert policy.policy.hash_types == ALL_TYPES
        await side.sh("ethtool -K ETH rxhash off")
        assert policy.policy.hash_types == 0
        assert {queue for queue, _, _ in await seen_by_guest(side)} == {0}
        side.steering_status()


@pytest.mark.requirement("NET-MQ-02", "NET-MQ-04", "U-15", "U-59")
async def test_a_module_loaded_again_starts_with_one_pair_and_takes_another_key(
    boot_sides: BootSides,
) -> None:
    sides = await boot_sides()
    for side in sides:
        await side.sh(f"ethtool -L ETH combined {QUEUES}; ip link set ETH up")
        await set_rss(side, KEY, f"equal {QUEUES}")
        await side.sh("ethtool -K ETH rxhash on")
    driver = NET_MODULES[-1]
    await sides[0].machine.sh(f"rmmod {driver} && insmod /modules/{driver}.ko")
    for side in sides:
        steering = side.steering_status()
        assert (steering["mode"], steering["pairs"]) == ("automatic", 1)
        assert steering["hash_types"] == []
        assert side.nic.device.device.policy.rx_filter.promisc
        await side.sh(f"ethtool -L ETH combined {QUEUES}; ip link set ETH up")
        await set_rss(side, OTHER_KEY, "weight 3 1 0 4")
        await side.sh("ethtool -K ETH rxhash on")
        table = await table_of(side)
        assert 2 not in table
        for queue, value, data in await seen_by_guest(side):
            expected = classify(data, ALL_TYPES, OTHER_KEY)
            assert (value, queue) == (expected.value, steer(expected, table, 0))
        await side.sh("ethtool -L ETH combined 4")
