# SPDX-License-Identifier: MIT
"""What a host port goes through while a device runs on it: gone, down, shared, given back."""

from __future__ import annotations

import asyncio
import logging
import os
import select
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyvnet import Device, Feature, HostError, Pair, Tap
from pyvnet.netdev import rtnl
from tests.system.support import (
    TIMEOUT,
    addresses,
    link,
    receive_udp,
    recvfrom,
    tap_in,
    tap_mac,
    udp_frame,
    udp_socket,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet import Driver
    from pyvnet.netdev.netns import NetNamespace

MQ = Feature.CTRL_VQ | Feature.MQ | Feature.EVENT_IDX
HOST, PEER = "198.18.9.1", "198.18.9.2"
on_a_tap = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.needs_tap]


async def until(device: Device, done: Callable[[], bool]) -> None:
    """Look after every round of the workers; the loop has its turn in between."""
    async with asyncio.timeout(TIMEOUT):
        while not done():
            for pair in range(device.engine.workers):
                device.engine.queue_state(2 * pair)
            await asyncio.sleep(0)


def assert_idle(device: Device) -> None:
    """No worker is scheduled while nothing happens."""
    for pair in range(device.engine.workers):
        device.engine.queue_state(2 * pair)
    select.select([], [], [], 0.05)
    before = _switches()
    select.select([], [], [], 0.2)
    after = _switches()
    # A thread of somebody else's may end meanwhile; none may begin, and none may run.
    assert after == {thread: before.get(thread) for thread in after}


def _switches() -> dict[str, list[str]]:
    tasks = (task for task in Path("/proc/self/task").iterdir() if int(task.name) != os.getpid())
    return {
        task.name: [line for line in (task / "status").read_text().splitlines() if "ctxt" in line]
        for task in tasks
    }


async def both_ways(driver: Driver, mac: bytes, netns: NetNamespace, host: str, peer: str) -> None:
    """One datagram in each direction."""
    with udp_socket(netns, host, 4000) as kernel:
        await driver.send(udp_frame(mac, (peer, 5), (host, 4000), b"there"))
        assert await recvfrom(kernel) == (b"there", (peer, 5))
        kernel.sendto(b"back", (peer, 5))
        frame = await receive_udp(driver, 4000)
        assert frame.data[42:46] == b"back"


class TestTap:
    pytestmark = on_a_tap

    async def test_a_deleted_tap_is_reported_and_costs_nothing_but_its_frames(
        self, netns: NetNamespace, caplog: pytest.LogCaptureFixture
    ) -> None:
        device = Device(netdev=tap_in(netns))
        async with device, device.driver() as driver:
            await driver.negotiate(MQ)
            await driver.ctrl.vq_pairs_set(4)
            with caplog.at_level(logging.WARNING):
                netns.run(["ip", "link", "delete", "vnet0"])
                await until(device, lambda: sum("is gone" in m for m in caplog.messages) == 4)
            assert_idle(device)
            for queue in range(4):
                for _ in range(3):
                    await driver.send(bytes(60), queue=queue)
            await driver.flush()
            assert device.statistics().tx_drop_port == 12
            # The control queue, a reset and a new start are answered as before.
            await driver.ctrl.vq_pairs_set(2)
            await driver.ctrl.vq_pairs_set(4)
            await driver.negotiate(MQ)
            await driver.send(bytes(60))
            await driver.flush()
            assert device.statistics().tx_drop_port == 13

    async def test_a_tap_deleted_while_queues_are_detached_is_reported_once_for_each(
        self, netns: NetNamespace, caplog: pytest.LogCaptureFixture
    ) -> None:
        device = Device(netdev=tap_in(netns))
        async with device, device.driver() as driver:
            await driver.negotiate(MQ)
            with caplog.at_level(logging.WARNING):
                netns.run(["ip", "link", "delete", "vnet0"])
                await driver.ctrl.vq_pairs_set(4)
                await driver.ctrl.vq_pairs_set(1)
                await driver.ctrl.vq_pairs_set(4)
                await until(device, lambda: sum("is gone" in m for m in caplog.messages) == 4)
            await driver.send(bytes(60), queue=3)
            await driver.flush()
            assert device.statistics().tx_drop_port == 1
            assert_idle(device)

    async def test_a_tap_that_goes_down_comes_back(
        self, netns: NetNamespace, caplog: pytest.LogCaptureFixture
    ) -> None:
        device = Device(netdev=tap_in(netns))
        async with device, device.driver() as driver:
            await driver.negotiate(MQ)
            await driver.ctrl.vq_pairs_set(4)
            mac = tap_mac(netns)
            for round_ in range(3):
                addresses(netns, "vnet0", HOST, [PEER])
                await both_ways(driver, mac, netns, HOST, PEER)
                netns.run(["ip", "link", "set", "vnet0", "down"])
                await driver.send(bytes(60))
                await driver.flush()
                assert device.statistics(0).tx_drop_port == round_ + 1
                assert_idle(device)
                netns.run(["ip", "link", "set", "vnet0", "up"])
        assert not [message for message in caplog.messages if "gone" in message]

    async def test_two_devices_in_one_process_keep_to_their_taps(self, netns: NetNamespace) -> None:
        first, second = (Device(netdev=tap_in(netns, name, 2)) for name in ("vnet0", "vnet1"))
        async with first, second, first.driver() as one, second.driver() as two:
            for number, (device, driver) in enumerate(((first, one), (second, two))):
                await driver.negotiate(MQ)
                host, peer = f"198.18.{number}.1", f"198.18.{number}.2"
                addresses(netns, f"vnet{number}", host, [peer])
                await both_ways(driver, tap_mac(netns, f"vnet{number}"), netns, host, peer)
                assert device.statistics().tx_packets == 1
            first.close()
            await both_ways(two, tap_mac(netns, "vnet1"), netns, "198.18.1.1", "198.18.1.2")

    async def test_a_tap_that_was_there_is_as_it_was(self, netns: NetNamespace) -> None:
        netns.run(["ip", "tuntap", "add", "vnet0", "mode", "tap", "multi_queue"])
        netns.run(["ip", "link", "set", "vnet0", "mtu", "1400"])
        # Once up and down again, for the kernel gives it its qdisc the first time.
        netns.run(["ip", "link", "set", "vnet0", "up"])
        netns.run(["ip", "link", "set", "vnet0", "down"])
        before = link(netns)
        device = Device(netdev=tap_in(netns))
        async with device, device.driver() as driver:
            await driver.negotiate(MQ)
            await driver.ctrl.vq_pairs_set(4)
            addresses(netns, "vnet0", HOST, [PEER])
            await both_ways(driver, tap_mac(netns), netns, HOST, PEER)
            assert link(netns) != before
        assert link(netns) == before

    async def test_a_tap_made_for_the_device_goes_with_it(self, netns: NetNamespace) -> None:
        async with Device(netdev=tap_in(netns)):
            assert netns.call(lambda: rtnl.get_link("vnet0")) is not None
        assert netns.call(lambda: rtnl.get_link("vnet0")) is None

    async def test_a_device_that_cannot_open_its_port_leaves_nothing(
        self, netns: NetNamespace
    ) -> None:
        with tap_in(netns), pytest.raises(HostError):
            async with Device(netdev=tap_in(netns)):
                pass
        netns.run(["ip", "tuntap", "add", "vnet0", "mode", "tap"])
        with pytest.raises(HostError):
            async with Device(
                netdev=Tap("vnet0", queues=2, netns=f"/proc/self/fd/{netns.fileno()}")
            ):
                pass


async def test_a_pair_whose_far_end_closes_is_reported_and_the_other_queue_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = Pair(2)
    device = Device(netdev=port)
    async with device, device.driver() as driver:
        await driver.negotiate(MQ)
        await driver.ctrl.vq_pairs_set(2)
        port.wire(1)._socket.close()
        await until(device, lambda: "host port queue 1 is gone" in caplog.messages)
        assert_idle(device)
        for queue in (0, 1):
            await driver.send(bytes(60), queue=queue)
        await driver.flush()
        assert (await port.wire(0).receive()).data == bytes(60)
        assert device.statistics(1).tx_drop_port == 1
        port.wire(0).send(bytes(61))
        assert (await driver.receive(timeout=TIMEOUT)).data == bytes(61)
        await until(device, lambda: device.statistics(0).rx_packets == 1)
