# SPDX-License-Identifier: MIT
"""The wires to devices of others, on devices of ours: an interface, a slow switch, a mirror."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pyvnet import Driver, Feature, HostError, Pair, UsageError
from pyvnet.conformance.case import Inconclusive, NotApplicable
from pyvnet.conformance.cases import select
from pyvnet.conformance.run import suite
from pyvnet.conformance.target import VhostUser
from pyvnet.conformance.wires import ReflectWire, TapWire, VhostUserWire, open_wire
from pyvnet.netdev.netns import NetNamespace
from pyvnet.testing.frames import Ipv4, Vlan, build, udp
from tests.system.served import Served
from tests.system.support import tap_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pyvnet.conformance.run import Result
    from pyvnet.netdev.pair import Wire as PortWire

WITHIN = 10.0  # a hang guard
QUEUES = 2
BOTH_WAYS = ("frames-cross-once-the-driver-is-ready", "used-length-is-header-and-frame")
WITH_HEADERS = ("tcpv4-bursts-are-segmented", "tcpv6-bursts-come-with-their-size")


class Switch:
    """Passes frames between ports, each its other or itself, and swallows the first of each."""

    def __init__(self, *ports: Pair, swallows: int) -> None:
        self._left: dict[Pair, int] = dict.fromkeys(ports, swallows)
        self._loop = asyncio.get_running_loop()
        for port, other in zip(ports, reversed(ports), strict=True):
            for queue in range(QUEUES):
                near, far = port.wire(queue), other.wire(queue)
                self._loop.add_reader(near.fileno(), self._pass, port, near, far)

    def _pass(self, port: Pair, near: PortWire, far: PortWire) -> None:
        with contextlib.suppress(BlockingIOError):
            frame = near.recv()
            if self._left[port]:
                self._left[port] -= 1
            else:
                far.send(frame.data)

    def close(self) -> None:
        for port in self._left:
            for queue in range(QUEUES):
                self._loop.remove_reader(port.wire(queue).fileno())


class Setting(NamedTuple):
    target: str
    other: str
    behind: Served


@contextlib.asynccontextmanager
async def switched(directory: Path, *, ports: int, swallows: int) -> AsyncIterator[Setting]:
    paths = [directory / f"port{number}" for number in range(ports)]
    pairs = [Pair(QUEUES) for _ in paths]
    async with contextlib.AsyncExitStack() as stack:
        for pair, path in zip(pairs, paths, strict=True):
            served = await stack.enter_async_context(Served(pair, path, QUEUES))
            served.listen()
        stack.callback(Switch(*pairs, swallows=swallows).close)
        yield Setting(f"vhost-user:{paths[0]}", f"vhost-user:{paths[-1]}", served)


def seen(results: list[Result]) -> dict[str, str]:
    return {result.case.name: result.reason or result.verdict.value for result in results}


@pytest.mark.parametrize("swallows", [0, 3])
async def test_another_port_is_a_wire(tmp_path: Path, swallows: int) -> None:
    async with switched(tmp_path, ports=2, swallows=swallows) as at:
        target = VhostUser(at.target, open_wire(at.other))
        cases = select([*BOTH_WAYS, "every-transmitq-sends", WITH_HEADERS[1]])
        assert seen(await suite(target, cases, timeout=WITHIN)) == {
            **dict.fromkeys((*BOTH_WAYS, "every-transmitq-sends"), "passed"),
            WITH_HEADERS[1]: "the wire carries no virtio header",
        }


@pytest.mark.parametrize("swallows", [0, 3])
async def test_a_port_that_reflects_is_a_wire(tmp_path: Path, swallows: int) -> None:
    async with switched(tmp_path, ports=1, swallows=swallows) as at:
        target = VhostUser(at.target, open_wire("reflect"))
        results = await suite(target, select(BOTH_WAYS), timeout=WITHIN)
        assert seen(results) == dict.fromkeys(BOTH_WAYS, "passed")


async def test_what_is_left_of_a_case_does_not_come_in_the_next(tmp_path: Path) -> None:
    async with switched(tmp_path, ports=2, swallows=0) as at:
        wire = VhostUserWire(at.other)
        await wire.open()
        async with Driver.connect(at.target) as drv:
            await drv.negotiate(Feature.MRG_RXBUF)
            await wire.begin(drv)
            for number in range(5):
                await drv.send(frame(number))
                await wire.send(frame(10 + number))
            await wire.begin(drv)
            await drv.send(frame(7))
            assert (await wire.receive(WITHIN)).data == frame(7)
            await wire.send(frame(17))
            assert (await drv.receive(WITHIN)).data == frame(17)
            with pytest.raises(NotApplicable, match="the wire has 2 queues"):
                await wire.send(frame(1), queue=2)
        await wire.aclose()


async def test_a_wire_that_is_lost_is_not_held_against_the_device(tmp_path: Path) -> None:
    async with switched(tmp_path, ports=2, swallows=0) as at:
        wire = VhostUserWire(at.other)
        await wire.open()
        async with Driver.connect(at.target) as drv:
            await drv.negotiate(Feature.MRG_RXBUF)
            at.behind.backend.disconnect("the wire is cut")
            with pytest.raises(Inconclusive, match="the wire's own port"):
                await wire.receive(WITHIN)
        await wire.aclose()


def frame(number: int, size: int = 60, *tags: Vlan) -> bytes:
    return bytes(build(Ipv4(), udp(1000 + number, 53, bytes(size)), vlans=tags))


async def test_a_mirror_needs_a_driver_in_operation() -> None:
    with pytest.raises(Inconclusive, match="no driver in operation"):
        await ReflectWire().send(frame(1))


@pytest.mark.parametrize("name", ["", "tap:", "vhost-user:", "eth0"])
def test_no_such_wire(name: str) -> None:
    with pytest.raises(UsageError, match="is no wire: none, tap:NAME, vhost-user:PATH or reflect"):
        open_wire(name)


def test_none_is_a_wire_name() -> None:
    assert open_wire("none") is None


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_tap
class TestTap:
    @pytest.fixture
    def netns(self) -> Iterator[NetNamespace]:
        """One whose kernel says nothing of its own."""
        with NetNamespace() as made:
            switch = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
            made.call(lambda: switch.write_text("1"))
            yield made

    async def test_an_interface_is_a_wire(self, netns: NetNamespace, tmp_path: Path) -> None:
        path = tmp_path / "back.sock"
        async with Served(tap_in(netns, queues=QUEUES), path, QUEUES) as served:
            served.listen()
            target = VhostUser(path, InNamespace("vnet0", netns))
            cases = select([*BOTH_WAYS, *WITH_HEADERS, "tcpv4-checksums-are-finished"])
            results = await suite(target, cases, timeout=WITHIN)
            assert set(seen(results).values()) == {"passed"}, seen(results)

    async def test_tags_come_out_as_they_went_in(self, netns: NetNamespace, tmp_path: Path) -> None:
        path = tmp_path / "back.sock"
        async with Served(tap_in(netns, queues=QUEUES), path, QUEUES) as served:
            served.listen()
            wire = InNamespace("vnet0", netns)
            await wire.open()
            async with Driver.connect(path) as drv:
                await drv.negotiate(Feature.CSUM)
                await wire.begin(drv)
                tagged = frame(1, 60, Vlan(7, tpid=0x88A8), Vlan(9))
                await drv.send(tagged)
                assert (await wire.receive(WITHIN)).data == tagged
                await wire.send(tagged)
                assert (await drv.receive(WITHIN)).data == tagged
                await drv.send_offloaded(frame(2, 100, Vlan(7)))
                header, data, _ = await wire.receive(WITHIN)
                assert (data[12:16], header[0]) == (b"\x81\0\0\x07", 1), "NEEDS_CSUM"
                assert int.from_bytes(header[6:8], "little") == 14 + 4 + 20, "csum_start"
                with pytest.raises(NotApplicable, match="takes no frame of 9000 bytes"):
                    await wire.send(bytes(9000))
            await wire.aclose()

    async def test_no_such_interface(self, netns: NetNamespace) -> None:
        with pytest.raises(
            HostError, match=r"no packet socket on none0.*in this network namespace"
        ):
            await InNamespace("none0", netns).open()


class InNamespace(TapWire):
    """A wire whose socket is made in another network namespace, as the command would be."""

    def __init__(self, name: str, netns: NetNamespace) -> None:
        super().__init__(name)
        self._netns = netns

    async def open(self) -> None:
        self._netns.call(lambda: asyncio.run(TapWire.open(self)))
