# SPDX-License-Identifier: MIT
"""`pyvnet serve` as nobody, without a capability and with no_new_privs, on what was handed over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet import Driver, Feature, HashType, RssConfig
from pyvnet.netdev import rtnl, tun_uapi
from pyvnet.netdev.flows import PEER_MAC
from pyvnet.netdev.netns import NetNamespace
from pyvnet.offload import bpf, program
from pyvnet.reference import classify, steer
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY
from tests.daemon.serving import Serving, run
from tests.daemon.unprivileged import NOBODY, SETPRIV, helper, without_privilege
from tests.netdev import kernel
from tests.system import support

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.usefixtures("folder"),
    pytest.mark.one_loop("what is tested runs in a process of its own"),
]

HOST, PEER = "198.18.9.1", "198.18.9.2"
NAMED = ("--socket-path", "s", "--admin", "a", "--tap-fds", "named", "--bpf-fds", "named")
PLAIN = RssConfig(ALL_HASH_TYPES, tuple(3 - entry % 4 for entry in range(128)), VERIFICATION_KEY)
OTHER = RssConfig(
    HashType.IPV4 | HashType.UDPV4,
    tuple(entry // 3 % 4 for entry in range(64)),
    VERIFICATION_KEY[::-1],
    unclassified_queue=2,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sockets go: the working directory, which is nobody's; addresses must be short."""
    os.chown(tmp_path, NOBODY, NOBODY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def netns() -> Iterator[NetNamespace]:
    with NetNamespace() as made:
        yield made


def status() -> dict[str, Any]:
    done = run("status", "a", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout)["devices"][0])


def unprivileged(serving: Serving, uid: int = NOBODY) -> None:
    without_privilege(Path(f"/proc/{serving.process.pid}/status").read_text(), uid)


async def exchange(
    driver: Driver, netns: NetNamespace, config: RssConfig, name: str = "vnet0", flows: int = 32
) -> set[int]:
    """The kernel sends datagrams, each is answered; returns the queues they came on."""
    queues = set()
    mac = support.tap_mac(netns, name)
    with contextlib.ExitStack() as stack:
        for number in range(flows):
            source = stack.enter_context(support.udp_socket(netns, HOST))
            port = source.getsockname()[1]
            source.sendto(b"there %d" % number, (PEER, 7))
            frame = await support.receive_udp(driver, port)
            expected = classify(frame.data, config.hash_types, config.key)
            assert (frame.hash_value, frame.hash_report) == (expected.value, expected.report)
            assert frame.queue == steer(
                expected, config.indirection_table, config.unclassified_queue
            )
            queues.add(frame.queue)
            back = support.udp_frame(mac, (PEER, 7), (HOST, port), b"and back %d" % number)
            await driver.send(back, queue=frame.queue)
            assert await support.recvfrom(source) == (b"and back %d" % number, (PEER, 7))
    return queues


async def steering() -> dict[str, Any]:
    return dict((await asyncio.to_thread(status))["steering"])


@pytest.mark.requirement("NET-RSS-02", "NET-LNK-01", "U-62")
async def test_everything_of_a_device_works(netns: NetNamespace) -> None:
    nobody_else = 65501  # the kernel counts the locked memory of a user's processes together
    os.chown(".", nobody_else, nobody_else)
    made = helper("--queues", "4", "--tap", "vnet0", uid=nobody_else)
    with Serving(*NAMED, prefix=made, netns=netns) as serving:
        unprivileged(serving, nobody_else)
        support.addresses(netns, "vnet0", HOST, [PEER])
        async with Driver.connect("vhost-user:s") as driver:
            await driver.negotiate()
            # Offloads: the tap was told, by a process that may not ask rtnetlink to.
            assert driver.features & Feature.GUEST_TSO4
            assert "tx-tcp-segmentation" in netns.call(lambda: rtnl.offload_names("vnet0"))
            # RSS, reconfigured, under eBPF.
            for config, queues in ((PLAIN, {0, 1, 2, 3}), (OTHER, {0, 1, 2, 3}), (PLAIN, None)):
                await driver.ctrl.rss_config(config)
                came = await exchange(driver, netns, config)
                assert queues is None or came == queues
                assert (await steering())["owner"] == "ebpf"
            shown = await asyncio.to_thread(status)
            # As many workers as RLIMIT_MEMLOCK allows, which is some even by default.
            assert shown["engine"]["io_uring"]["workers"] > 0
            # In software three of four frames would be: 72 of these 96.
            assert sum(queue["rx_handoffs"] for queue in shown["queues"]) < 24
            # Queues that go and come.
            await driver.ctrl.vq_pairs_set(2)
            assert (await steering())["owner"] == "kernel-auto"
            assert support.attached(netns) == 2
            await driver.ctrl.rss_config(PLAIN)
            assert support.attached(netns) == 4
            assert await exchange(driver, netns, PLAIN) == {0, 1, 2, 3}
            # The cable, at either end.
            for word in ("down", "up"):
                netns.run(["ip", "link", "set", "vnet0", word])
                await driver.wait_config_change()
                assert driver.link_up is (word == "up")
            for word in ("down", "up"):
                done = await asyncio.to_thread(run, "admin", "a", "link", word)
                assert done.returncode == 0
                assert ("LOWER_UP" in support.link(netns)["flags"]) is (word == "up")
                await driver.wait_config_change()
                assert driver.link_up is (word == "up")
            netns.call(lambda: rtnl.add_neighbours("vnet0", {PEER: PEER_MAC}))
            assert await exchange(driver, netns, PLAIN, flows=4)
        unprivileged(serving, nobody_else)
        assert await asyncio.to_thread(serving.end) == 0
    assert "Traceback" not in serving.log
    assert netns.call(kernel.interfaces) == {"lo"}


FLAGS = kernel.IFF_TAP | kernel.IFF_NO_PI | kernel.IFF_VNET_HDR | kernel.IFF_MULTI_QUEUE


async def test_the_tap_is_put_back_by_one_who_may_do_nothing_else(netns: NetNamespace) -> None:
    with contextlib.ExitStack() as stack:
        fds = [netns.call(lambda: kernel.attach("theirs", FLAGS)) for _ in range(4)]
        for fd in fds:
            stack.callback(os.close, fd)
        ioctl(fds[0], kernel.TUNSETOFFLOAD, 0x1)
        ioctl(fds[0], kernel.TUNSETVNETHDRSZ, struct.pack("i", 10))
        netns.call(lambda: kernel.ip("link", "set", "theirs", "up"))
        made = stack.enter_context(program.load())

        def state() -> tuple[Any, ...]:
            link = rtnl.existing("theirs")
            return (link.up, link.carrier, link.tun, rtnl.offload_names("theirs")), (
                tun_uapi.get_header_size(fds[0])
            )

        before = netns.call(state)
        # No frame of the kernel's own: each one counted below is one of ours.
        netns.call(lambda: Path("/proc/sys/net/ipv6/conf/theirs/disable_ipv6").write_text("1"))
        shuffled = [fds[2], fds[0], fds[3], fds[1]]
        listed = ",".join(map(str, shuffled))
        words = ("--tap-fds", listed, "--bpf-fds", f"{made.program},{made.map}")
        options = {"pass_fds": (*fds, made.program, made.map), "netns": netns, "prefix": SETPRIV}
        listen = ("--socket-path", "s", "--admin", "a")
        with Serving(*listen, *words, **options) as serving:  # type: ignore[arg-type]
            unprivileged(serving)
            support.addresses(netns, "theirs", HOST, [PEER])
            async with Driver.connect("vhost-user:s") as driver:
                await driver.negotiate()
                await driver.ctrl.rss_config(PLAIN)
                assert await exchange(driver, netns, PLAIN, "theirs") == {0, 1, 2, 3}
                shown = await asyncio.to_thread(status)
                assert shown["steering"]["owner"] == "ebpf"
                # Whatever order they were handed over in, queue i is fd i by now.
                assert sum(queue["rx_resteered"] for queue in shown["queues"]) == 0
                await driver.ctrl.vq_pairs_set(1)
                await asyncio.to_thread(run, "admin", "a", "link", "down")
                assert netns.call(state) != before
                assert await asyncio.to_thread(serving.end) == 0
        assert netns.call(state) == before


async def test_a_program_of_another_version_is_refused_and_software_steers(
    netns: NetNamespace,
) -> None:
    """The start goes on, and status has the reason; as it has where locked memory is short."""
    with contextlib.ExitStack() as stack:
        fds = [netns.call(lambda: kernel.attach("theirs", FLAGS)) for _ in range(2)]
        for fd in fds:
            stack.callback(os.close, fd)
        netns.call(lambda: kernel.ip("link", "set", "theirs", "up"))
        made = stack.enter_context(program.load())
        value = bytearray(bpf.map_lookup(made.map, bytes(4), bpf.map_info(made.map).value_size))
        value[8] ^= 1  # the stamp
        bpf.map_update(made.map, bytes(4), bytes(value))
        listed = ",".join(map(str, fds))
        words = ("--tap-fds", listed, "--bpf-fds", f"{made.program},{made.map}")
        with Serving(
            *("--socket-path", "s", "--admin", "a", "--steering", "ebpf", *words),
            pass_fds=(*fds, made.program, made.map),
            netns=netns,
            prefix=["prlimit", "--memlock=4096:4096", *SETPRIV],
        ) as serving:
            unprivileged(serving)
            support.addresses(netns, "theirs", HOST, [PEER])
            shown = await asyncio.to_thread(status)
            reason = shown["steering"]["owners"]["ebpf"]["reason"]
            assert "was made for another steering program" in reason
            assert shown["engine"]["io_uring"]["workers"] == 0
            assert "LimitMEMLOCK=" in shown["engine"]["io_uring"]["cure"]
            async with Driver.connect("vhost-user:s") as driver:
                await driver.negotiate()
                two = RssConfig(ALL_HASH_TYPES, (0, 1), VERIFICATION_KEY)
                await driver.ctrl.rss_config(two)
                assert (await steering())["owner"] == "software"
                assert await exchange(driver, netns, two, "theirs", 16) == {0, 1}
