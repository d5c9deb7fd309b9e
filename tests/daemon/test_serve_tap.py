# SPDX-License-Identifier: MIT
"""`pyvnet serve` on real taps: kernel traffic, cables, and hosts left as they were."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import threading
from dataclasses import replace
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet import Driver, Feature, RssConfig
from pyvnet.netdev.netns import NetNamespace
from pyvnet.reference import classify, steer
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY
from tests.daemon.serving import DEADLINE, Serving, run
from tests.netdev import kernel
from tests.netdev.kernel import TapState
from tests.system import support

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.usefixtures("folder"),
]

HOST, PEER = "198.18.9.1", "198.18.9.2"
TABLE = tuple(3 - entry % 4 for entry in range(128))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sockets go: the working directory, because their addresses must be short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def netns() -> Iterator[NetNamespace]:
    with NetNamespace() as made:
        yield made


def there(netns: NetNamespace) -> str:
    """The namespace as an option takes it."""
    return f"/proc/{os.getpid()}/fd/{netns.fileno()}"


def sockets_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_socket()]


def ip(netns: NetNamespace, *words: str) -> None:
    netns.call(lambda: kernel.ip(*words))


def status(device: int = 0) -> dict[str, Any]:
    """What the service says of a device."""
    done = run("status", "a", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout)["devices"][device])


@contextlib.contextmanager
def host_that_talks_all_the_time(netns: NetNamespace) -> Iterator[None]:
    """Datagrams towards the driver from many ports, from a thread, come what may."""
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(support.udp_socket(netns, HOST)) for _ in range(16)]

        def talk() -> None:
            while not over.is_set():
                for source in sockets:
                    with contextlib.suppress(OSError):  # the tap is full, or gone
                        source.sendto(bytes(100), (PEER, 9))

        thread = threading.Thread(target=talk)
        thread.start()
        stack.callback(thread.join)
        stack.callback(over.set)
        yield


async def exchange(driver: Driver, netns: NetNamespace, name: str, flows: int) -> set[int]:
    """Let the kernel send datagrams, answer each; returns the queues they came on."""
    queues = set()
    mac = support.tap_mac(netns, name)
    with contextlib.ExitStack() as stack:
        for number in range(flows):
            source = stack.enter_context(support.udp_socket(netns, HOST))
            port = source.getsockname()[1]
            source.sendto(b"there %d" % number, (PEER, 7))
            frame = await support.receive_udp(driver, port)
            expected = classify(frame.data, ALL_HASH_TYPES, VERIFICATION_KEY)
            assert frame.hash_value == expected.value
            assert frame.queue == steer(expected, TABLE, 0)
            queues.add(frame.queue)
            back = support.udp_frame(mac, (PEER, 7), (HOST, port), b"and back %d" % number)
            await driver.send(back, queue=frame.queue)
            assert await support.recvfrom(source) == (b"and back %d" % number, (PEER, 7))
    return queues


async def until_it_ends(driver: Driver) -> None:
    while True:
        await driver.receive(timeout=DEADLINE)


async def configure(driver: Driver) -> None:
    await driver.negotiate()
    await driver.ctrl.rss_config(RssConfig(ALL_HASH_TYPES, TABLE, VERIFICATION_KEY))


async def test_kernel_traffic_both_ways_and_an_end_in_the_middle_of_it(
    netns: NetNamespace, folder: Path
) -> None:
    words = ("--socket-path", "s", "--tap", "vnet0", "--netns", there(netns), "--admin", "a")
    with Serving(*words) as serving:
        support.addresses(netns, "vnet0", HOST, [PEER])
        async with Driver.connect("vhost-user:s") as driver:
            await configure(driver)
            assert driver.features & Feature.GUEST_TSO4
            assert await exchange(driver, netns, "vnet0", 64) == {0, 1, 2, 3}
            shown = await asyncio.to_thread(status)
            assert shown["frontend"]["connected"]
            assert shown["steering"]["indirection_table"] == list(TABLE)
            assert sum(queue["tx_packets"] for queue in shown["queues"]) == 64
            assert shown["host_port"]["name"] == "vnet0"
            with host_that_talks_all_the_time(netns):
                await driver.receive(timeout=DEADLINE)
                assert await asyncio.to_thread(serving.end) == 0
                with pytest.raises(ConnectionError):
                    await until_it_ends(driver)
    assert netns.call(kernel.interfaces) == {"lo"}
    assert sockets_in(folder) == []
    assert "Traceback" not in serving.log


@pytest.mark.requirement("NET-LNK-01", "NET-ANN-02")
async def test_the_cable_can_be_pulled_at_either_end(netns: NetNamespace) -> None:
    words = ("--socket-path", "s", "--tap", "vnet0", "--netns", there(netns), "--admin", "a")
    with Serving(*words):
        async with Driver.connect("vhost-user:s") as driver:
            await driver.negotiate(
                Feature.CTRL_VQ | Feature.STATUS | Feature.GUEST_ANNOUNCE | Feature.MAC
            )
            assert driver.link_up
            for word in ("down", "up"):
                ip(netns, "link", "set", "vnet0", word)
                await driver.wait_config_change()
                assert driver.link_up is (word == "up")
            for word in ("down", "up"):
                done = await asyncio.to_thread(run, "admin", "a", "link", word)
                assert done.returncode == 0
                shown = await asyncio.to_thread(status)
                assert shown["config"]["link"] == word
                assert ("LOWER_UP" in support.link(netns)["flags"]) is (word == "up")
                await driver.wait_config_change()
                assert driver.link_up is (word == "up")
            # The operator's word is kept, whatever the host's end does.
            await asyncio.to_thread(run, "admin", "a", "link", "down")
            await driver.wait_config_change()
            ip(netns, "link", "set", "vnet0", "down")
            ip(netns, "link", "set", "vnet0", "up")
            assert (await asyncio.to_thread(status))["config"]["link"] == "down"
            await asyncio.to_thread(run, "admin", "a", "link", "up")
            await driver.wait_config_change()
            done = await asyncio.to_thread(run, "admin", "a", "announce")
            assert json.loads(done.stdout.splitlines()[1].partition(": ")[2]) is True
            await driver.wait_config_change()
            assert driver.announce


TAPS = {
    "bare": ("", "1500", 0, 10),
    "dressed": ("multi_queue user 1234 group 5678 vnet_hdr", "1400", 0b1111, 12),
    "with packet info": ("multi_queue pi", "9000", 0b0001, 10),
}


@pytest.mark.parametrize("kind", TAPS)
async def test_a_tap_that_was_there_is_left_as_it_was(netns: NetNamespace, kind: str) -> None:
    words, mtu, offload, header = TAPS[kind]

    def prepare() -> TapState:
        kernel.ip("tuntap", "add", "vnet0", "mode", "tap", *words.split())
        flags = kernel.IFF_TAP | (kernel.IFF_MULTI_QUEUE if "multi" in words else 0)
        flags |= kernel.IFF_VNET_HDR if "vnet" in words else 0
        flags |= 0 if "pi" in words.split() else kernel.IFF_NO_PI
        fd = kernel.attach("vnet0", flags)
        ioctl(fd, kernel.TUNSETVNETHDRSZ, struct.pack("i", header))
        ioctl(fd, kernel.TUNSETOFFLOAD, offload)
        os.close(fd)
        kernel.ip("link", "set", "vnet0", "mtu", mtu)
        kernel.ip("link", "add", "br0", "type", "bridge")
        kernel.ip("link", "set", "br0", "up")
        return TapState.take("vnet0")

    before = netns.call(prepare)
    queues = "4" if "multi" in words else "1"
    options = ("--queues", queues, "--mtu", "2000", "--bridge", "br0", "--admin", "a")
    with Serving(
        "--socket-path", "s", "--tap", "vnet0", "--netns", there(netns), *options
    ) as serving:
        shown = support.link(netns)
        assert (shown["mtu"], shown["master"], "UP" in shown["flags"]) == (2000, "br0", True)
        netns.call(lambda: kernel.ip("address", "add", f"{HOST}/24", "dev", "br0"))
        ip(netns, "neighbour", "add", PEER, "lladdr", "02:00:00:00:00:77", "dev", "br0")
        async with Driver.connect("vhost-user:s") as driver:
            await driver.negotiate()
            assert driver.config.mtu == 2000
            with host_that_talks_all_the_time(netns):
                await driver.receive(timeout=DEADLINE)
                await asyncio.to_thread(run, "admin", "a", "link", "down")
                assert await asyncio.to_thread(serving.end) == 0
    after = netns.call(lambda: TapState.take("vnet0"))
    counted = replace(after.link, statistics=before.link.statistics)
    assert replace(after, link=counted) == before


def test_a_tap_made_here_may_stay(netns: NetNamespace) -> None:
    words = ("--socket-path", "s", "--tap", "mine", "--tap-persist", "--netns", there(netns))
    with Serving(*words) as serving:
        assert serving.end() == 0
    assert "mine" in netns.call(kernel.interfaces)


async def test_queues_of_a_tap_handed_over(netns: NetNamespace) -> None:
    flags = kernel.IFF_TAP | kernel.IFF_NO_PI | kernel.IFF_VNET_HDR | kernel.IFF_MULTI_QUEUE
    with contextlib.ExitStack() as stack:
        fds = [netns.call(lambda: kernel.attach("theirs", flags)) for _ in range(4)]
        for fd in fds:
            stack.callback(os.close, fd)
        ip(netns, "link", "set", "theirs", "up")
        listed = ",".join(map(str, fds))
        # Nothing is opened in that namespace, so the process need not be in it.
        with Serving("--socket-path", "s", "--tap-fds", listed, pass_fds=fds) as serving:
            support.addresses(netns, "theirs", HOST, [PEER])
            async with Driver.connect("vhost-user:s") as driver:
                await configure(driver)
                assert await exchange(driver, netns, "theirs", 64) == {0, 1, 2, 3}
            assert serving.end() == 0
        assert support.attached(netns, "theirs") == 4


async def test_one_device_without_a_host_port_is_not_the_others_affair(
    netns: NetNamespace, folder: Path
) -> None:
    taps = {"vm1": "vm1", "vm2": "vm2", "vm3": "lo"}
    (folder / "f").write_text(
        'admin = "a"\n'
        + "".join(
            f'[[device]]\nname = "{name}"\nsocket-path = "{name}.s"\n'
            f'tap = "{tap}"\nnetns = "{there(netns)}"\nqueues = 4\n'
            for name, tap in taps.items()
        )
    )
    with Serving("--config", "f") as serving:
        assert "error vm3: did not start: " in serving.log
        support.addresses(netns, "vm2", HOST, [PEER])
        async with (
            Driver.connect("vhost-user:vm1.s") as one,
            Driver.connect("vhost-user:vm2.s") as two,
        ):
            await configure(one)
            await configure(two)
            ip(netns, "link", "delete", "vm1")
            await one.wait_config_change()
            assert not one.link_up
            assert await exchange(two, netns, "vm2", 8)
            shown = await asyncio.to_thread(status)
            assert (shown["name"], shown["carrier"]) == ("vm1", False)
        assert serving.end() == 0
    assert netns.call(kernel.interfaces) == {"lo"}
    assert sockets_in(folder) == []


def test_what_the_host_refuses(netns: NetNamespace, folder: Path) -> None:
    ip(netns, "tuntap", "add", "narrow", "mode", "tap")
    for words, message in (
        (("--tap", "lo"), "lo exists and is not a tap; choose another name"),
        (("--tap", "narrow"), "tap narrow has a single queue and cannot get 4; make it with"),
        (("--tap", "t", "--bridge", "br9"), "br9 does not exist; `ip link add br9 type bridge`"),
        (("--tap", "t", "--bridge", "narrow"), "narrow is not a bridge"),
    ):
        done = run("serve", "--socket-path", "s", "--netns", there(netns), *words)
        assert (done.returncode, message in done.stderr) == (1, True)
        assert sockets_in(folder) == []
    assert netns.call(kernel.interfaces) == {"lo", "narrow"}
    done = run("serve", "--socket-path", "s", "--tap", "t", "--netns", "no-such")
    assert (done.returncode, "no-such" in done.stderr) == (1, True)


def held(pid: int) -> tuple[int, int, int]:
    """Open files, threads and mappings of a process."""
    proc = Path(f"/proc/{pid}")
    maps = (proc / "maps").read_text().splitlines()
    return (
        len(list((proc / "fd").iterdir())),
        len(list((proc / "task").iterdir())),
        sum("memfd" in line for line in maps),
    )


async def test_many_front_ends_leave_nothing_behind(netns: NetNamespace) -> None:
    """Guests that come and go, well behaved and not; counted once the last has left."""
    words = ("--socket-path", "s", "--tap", "vnet0", "--netns", there(netns))
    with Serving(*words, "--admin", "a") as serving:
        pid = serving.process.pid

        async def guest() -> None:
            async with Driver.connect("vhost-user:s") as driver:
                await configure(driver)

        def left(count: int) -> tuple[int, int, int]:
            serving.until("front-end disconnected", count)
            return held(pid)

        await guest()
        before = await asyncio.to_thread(left, 1)
        for count in range(10):
            await guest()
            with socket.socket(socket.AF_UNIX) as rude:
                rude.connect("s")
                socket.send_fds(rude, [bytes(7)], [netns.fileno()] * (count + 1))
        assert await asyncio.to_thread(left, 21) == before
        assert serving.end() == 0
