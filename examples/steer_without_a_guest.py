# SPDX-License-Identifier: MIT
"""A virtio-net device, its driver and the wire in one process: no guest, no root.

Three flows go in on the wire; the driver sees on which receive queue, with which
hash and report each of them arrives.
"""

import asyncio

import pyvnet
from pyvnet import Feature, HashType, RssConfig
from pyvnet.spec.rss import VERIFICATION_KEY
from pyvnet.testing.frames import Ipv4, Ipv6, build, tcp, udp

FLOWS = {
    "TCP over IPv4": build(Ipv4(src="198.18.0.1", dst="198.18.0.2"), tcp(40_000, 443)),
    "UDP over IPv4": build(Ipv4(src="198.18.0.1", dst="198.18.0.2"), udp(40_000, 53)),
    "TCP over IPv6": build(Ipv6(src="2001:2::1", dst="2001:2::2"), tcp(40_000, 443)),
}


async def main() -> None:
    """Set up, steer, print."""
    wire = pyvnet.Pair(queues=4)
    async with pyvnet.Device(netdev=wire) as device, device.driver() as driver:
        await driver.negotiate(
            Feature.VERSION_1 | Feature.CTRL_VQ | Feature.MQ | Feature.RSS | Feature.HASH_REPORT
        )
        await driver.ctrl.rss_config(
            RssConfig(
                hash_types=HashType.TCPV4 | HashType.UDPV4 | HashType.TCPV6,
                indirection_table=(0, 1, 2, 3) * 32,
                key=VERIFICATION_KEY,
                max_tx_vq=4,
            )
        )
        for name, packet in FLOWS.items():
            wire.wire(0).send(bytes(packet))
            frame = await driver.receive(timeout=5)
            print(f"{name}: receiveq {frame.queue}, hash 0x{frame.hash_value:08x}")
            assert frame.data == bytes(packet)


asyncio.run(main())
