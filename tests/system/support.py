# SPDX-License-Identifier: MIT
"""A private network namespace, a tap in it, and the kernel on the tap's far side."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyvnet import Tap
from pyvnet.netdev import rtnl
from pyvnet.netdev.flows import PEER_MAC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet import Driver
    from pyvnet.driver.receive import Frame
    from pyvnet.netdev.netns import NetNamespace

TIMEOUT = 20.0  # a hang guard
DRIVER_MAC = bytes.fromhex(PEER_MAC.replace(":", ""))
ETHERTYPE_IPV4, ETHERTYPE_ARP = b"\x08\x00", b"\x08\x06"


def tap_in(netns: NetNamespace, name: str = "vnet0", queues: int = 4) -> Tap:
    return Tap(name, queues=queues, netns=f"/proc/self/fd/{netns.fileno()}")


def link(netns: NetNamespace, name: str = "vnet0") -> dict[str, Any]:
    """What ip(8) says of an interface."""
    done = netns.run(["ip", "-json", "-details", "link", "show", name], capture_output=True)
    return dict(json.loads(done.stdout)[0])


def attached(netns: NetNamespace, name: str = "vnet0") -> int:
    """Tap queues attached, by the kernel's count."""
    return int(link(netns, name)["linkinfo"]["info_data"]["numqueues"])


def addresses(netns: NetNamespace, name: str, host: str, peers: list[str]) -> None:
    """Give the kernel an address on the tap and pin the driver's MAC to its peers."""

    def work() -> None:
        rtnl.add_address(name, host, 24)
        rtnl.add_neighbours(name, dict.fromkeys(peers, PEER_MAC))

    netns.call(work)


@contextmanager
def udp_socket(netns: NetNamespace, host: str, port: int = 0) -> Iterator[socket.socket]:
    """A UDP socket of the kernel's side."""
    made = netns.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with made:
        made.setblocking(False)
        made.bind((host, port))
        yield made


async def recvfrom(source: socket.socket) -> tuple[bytes, Any]:
    """The next datagram and its sender (uvloop has no sock_recvfrom)."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(source, readable.set)
    try:
        await asyncio.wait_for(readable.wait(), TIMEOUT)
    finally:
        loop.remove_reader(source)
    data, sender = source.recvfrom(4096)
    return data, sender


async def receive_udp(driver: Driver, source_port: int | None = None) -> Frame:
    """The next IPv4 UDP frame; MLD, router solicitations and the like are passed over."""
    while True:
        frame = await driver.receive(timeout=TIMEOUT)
        data = frame.data
        if data[12:14] != ETHERTYPE_IPV4 or data[23] != 17:
            continue
        if source_port is None or struct.unpack_from(">H", data, 34)[0] == source_port:
            return frame


def udp_frame(to: bytes, src: tuple[str, int], dst: tuple[str, int], data: bytes) -> bytes:
    """A UDP datagram as the driver sends it to the kernel; checksum 0: none."""
    segment = struct.pack(">HHHH", src[1], dst[1], 8 + len(data), 0) + data
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 17, 0)
    header += socket.inet_aton(src[0]) + socket.inet_aton(dst[0])
    header = header[:10] + checksum(header) + header[12:]
    return (to + DRIVER_MAC + ETHERTYPE_IPV4 + header + segment).ljust(60, b"\0")


def checksum(data: bytes) -> bytes:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def tap_mac(netns: NetNamespace, name: str = "vnet0") -> bytes:
    return bytes.fromhex(str(link(netns, name)["address"]).replace(":", ""))


def answer(frame: bytes, address: bytes) -> bytes | None:
    """What a small host at ``address`` answers: ARP, ICMP echo, and UDP back to its sender."""
    to, own = frame[6:12], DRIVER_MAC
    if frame[12:14] == ETHERTYPE_ARP and frame[20:22] == b"\0\1" and frame[38:42] == address:
        body = frame[14:20] + b"\0\2" + own + address + frame[22:32]
        return (to + own + ETHERTYPE_ARP + body).ljust(60, b"\0")
    if frame[12:14] != ETHERTYPE_IPV4 or frame[30:34] != address:
        return None
    # Addresses swapped: the header's checksum stays what it is.
    ip = frame[14:26] + frame[30:34] + frame[26:30]
    if frame[23] == 17:
        return to + own + ETHERTYPE_IPV4 + ip + frame[36:38] + frame[34:36] + frame[38:]
    if frame[23] == 1 and frame[34] == 8:
        echo = b"\0\0\0\0" + frame[38:]
        return to + own + ETHERTYPE_IPV4 + ip + b"\0\0" + checksum(echo) + frame[38:]
    return None
