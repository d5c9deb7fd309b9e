# SPDX-License-Identifier: MIT
"""testpmd's poll-mode driver on our rings: a million frames a case, counted on both sides.

What testpmd sends is looked at on a tap; what it receives can be seen where it
sends the same frames back (its io mode).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import random
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyvnet import Null, Pair
from pyvnet.daemon import admin_client
from tests.daemon.serving import Serving
from tests.system.dpdk import CPU, DRIVER_MAC, Forwarded, Testpmd
from tests.system.program import TIMEOUT
from tests.system.served import Served
from tests.system.support import addresses, checksum, tap_in, udp_socket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pyvnet import NetDevice
    from pyvnet.netdev.netns import NetNamespace
    from pyvnet.netdev.pair import Wire

pytestmark = [
    pytest.mark.one_loop("testpmd's frames never meet the loop"),
    pytest.mark.timeout(180),
    pytest.mark.needs_program("dpdk-testpmd"),
]
on_a_tap = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.needs_tap]

# Those who run this under a sanitizer or asyncio's debug mode look for other things.
FRAMES = 50_000 if os.environ.keys() & {"PYVNET_NATIVE", "PYTHONASYNCIODEBUG"} else 1_000_000
LOOK = 64  # frames at a time; faster than anybody looks there are more
MAC = bytes.fromhex(DRIVER_MAC.replace(":", ""))
NO_MRG = "mrg_rxbuf=0"
SERVER = "server=1"
UDP_SEGMENT = 103  # linux/udp.h; Python has no name for it

ONCE = {(1, ""), (4, NO_MRG)}  # every value; every combination is for the soak
every_mode = [
    pytest.param(*case, marks=() if case in ONCE else pytest.mark.soak)
    for case in itertools.product((1, 4), ("", NO_MRG))
]


@contextlib.asynccontextmanager
async def forwarding(
    netdev: NetDevice, directory: Path, queues: int, mode: str, port: str = "", arguments: str = ""
) -> AsyncIterator[tuple[Served, Testpmd]]:
    """A device on a host port and testpmd in front of it, forwarding."""
    path = directory / "front.sock"
    async with Served(netdev, path, queues, others()) as served:
        testpmd = Testpmd(path, queues, mode, port=port, arguments=arguments)
        if SERVER in port:
            testpmd.launch()
            await served.connect()
        else:
            served.listen()
        async with testpmd:
            negotiated = served.device.status()["features"]["negotiated"]
            assert ("mrg_rxbuf" in negotiated) == (port != NO_MRG)
            await testpmd.start()
            yield served, testpmd
            assert await testpmd.quit() == 0


async def settle(served: Served, testpmd: Testpmd) -> Forwarded:
    """Stop testpmd once it has all that was placed, and see that both sides counted the same."""
    if testpmd.mode != "txonly":  # which does not look at its receiveqs
        await testpmd.has_received(served.counted.rx_packets)
    mine = await testpmd.stop()
    counted = await served.until(lambda now: now.tx_packets >= mine.tx_packets)
    assert counted.rx_port_frames == counted.rx_packets + counted.rx_drops
    assert mine.rx_packets == (counted.rx_packets if testpmd.mode != "txonly" else 0)
    assert mine.tx_packets == counted.tx_packets
    assert mine.rx_dropped == counted.tx_drops == counted.rings_broken == 0
    for queue, (received, sent) in mine.queues.items():
        pair = served.device.statistics(queue)
        assert sent == pair.tx_packets
        assert received == (pair.rx_packets if testpmd.mode != "txonly" else 0)
    return mine


class Sniffer:
    """A packet socket: every frame on an interface, until its buffer is full."""

    def __init__(self, netns: NetNamespace, name: str = "vnet0") -> None:
        self._socket = netns.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        netns.call(lambda: self._socket.bind((name, 0x0003)))  # ETH_P_ALL
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def incoming(self) -> Iterator[bytes]:
        """Some of the frames that came in from the device."""
        for _ in range(LOOK):
            try:
                frame, address = self._socket.recvfrom(1 << 16)
            except BlockingIOError:
                return
            if address[2] != socket.PACKET_OUTGOING:
                yield frame


def txonly_header(size: int) -> bytes:
    """What testpmd's txonly mode puts in front: UDP from 198.18.0.1 to .2, port 9 to port 9."""
    ip = struct.pack(">BBHHHBBH", 0x45, 0, size - 14, 0, 0, 64, 17, 0)
    ip += socket.inet_aton("198.18.0.1") + socket.inet_aton("198.18.0.2")
    ip = ip[:10] + checksum(ip) + ip[12:]
    return (
        bytes.fromhex("020000000000")
        + MAC
        + b"\x08\0"
        + ip
        + struct.pack(">HHHH", 9, 9, size - 34, 0)
    )


class TestTransmit:
    pytestmark = on_a_tap

    @pytest.mark.requirement("U-60")
    @pytest.mark.parametrize(("queues", "port"), every_mode)
    async def test_the_kernel_counts_what_testpmd_sent(
        self, netns: NetNamespace, tmp_path: Path, queues: int, port: str
    ) -> None:
        expected = txonly_header(64).ljust(64, b"\0")
        tap = tap_in(netns, queues=queues)
        async with forwarding(tap, tmp_path, queues, "txonly", port) as (served, testpmd):
            seen = 0
            with contextlib.closing(Sniffer(netns)) as sniffer:
                while seen < LOOK or (await testpmd.forwarded()).tx_packets < FRAMES:
                    for frame in sniffer.incoming():
                        assert frame == expected
                        seen += 1
            mine = await settle(served, testpmd)
            kernel = kernel_counts(netns)["rx"]
            assert kernel["packets"] == mine.tx_packets
            assert kernel["bytes"] == served.counted.tx_bytes == 64 * mine.tx_packets

    async def test_frames_of_several_buffers_arrive_whole(
        self, netns: NetNamespace, tmp_path: Path
    ) -> None:
        header, sizes = txonly_header(1214), (60, 1000, 40, 114)
        # testpmd leaves what a buffer held before: nothing, or the header of another frame.
        possible = [{bytes(size), header.ljust(size, b"\0")[:size]} for size in sizes]
        arguments = "--txpkts=" + ",".join(str(size) for size in sizes)
        tap = tap_in(netns, queues=1)
        async with forwarding(tap, tmp_path, 1, "txonly", arguments=arguments) as (served, testpmd):
            seen = 0
            with contextlib.closing(Sniffer(netns)) as sniffer:
                while seen < 1000:
                    await testpmd.forwarded()
                    for frame in sniffer.incoming():
                        assert frame.startswith(header)
                        pieces = io.BytesIO(frame)
                        for size, allowed in zip(sizes, possible, strict=True):
                            assert pieces.read(size) in allowed
                        assert not pieces.read()
                        seen += 1
            await settle(served, testpmd)


@pytest.mark.parametrize(("queues", "port"), every_mode)
async def test_testpmd_receives_every_frame_that_came_in(
    tmp_path: Path, queues: int, port: str
) -> None:
    null = Null(queues)
    async with forwarding(null, tmp_path, queues, "rxonly", port) as (served, testpmd):
        for queue in range(queues):
            null.inject(queue, FRAMES // queues)
        await testpmd.has_received(FRAMES)
        mine = await settle(served, testpmd)
        assert mine.rx_packets == served.counted.rx_port_frames == FRAMES


class TestForward:
    @pytest.mark.parametrize(("queues", "port"), [*every_mode, (2, SERVER)])
    async def test_both_ways_at_once(self, tmp_path: Path, queues: int, port: str) -> None:
        null = Null(queues)
        async with forwarding(null, tmp_path, queues, "io", port) as (served, testpmd):
            injected = 0
            while (left := FRAMES - (await testpmd.forwarded()).tx_packets) > 0:
                # Where its transmit ring is full testpmd drops, and counts.
                share = max(1, left // queues)
                for queue in range(queues):
                    null.inject(queue, share)
                injected += share * queues
                await testpmd.has_received(injected)
            mine = await settle(served, testpmd)
            assert mine.rx_packets == injected == mine.tx_packets + mine.tx_dropped

    @pytest.mark.parametrize(
        ("port", "arguments", "largest"),
        [
            pytest.param("", "--max-pkt-len=9018 --enable-scatter", 9000, id="mrg_rxbuf"),
            pytest.param(NO_MRG, "", 1514, id="one-buffer"),
        ],
    )
    async def test_every_frame_comes_back_as_it_was(
        self, tmp_path: Path, port: str, arguments: str, largest: int
    ) -> None:
        pair = Pair(4)
        async with forwarding(pair, tmp_path, 4, "io", port, arguments) as (served, testpmd):
            async with asyncio.timeout(TIMEOUT):
                await asyncio.gather(
                    *(echo(pair.wire(queue), random.Random(queue), largest) for queue in range(4))
                )
            mine = await settle(served, testpmd)
            assert mine.tx_packets == served.counted.rx_port_frames == 4 * 32 * ROUNDS

    @pytest.mark.needs_root
    @pytest.mark.needs_netns
    @pytest.mark.needs_tap
    async def test_the_kernels_traffic_through_a_tap_and_back(
        self, netns: NetNamespace, tmp_path: Path
    ) -> None:
        no_ipv6(netns)
        async with forwarding(tap_in(netns), tmp_path, 4, "io") as (served, testpmd):
            addresses(netns, "vnet0", "198.18.9.1", ["198.18.9.2"])
            sent = await kernel_flood(netns, testpmd)
            while sent != lost_or_taken(kernel_counts(netns)["tx"]):
                pass  # the rest is in the tap's queues
            mine = await settle(served, testpmd)
            kernel = kernel_counts(netns)
            assert served.counted.rx_drops == 0
            assert kernel["tx"]["packets"] == mine.rx_packets == mine.tx_packets + mine.tx_dropped
            assert kernel["rx"]["packets"] == mine.tx_packets


# Now and then testpmd hangs or dies of it.
@pytest.mark.soak
@pytest.mark.requirement("U-59")
async def test_a_testpmd_that_listens_takes_its_back_end_back(tmp_path: Path) -> None:
    """Its rings are where they were left, though it says that they start at 0."""
    null = Null(2)
    async with forwarding(null, tmp_path, 2, "io", SERVER) as (served, testpmd):
        for turn in range(3):
            for queue in range(2):
                null.inject(queue, 1000)
            await testpmd.has_received(2000)
            mine = await testpmd.stop()
            assert mine.rx_packets == 2000
            assert served.counted.rx_packets == 2000 * (turn + 1)
            assert served.counted.rings_broken == 0
            served.backend.disconnect("it will come again")
            await served.connect()
            await testpmd.is_up()
            await testpmd.start()


async def test_serve_goes_to_a_testpmd_that_listens(tmp_path: Path) -> None:
    path, admin = tmp_path / "front.sock", str(tmp_path / "admin.sock")
    testpmd = Testpmd(path, 2, "txonly", port=SERVER)
    testpmd.launch()
    with Serving(
        *("--connect", str(path), "--admin", admin, "--port", "null", "--queues", "2"),
        prefix=("taskset", "--cpu-list", ",".join(map(str, others()))),
    ):
        async with testpmd:
            await testpmd.start()
            while (await testpmd.forwarded()).tx_packets < FRAMES:
                pass  # each answer takes it a moment
            mine = await testpmd.stop()
            async with asyncio.timeout(TIMEOUT):
                while (sent := queues_of(admin, "tx_packets")) != [
                    mine.queues[queue][1] for queue in range(2)
                ]:
                    assert sum(sent) <= mine.tx_packets
                    await testpmd.forwarded()
            assert queues_of(admin, "tx_bytes") == [64 * count for count in sent]
            assert await testpmd.quit() == 0


def queues_of(admin: str, counter: str) -> list[int]:
    """A counter of each queue pair, by the daemon's word."""
    (device,) = admin_client.ask(admin, {"command": "status"})["devices"]
    return [pair[counter] for pair in device["queues"]]


def others() -> set[int]:
    """The CPUs testpmd leaves."""
    return os.sched_getaffinity(0) - {CPU} or {CPU}


def no_ipv6(netns: NetNamespace) -> None:
    """The kernel says nothing of its own on interfaces that come."""
    netns.call(lambda: Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1"))


def kernel_counts(netns: NetNamespace) -> dict[str, dict[str, int]]:
    """The tap's statistics: tx is what the device reads, rx what it writes."""
    command = ["ip", "-json", "-stats", "link", "show", "vnet0"]
    done = netns.run(command, capture_output=True)
    return dict(json.loads(done.stdout)[0]["stats64"])


def lost_or_taken(counts: dict[str, int]) -> int:
    return counts["packets"] + counts["dropped"]


ROUNDS = 150


async def echo(wire: Wire, dice: random.Random, largest: int) -> None:
    """Bursts of frames with other bytes each; they come back, in order."""
    for _ in range(ROUNDS):
        burst = [dice.randbytes(dice.randint(14, largest)) for _ in range(32)]
        for frame in burst:
            wire.send(frame)
        assert [(await wire.receive()).data for _ in burst] == burst


async def kernel_flood(netns: NetNamespace, testpmd: Testpmd) -> int:
    """Send datagrams with serial numbers, and see some come back; returns how many were sent."""
    serial = itertools.count()
    watched: set[bytes] = set()
    sent = seen = 0
    with contextlib.closing(Sniffer(netns)) as sniffer, contextlib.ExitStack() as undo:
        flows = [undo.enter_context(udp_socket(netns, "198.18.9.1")) for _ in range(8)]
        for flow in flows:
            flow.connect(("198.18.9.2", 9))
            flow.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 64)
        while seen < LOOK or (await testpmd.forwarded()).rx_packets < FRAMES // 10:
            for flow in flows:
                datagrams = [next(serial).to_bytes(8, "big") * 8 for _ in range(60)]
                with contextlib.suppress(BlockingIOError):
                    flow.send(b"".join(datagrams))
                    sent += len(datagrams)
                    watched.update(datagrams)
            for frame in sniffer.incoming():
                assert frame[42:] in watched
                seen += 1
    return sent
