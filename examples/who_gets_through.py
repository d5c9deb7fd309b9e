# SPDX-License-Identifier: MIT
"""What a guest's receive filter lets through: one frame per case, out of promiscuous mode.

The driver subscribes to one multicast address and one VLAN; the device drops the
rest before it steers, and counts it.
"""

import asyncio

import pyvnet
from pyvnet import Feature
from pyvnet.testing.frames import Ipv4, Vlan, build, udp

MAC, OTHER = "52:54:00:c0:ff:ee", "52:54:00:ba:da:55"
GROUP, OTHER_GROUP = "01:00:5e:00:00:01", "01:00:5e:00:00:02"
FEATURES = Feature.VERSION_1 | Feature.MAC | Feature.CTRL_VQ | Feature.CTRL_RX | Feature.CTRL_VLAN


def frame(number: int, dst: str, *tags: int) -> bytes:
    """A frame that says by its source port which case it is."""
    return bytes(build(Ipv4(), udp(number, 9), dst=dst, vlans=[Vlan(tag) for tag in tags]))


CASES = {
    "to another host": (OTHER,),
    "broadcast": ("ff:ff:ff:ff:ff:ff",),
    "to a group subscribed to": (GROUP,),
    "to another group": (OTHER_GROUP,),
    "own address, VLAN 7": (MAC, 7),
    "own address, VLAN 8": (MAC, 8),
    "own address": (MAC,),
}


async def main() -> None:
    """Set the filter, send every case, print what arrived."""
    wire, mac = pyvnet.Pair(queues=1), bytes.fromhex(MAC.replace(":", ""))
    device = pyvnet.Device(netdev=wire, features=FEATURES, mac=mac)
    async with device, device.driver() as driver:
        await driver.negotiate(FEATURES)
        await driver.ctrl.rx_promisc(on=False)
        await driver.ctrl.mac_table_set(unicast=[], multicast=[bytes.fromhex("01005e000001")])
        await driver.ctrl.vlan_add(7)
        frames = {frame(i, *case): name for i, (name, case) in enumerate(CASES.items())}
        for each in frames:
            wire.wire(0).send(each)
        arrived = []
        while "own address" not in arrived:  # the last one, and frames keep their order
            arrived.append(frames[(await driver.receive(timeout=5)).data])
        for name in CASES:
            print(f"{name}: {'arrives' if name in arrived else 'dropped'}")
        assert device.statistics().rx_drop_filtered == len(CASES) - len(arrived)


asyncio.run(main())
