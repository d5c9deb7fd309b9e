# SPDX-License-Identifier: MIT
"""A device on a tap whose driver uses RSS, and frames of the kernel's side, each judged."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from pyvnet import Device, Feature, HashType, Pair, RssConfig, Tap
from pyvnet.spec.rss import VERIFICATION_KEY
from tests.system.support import DRIVER_MAC, TIMEOUT, tap_in
from tests.system.traffic import Place, flows, place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyvnet.driver import Driver
    from pyvnet.netdev.netns import NetNamespace

RSS = (
    Feature.CTRL_VQ
    | Feature.MQ
    | Feature.RSS
    | Feature.HASH_REPORT
    | Feature.MRG_RXBUF
    | Feature.CTRL_RX
)
QUEUES = 4
FLOWS = list(islice(flows(), 32))


def over(*queues: int, step: int = 3) -> RssConfig:
    """RSS over some queues, by a table of its own for each step."""
    table = tuple(queues[(step * i + i // 7) % len(queues)] for i in range(128))
    return RssConfig(HashType(0x1FF), table, VERIFICATION_KEY, max_tx_vq=1)


CONFIG = over(*range(QUEUES))


@asynccontextmanager
async def steered(
    port: Pair | Tap | NetNamespace, **options: Any
) -> AsyncIterator[tuple[Device, Driver]]:
    """A device on a tap in a namespace (or on another port), and its driver."""
    netdev = port if isinstance(port, Pair | Tap) else tap_in(port, queues=QUEUES)
    device = Device(netdev=netdev, mac=DRIVER_MAC, **options)
    async with device, device.driver() as driver:
        await driver.negotiate(RSS)
        yield device, driver


def send(netns: NetNamespace, name: str = "vnet0") -> None:
    """A frame of every flow, out of the kernel into the tap."""
    with netns.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as wire:
        wire.bind((name, 0))
        for flow in FLOWS:
            wire.send(flow)


async def receive(driver: Driver) -> list[int]:
    """Those frames; returns the receiveq of each."""
    return [(await driver.receive(timeout=TIMEOUT)).queue for _ in FLOWS]


async def exchange(netns: NetNamespace, driver: Driver, config: RssConfig = CONFIG) -> None:
    """Send them, and see that each comes where and as the reference says."""
    send(netns)
    for _ in FLOWS:
        frame = await driver.receive(timeout=TIMEOUT)
        got = Place(frame.queue, frame.hash_value, frame.hash_report)
        assert got == place(frame.data, config)
