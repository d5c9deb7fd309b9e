# SPDX-License-Identifier: MIT
"""What tests do on the host's side of a guest's NIC."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.system.support import DRIVER_MAC, TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyvnet.netdev.netns import NetNamespace
    from tests.system.uml.machine import Machine
    from tests.system.uml.nic import Nic

HOST, GUEST = "198.18.9.1", "198.18.9.2"
SOMEBODY = bytes.fromhex("020000000099")
BROADCAST = b"\xff" * 6
_ETHERTYPE = b"\x88\xb5"  # for experiments: no stack answers


def quiet(netns: NetNamespace, tap: str = "vnet0") -> None:
    """Keep the host's kernel from saying anything of its own on the tap."""
    netns.call(lambda: Path(f"/proc/sys/net/ipv6/conf/{tap}/disable_ipv6").write_text("1"))


@contextmanager
def packet_socket(netns: NetNamespace, tap: str = "vnet0") -> Iterator[socket.socket]:
    """The tap's wire, from the host's end."""
    with netns.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as made:
        made.bind((tap, 3))  # ETH_P_ALL
        made.setblocking(False)
        yield made


def frame(to: bytes, *, vlan: int | None = None) -> bytes:
    """A frame nobody answers, tagged or not."""
    tag = b"" if vlan is None else b"\x81\x00" + vlan.to_bytes(2, "big")
    return (to + SOMEBODY + tag + _ETHERTYPE).ljust(60, b"\0")


async def deliver(
    nic: Nic, machine: Machine, netns: NetNamespace, frames: Sequence[bytes]
) -> tuple[int, int]:
    """Send frames to the guest's only queue; returns how many got there, how many were filtered.

    A broadcast follows them, so that all has been counted when that one is.
    """
    before, filtered = nic.counters(), nic.counters().rx_drop_filtered
    seen = await rx_packets(machine)
    with packet_socket(netns) as wire:
        for sent in (*frames, frame(BROADCAST)):
            wire.send(sent)
    total = before.rx_port_frames + len(frames) + 1
    async with asyncio.timeout(TIMEOUT):
        while nic.counters().rx_port_frames < total:
            nic.device.engine.queue_state(0)
            await asyncio.sleep(0)
    nic.device.engine.queue_state(0)
    after = nic.counters()
    passed = after.rx_packets - before.rx_packets
    await machine.until(f"[ $(cat {_RX_PACKETS}) -ge {seen + passed} ]")
    assert await rx_packets(machine) == seen + passed
    return passed - 1, after.rx_drop_filtered - filtered


_RX_PACKETS = "/sys/class/net/eth0/statistics/rx_packets"


async def rx_packets(machine: Machine) -> int:
    """What the guest counts on eth0."""
    return int(await machine.sh(f"cat {_RX_PACKETS}"))


__all__ = ["BROADCAST", "DRIVER_MAC", "GUEST", "HOST", "SOMEBODY", "deliver", "frame", "quiet"]
