# SPDX-License-Identifier: MIT
"""Our driver on our back-end when the connection goes: the rings stay, with what is in them."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from pyvnet import Device, Driver, Feature, HostError, Pair, RssConfig
from pyvnet.driver.errors import RefusedError
from pyvnet.reference import classify, steer
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY
from pyvnet.spec.vhost_user import ProtocolFeature
from pyvnet.testing.frames import Ipv4, build, udp
from pyvnet.transport.vhost_user.connection import Backend
from tests.driver.scripted_backend import ScriptedBackend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WITHIN = 10.0  # a hang guard
REPORT = Feature.CTRL_VQ | Feature.RSS | Feature.HASH_REPORT | Feature.EVENT_IDX
TABLE = (0, 1)
RSS = RssConfig(ALL_HASH_TYPES, TABLE, VERIFICATION_KEY)


class Service:
    """A back-end at a path, for whichever device is in office."""

    def __init__(self, path: Path, device: Device) -> None:
        self.backend = Backend(device, name="test")
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        self.backend.serve(self._socket.accept()[0])

    def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self.backend.disconnect("the service ends")


@contextmanager
def service(path: Path, device: Device) -> Iterator[Service]:
    path.unlink(missing_ok=True)
    serving = Service(path, device)
    try:
        yield serving
    finally:
        serving.close()


def flow(number: int) -> bytes:
    return bytes(build(Ipv4(), udp(2000 + number, 53)))


async def exchange(drv: Driver, port: Pair) -> None:
    for number in range(8):
        port.wire(0).send(flow(number))
        got = await drv.receive(WITHIN)
        expected = classify(got.data, ALL_HASH_TYPES, VERIFICATION_KEY)
        assert got.data == flow(number)
        assert (got.hash_value, got.queue) == (expected.value, steer(expected, TABLE, 0))
    for pair in range(drv.pairs):
        await drv.send(flow(pair), queue=pair)
        wired = await asyncio.wait_for(port.wire(pair).receive(), WITHIN)
        assert wired.data == flow(pair)
    await asyncio.wait_for(drv.flush(), WITHIN)


@pytest.mark.requirement("U-59")
@pytest.mark.parametrize("limit", [None, ProtocolFeature(0), ProtocolFeature.REPLY_ACK])
async def test_the_same_back_end_goes_on_as_if_nothing_had_been(
    tmp_path: Path, limit: ProtocolFeature | None
) -> None:
    """Steering, hash reports and counters of before; no command was given again."""
    port = Pair(2)
    if limit is not None:
        limit |= ProtocolFeature.CONFIG | ProtocolFeature.MQ  # nobody else says how many queues
    async with Device(netdev=port) as device:
        with service(tmp_path / "s", device) as serving:
            async with Driver.connect(tmp_path / "s", protocol_features=limit) as drv:
                await drv.negotiate(REPORT, queue_size=16)
                await drv.ctrl.rss_config(RSS)
                for _ in range(3):
                    await exchange(drv, port)
                    waiting = asyncio.create_task(drv.receive())
                    await asyncio.sleep(0)
                    serving.backend.disconnect("a test wants it")
                    with pytest.raises(ConnectionError, match="closed the connection"):
                        await waiting
                    await drv.reconnect()
                    await exchange(drv, port)
                    assert device.steering_owner == "software"
                assert serving.backend.connections == 4


async def test_frames_not_yet_sent_are_sent_by_the_successor(tmp_path: Path) -> None:
    """The old back-end's wire is full; what it had not sent goes out on the new one's, in order."""
    first, second = Pair(1), Pair(1)
    async with Device(netdev=first) as old, Device(netdev=second) as new:
        with service(tmp_path / "s", old):
            drv = await Driver.connect(tmp_path / "s")
            await drv.negotiate(Feature.VERSION_1, queue_size=32)
            sent = 0
            while drv.transmitqs[0].ring.outstanding < 8:
                drv.send_nowait(sent.to_bytes(4) * 4000)
                sent += 1
                old.engine.queue_state(1)  # the worker has looked at it since
                drv.running.transmitters[0].reap()
        out = []
        with suppress(BlockingIOError):
            while True:
                out.append(int.from_bytes(first.wire(0).recv().data[:4]))
        with service(tmp_path / "s", new):
            with pytest.raises(ConnectionError):
                await drv.flush()
            await drv.reconnect()
            while len(out) < sent:
                wired = await asyncio.wait_for(second.wire(0).receive(), WITHIN)
                out.append(int.from_bytes(wired.data[:4]))
            assert out == list(range(sent))
            await asyncio.wait_for(drv.flush(), WITHIN)
            second.wire(0).send(flow(0))
            assert (await drv.receive(WITHIN)).data == flow(0)
            await drv.aclose()


async def test_a_successor_that_can_do_less_is_refused_and_a_negotiation_helps(
    tmp_path: Path,
) -> None:
    async with (
        Device(netdev=Pair(1)) as old,
        Device(netdev=Pair(1), features=Feature.VERSION_1 | Feature.MAC) as new,
    ):
        with service(tmp_path / "s", old):
            drv = await Driver.connect(tmp_path / "s")
            await drv.negotiate(REPORT)
        with pytest.raises(HostError, match="no vhost-user back-end"):
            await drv.reconnect()
        with service(tmp_path / "s", new):
            with pytest.raises(RefusedError, match="SET_FEATURES"):
                await drv.reconnect()
            await drv.negotiate()
            assert drv.features == Feature.VERSION_1 | Feature.MAC
            await drv.aclose()


async def test_reconnecting_before_negotiation_and_without_need(tmp_path: Path) -> None:
    port = Pair(2)
    async with Device(netdev=port) as device:
        with service(tmp_path / "s", device):
            async with Driver.connect(tmp_path / "s") as drv:
                await drv.reconnect()
                await drv.negotiate(REPORT)
                await drv.ctrl.rss_config(RSS)
                await exchange(drv, port)
                await drv.reconnect()
                await exchange(drv, port)


async def test_what_is_handed_over_again(tmp_path: Path) -> None:
    """A ring resumes behind the last used element the driver can see, whoever had seen it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        connecting = asyncio.create_task(_connect(tmp_path / "s"))
        await asyncio.sleep(0)
        old = ScriptedBackend(accepted=listener.accept()[0])
        drv = await connecting
        await drv.negotiate(Feature.VERSION_1, queue_size=16)
        drv.send_nowait(b"one")
        drv.send_nowait(b"two")
        old.hang_up()
        drv.memory.write(drv.transmitqs[0].ring.used_ring + 2, (1).to_bytes(2, "little"))
        interrupts = drv.transmitqs[0].interrupts
        reconnecting = asyncio.create_task(drv.reconnect())
        await asyncio.sleep(0)
        new = ScriptedBackend(accepted=listener.accept()[0])
        await reconnecting
        assert new.of(2)[0].payload == old.of(2)[0].payload, "the same features"
        assert [int.from_bytes(m.payload, "little") for m in new.of(39)] == [3, 11, 15]
        for request in (5, 8, 9, 12, 13, 14, 18):
            assert [m.payload for m in new.of(request)] == [m.payload for m in old.of(request)]
        assert [m.payload for m in new.of(10)] == [struct.pack("=II", i, i) for i in (0, 1)]
        async with asyncio.timeout(WITHIN):
            await drv.wait_config_change()
        assert drv.transmitqs[0].interrupts == interrupts + 1, "its call may have died with it"
        for backend in (new, old):
            backend.close()
        await drv.aclose()


async def _connect(path: Path) -> Driver:
    return await Driver.connect(path)
