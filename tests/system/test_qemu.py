# SPDX-License-Identifier: MIT
"""A Linux guest in QEMU, `pyvnet serve` behind its vhost-user netdev.

QEMU keeps the control queue to itself and speaks for the driver.  One guest
boots for all the tests, so they run in order; each leaves traffic flowing.
"""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import ExitStack, asynccontextmanager, closing
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from pyvnet.capture import read_frames
from pyvnet.daemon import admin_client
from pyvnet.netdev.netns import NetNamespace
from pyvnet.spec.features import Feature
from tests.daemon.serving import Serving
from tests.system.qemu import Guest, make_initramfs
from tests.system.support import TIMEOUT, udp_socket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.one_loop("the device is a process of its own"),
    pytest.mark.guest,
    pytest.mark.needs_program("qemu-system-x86_64", "busybox", "ethtool", "ip"),
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.timeout(180),
]

HOST, GUEST = "198.18.9.1", "198.18.9.2"
TAP: Final = "vnet0"


class Echo:
    """A server that sends every byte back; it pauses each time so many have come."""

    def __init__(self, port: int, pause_every: int) -> None:
        self.port = port
        self._left = self._pause_every = pause_every
        self._here = asyncio.Event()
        self._go_on = asyncio.Event()

    async def paused(self) -> None:
        """Wait for the next pause."""
        async with asyncio.timeout(TIMEOUT):
            await self._here.wait()
        self._here.clear()

    def resume(self) -> None:
        """End the pause."""
        self._go_on.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        while data := await reader.read(1 << 16):
            self._left -= len(data)
            if self._pause_every and self._left <= 0:
                self._left += self._pause_every
                self._here.set()
                await self._go_on.wait()
                self._go_on.clear()
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()


class Rig:
    """A namespace with a tap that stays, the daemon on it, and a guest in front of the daemon."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._admin = directory / "admin.sock"
        self.front = directory / "front.sock"
        self.netns = NetNamespace()
        for line in (
            f"tuntap add dev {TAP} mode tap multi_queue vnet_hdr",
            f"address add {HOST}/24 dev {TAP}",
            f"link set {TAP} up",
        ):
            self.netns.run(["ip", *line.split()])
        self.initramfs = make_initramfs(directory)
        self.daemon = self._start()

    def serve_again(self) -> None:
        """Start another daemon in the place of one that ended."""
        self.daemon.__exit__()
        self.daemon = self._start()

    def _start(self) -> Serving:
        return Serving(
            *("--socket-path", str(self.front), "--admin", str(self._admin)),
            *("--tap", TAP, "--queues", "2"),
            netns=self.netns,
        )

    def status(self) -> dict[str, Any]:
        """What the daemon says of its device."""
        answer = admin_client.ask(str(self._admin), {"command": "status"})
        return dict(answer["devices"][0])

    def capture(self, file: str) -> None:
        """Have all frames written there; "none" ends that."""
        admin_client.ask(str(self._admin), {"command": "capture", "file": file})

    def placed(self) -> list[int]:
        """How many frames each queue carried to the guest."""
        return [pair["rx_packets"] for pair in self.status()["queues"]]

    def counters(self) -> dict[str, int]:
        """The device's counters, all pairs together."""
        pairs = self.status()["queues"]
        return {key: sum(pair[key] for pair in pairs) for key in pairs[0] if key != "pair"}

    @asynccontextmanager
    async def echo_server(self, pause_every: int = 0) -> AsyncIterator[Echo]:
        """Listen on the host's side."""
        listener = self.netns.call(lambda: socket.create_server((HOST, 0)))
        echo = Echo(listener.getsockname()[1], pause_every)
        async with await asyncio.start_server(echo.serve, sock=listener):
            yield echo

    def close(self) -> None:
        """End the daemon and the namespace."""
        self.daemon.__exit__()
        self.netns.close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with closing(Rig(tmp_path_factory.mktemp("qemu"))) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(rig: Rig) -> AsyncIterator[Guest]:
    chardev = f"socket,id=front,path={rig.front},reconnect=1"
    directory = rig.front.parent
    async with Guest(
        rig.initramfs,
        directory,
        chardev=chardev,
        netdev="vhost-user,chardev=front,queues=2",
        device="mq=on,hash=on,rss=on",
        cpus=2,
    ) as booted:
        await address(booted)
        yield booted


async def test_the_guest_pings_the_host(rig: Rig, guest: Guest) -> None:
    await pings(guest)
    status = rig.status()
    assert status["frontend"]["connected"]
    assert status["steering"]["queues_in_force"] == [0, 1]


@pytest.mark.requirement("U-02")
async def test_hash_report_is_forwarded_and_rss_is_not(rig: Rig, guest: Guest) -> None:
    """QEMU takes the driver's word on hashes and keeps it: our header grows all the same."""
    bits = (await guest.run("cat /sys/class/net/eth0/device/features")).strip()
    assert bits[Feature.HASH_REPORT.bit_length() - 1] == "1"
    status = rig.status()
    assert "hash_report" in status["features"]["negotiated"]
    assert not {"rss", "ctrl_vq"} & set(status["features"]["negotiated"])
    assert status["header_length"] == 20
    assert status["counters"]["control_commands"] == 0
    assert status["steering"]["hash_types"] == []


async def test_a_stream_comes_back_as_it_was(rig: Rig, guest: Guest) -> None:
    """Segments of many sizes both ways, the header's 20 bytes in front of each."""
    capture = rig.front.with_name("stream.pcapng")
    await guest.run("head -c 4000000 /dev/urandom >/tmp/data")
    rig.capture(str(capture))
    async with rig.echo_server() as echo:
        await guest.run(f"nc {HOST} {echo.port} </tmp/data >/tmp/back")
    rig.capture("none")
    await guest.run("cmp /tmp/data /tmp/back")
    longest = {"rx": 0, "tx": 0}
    for frame in read_frames(capture):
        way = frame.interface_name.partition(":")[2][:2]
        longest[way] = max(longest[way], frame.original_length)
    # Longer than an MTU allows: segmentation is left to the host's end, both ways.
    assert min(longest.values()) > 2 * 1500
    after = rig.counters()
    assert after["rx_drop_offload"] == after["tx_drop_malformed"] == 0


@pytest.mark.requirement("U-60")
async def test_traffic_uses_the_queues_that_ethtool_chose(rig: Rig, guest: Guest) -> None:
    for queues in (2, 1, 2):
        await guest.run(f"ethtool -L eth0 combined {queues}")
        assert rig.status()["steering"]["queues_in_force"] == list(range(queues))
        await pings(guest)
        seen = await flows(rig, guest)
        assert all(seen[queue] >= 8 for queue in range(queues))
        assert all(seen[queue] == 0 for queue in range(queues, 2))
        async with asyncio.timeout(TIMEOUT):
            while await received(guest) != rig.placed()[:queues]:
                pass  # each answer takes it a moment


@pytest.mark.requirement("U-59")
async def test_a_driver_that_is_loaded_again_begins_anew(rig: Rig, guest: Guest) -> None:
    await guest.run("rmmod virtio_net")
    await guest.run("insmod /virtio_net.ko")
    await address(guest)
    await pings(guest)
    assert rig.status()["steering"]["queues_in_force"] == [0, 1]


@pytest.mark.requirement("U-59")
async def test_a_machine_that_was_paused_goes_on(guest: Guest) -> None:
    for _ in range(3):
        await guest.monitor("stop")
        await guest.monitor("cont")
        await pings(guest)


@pytest.mark.may_leak("the daemon outlasts the test")
async def test_traffic_resumes_after_the_back_end_was_started_again(rig: Rig, guest: Guest) -> None:
    """In the middle of a stream and amid pings; nobody tells the guest anything."""
    await guest.run(f"(ping -i 0.1 {HOST} </dev/null >/tmp/pings 2>&1 &)")
    async with rig.echo_server(pause_every=1_300_000) as server:
        await guest.run(f"({{ nc {HOST} {server.port} </tmp/data >/tmp/back; >/tmp/over; }} &)")
        for number, ending in ((SIGKILL, -SIGKILL), (SIGKILL, -SIGKILL), (SIGTERM, 0)):
            await server.paused()
            await answered(guest, 3)
            assert rig.daemon.end(number) == ending
            rig.serve_again()
            server.resume()
        await until(guest, "test -e /tmp/over")
        await answered(guest, 3)
    await guest.run("killall ping")
    await guest.run("cmp /tmp/data /tmp/back")
    status = rig.status()
    assert status["header_length"] == 20
    assert status["steering"]["queues_in_force"] == [0, 1]
    seen = await flows(rig, guest)
    assert all(count >= 8 for count in seen)


@pytest.mark.may_leak("the pipe of the guest that is replaced")
@pytest.mark.requirement("U-59")
async def test_another_guest_on_the_same_back_end(rig: Rig, guest: Guest) -> None:
    """It wants less: one queue pair, and no hashes."""
    guest.program.close()
    async with Guest(
        rig.initramfs, rig.front.parent, chardev=f"socket,id=front,path={rig.front}"
    ) as another:
        await address(another)
        await pings(another)
        status = rig.status()
        assert status["header_length"] == 12
        assert not {"mq", "hash_report"} & set(status["features"]["negotiated"])
        assert status["steering"]["queues_in_force"] == [0]
        async with rig.echo_server() as server:
            await another.run("head -c 1000000 /dev/urandom >/tmp/data")
            await another.run(f"nc {HOST} {server.port} </tmp/data >/tmp/back")
        await another.run("cmp /tmp/data /tmp/back")


async def answered(guest: Guest, more: int) -> None:
    """Wait until so many more pings of those in the background were answered."""
    count = "grep -c 'bytes from' /tmp/pings"
    before = int(await guest.run(f"{count} || true"))
    await until(guest, f"[ $({count}) -ge {before + more} ]")


async def until(guest: Guest, condition: str) -> None:
    """Ask the guest until it is so."""
    async with asyncio.timeout(TIMEOUT):
        while not await guest.run(f"{condition} && echo yes || true"):
            pass  # each answer takes it a moment


async def pings(guest: Guest) -> None:
    """The guest reaches the host, and loses nothing."""
    assert " 0% packet loss" in await guest.run(f"ping -c 2 -i 0.1 {HOST}")


async def address(guest: Guest) -> None:
    await guest.run(f"ip addr add {GUEST}/24 dev eth0 && ip link set eth0 up")


async def flows(rig: Rig, guest: Guest) -> list[int]:
    """Send datagrams of 64 flows to the guest; returns how many frames each queue carried."""
    before = rig.placed()
    with ExitStack() as undo:
        for _ in range(64):
            flow = undo.enter_context(udp_socket(rig.netns, HOST))
            flow.sendto(bytes(32), (GUEST, 9))
    async with asyncio.timeout(TIMEOUT):
        while sum(after := rig.placed()) < sum(before) + 64:
            await guest.run("true")
    return [a - b for a, b in zip(after, before, strict=True)]


async def received(guest: Guest) -> list[int]:
    """What the guest's kernel counted on each queue in use since its driver was loaded."""
    text = await guest.run("ethtool -S eth0")
    return [int(count) for count in re.findall(r"rx_queue_\d_packets: (\d+)", text)]
