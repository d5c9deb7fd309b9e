# SPDX-License-Identifier: MIT
"""What the kernel's stack hands to a tap whose reader negotiated no offload."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pyvnet import Device, Feature
from pyvnet.netdev.flows import start_flows
from pyvnet.reference import parse
from tests.system.support import DRIVER_MAC, TIMEOUT, checksum, tap_in

if TYPE_CHECKING:
    from pyvnet.netdev.netns import NetNamespace

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.needs_tap]


def sums_up(frame: bytes) -> bool:
    """Is the TCP or UDP checksum of an unfragmented, optionless packet complete and right?"""
    flow = parse(frame)
    start = 14 + (20 if flow.l3 == 4 else 40)
    length = struct.unpack_from(">H", frame, 16 if flow.l3 == 4 else 18)[0]
    segment = frame[start : start + length - (20 if flow.l3 == 4 else 0)]
    pseudo = flow.saddr + flow.daddr + struct.pack(">II", len(segment), flow.l4)
    return (
        checksum((pseudo + segment).ljust(len(pseudo) + len(segment) + len(segment) % 2, b"\0"))
        == b"\0\0"
    )


@pytest.mark.requirement("NET-RX-05", "NET-RX-06")
async def test_without_guest_csum_every_checksum_is_complete_and_flags_are_0(
    netns: NetNamespace,
) -> None:
    device = Device(netdev=tap_in(netns, queues=1))
    async with device, device.driver() as driver:
        await driver.negotiate(Feature.MRG_RXBUF)
        with netns.call(lambda: start_flows("vnet0", 32, 1)) as flows:
            left = netns.call(lambda: sum(flows.batches()))
            while left:
                frame = await driver.receive(timeout=TIMEOUT)
                assert frame.header.flags == 0
                assert frame.header.gso_type == 0
                if frame.data[:6] == DRIVER_MAC:
                    assert sums_up(frame.data)
                    left -= 1
        assert device.statistics().rx_drop_offload == 0
