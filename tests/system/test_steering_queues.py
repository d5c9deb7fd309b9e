# SPDX-License-Identifier: MIT
"""A frame gets to its receiveq from whatever tap queue the kernel put it on."""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from pyvnet import Feature, HashType, RssConfig
from pyvnet.netdev import tun_uapi
from pyvnet.netdev.flows import start_flows
from pyvnet.spec.rss import VERIFICATION_KEY
from tests.system.programs import redirecting
from tests.system.support import DRIVER_MAC, TIMEOUT, tap_in
from tests.system.traffic import (
    BY,
    FLOWS,
    QUEUES,
    RSS,
    Place,
    Traffic,
    drop_reasons,
    flows,
    place,
    steered_by,
    tap_dropped,
)

if TYPE_CHECKING:
    from pyvnet import Device
    from pyvnet.driver import Driver
    from pyvnet.netdev.netns import NetNamespace

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.one_loop("about the kernel and the engine"),
]

CONFIG = RssConfig(
    HashType(0x1FF), tuple((5 * i + i // 7) % QUEUES for i in range(128)), VERIFICATION_KEY
)
FRAMES = 320
AT_ONCE = 32  # fewer than there are slots between workers
CHOSEN = list(islice(flows(), FLOWS))
PLACES = [place(flow, CONFIG) for flow in CHOSEN]


async def start(device: Device, driver: Driver, steering: str) -> None:
    await driver.negotiate(RSS | Feature.MQ)
    await driver.ctrl.rss_config(CONFIG)
    assert device.steering_owner == steering


async def send(traffic: Traffic) -> list[int]:
    """Send ``FRAMES``, each judged; returns how many came on each receiveq."""
    before = traffic.per_queue.copy()
    for _ in range(FRAMES // AT_ONCE):
        traffic.allow_more(AT_ONCE)
        await traffic.rest()
    return [traffic.per_queue[queue] - before[queue] for queue in range(QUEUES)]


def read(device: Device) -> list[int]:
    """Frames read from each tap queue, by the pair that owns it."""
    return [device.statistics(pair).rx_port_frames for pair in range(QUEUES)]


@BY
@pytest.mark.requirement("NET-RSS-01", "NET-REP-01", "NET-REP-03")
async def test_frames_redirected_past_the_steering_get_to_their_receiveq(
    silent: NetNamespace, steering: str
) -> None:
    device = steered_by(steering, tap_in(silent, queues=QUEUES))
    silent.run(["ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1"])
    for name in ("veth0", "veth1"):
        silent.run(["ip", "link", "set", name, "up"])
    async with device, device.driver() as driver:
        await start(device, driver, steering)
        with redirecting(silent, "veth1", "vnet0"):
            for cpu in os.sched_getaffinity(0):
                async with Traffic(
                    device, driver, silent, CHOSEN, name="veth0", cpu=cpu
                ) as traffic:
                    traffic.expect(lambda flow: (PLACES[flow],))
                    frames, resteered = read(device), device.statistics().rx_resteered
                    came = await send(traffic)
                    # XDP_REDIRECT goes by CPU.
                    frames[cpu % QUEUES] += FRAMES
                    assert read(device) == frames
                    wrong = FRAMES - came[cpu % QUEUES]
                    assert wrong
                    assert device.statistics().rx_resteered - resteered == wrong
        assert drop_reasons(device.statistics()) == {}
        assert tap_dropped(device) == 0


@BY
@pytest.mark.requirement("U-62", "NET-RSS-01")
async def test_queues_renumbered_by_an_outsider_still_feed_the_right_rings(
    silent: NetNamespace, steering: str
) -> None:
    device = steered_by(steering, tap_in(silent, queues=QUEUES))
    async with device, device.driver() as driver:
        await start(device, driver, steering)
        async with Traffic(device, driver, silent, CHOSEN) as traffic:
            traffic.expect(lambda flow: (PLACES[flow],))
            # Who has the queue of each number the kernel gives: the last takes the place
            # of one that goes, one that comes is the last.
            for change, detached, owners in (
                ([], 0, (0, 1, 2, 3)),
                ([(1, False)], 1, (0, 3, 2)),
                ([(1, True)], 0, (0, 3, 2, 1)),
                ([(0, False), (0, True)], 0, (1, 3, 2, 0)),
            ):
                for queue, attached in change:
                    outsider = os.dup(device.netdev.fds[queue])
                    tun_uapi.set_queue(outsider, attached=attached)
                    os.close(outsider)
                frames, resteered = read(device), device.statistics().rx_resteered
                came = await send(traffic)
                assert min(came) > 0
                arrived = [now - then for now, then in zip(read(device), frames, strict=True)]
                assert sum(arrived) == FRAMES
                if detached:
                    assert arrived[detached] == 0
                if steering != "software":
                    # The program says q; the kernel takes it modulo the queues there are.
                    by_owner = [owners[queue % len(owners)] for queue in range(QUEUES)]
                    wrong = sum(came[queue] for queue in range(QUEUES) if by_owner[queue] != queue)
                    assert device.statistics().rx_resteered - resteered == wrong
        assert drop_reasons(device.statistics()) == {}


@BY
@pytest.mark.requirement("NET-RSS-01", "U-62")
async def test_a_device_puts_queues_in_order_that_an_outsider_left_in_disorder(
    silent: NetNamespace, steering: str
) -> None:
    device = steered_by(steering, tap_in(silent, queues=QUEUES))
    async with device, device.driver() as driver:
        await start(device, driver, steering)
        tun_uapi.set_queue(device.netdev.fds[1], attached=False)
        await driver.ctrl.vq_pairs_set(1)
        await driver.ctrl.rss_config(CONFIG)
        async with Traffic(device, driver, silent, CHOSEN) as traffic:
            traffic.expect(lambda flow: (PLACES[flow],))
            before = device.statistics().rx_resteered
            frames = read(device)
            came = await send(traffic)
            if steering != "software":
                assert device.statistics().rx_resteered == before
                assert read(device) == [a + b for a, b in zip(frames, came, strict=True)]


@BY
@pytest.mark.requirement("NET-RSS-01", "NET-RSS-02", "NET-REP-01")
async def test_a_program_that_steers_leaves_nothing_to_hand_over(
    silent: NetNamespace, steering: str
) -> None:
    device = steered_by(steering, tap_in(silent, queues=QUEUES))
    async with device, device.driver() as driver:
        await start(device, driver, steering)
        with silent.call(lambda: start_flows("vnet0", FLOWS, 8, batch=FLOWS)) as sending:
            batches = sending.batches()
            while sent := silent.call(lambda: next(batches, 0)):
                while sent:
                    frame = await driver.receive(timeout=TIMEOUT)
                    got = Place(frame.queue, frame.hash_value, frame.hash_report)
                    assert got == place(frame.data, CONFIG)
                    sent -= frame.data[:6] == DRIVER_MAC
        counted = device.statistics()
        if steering == "software":
            assert counted.rx_handoffs > 0
            assert counted.rx_resteered > 0
        else:
            assert counted.rx_handoffs == counted.rx_resteered == 0
