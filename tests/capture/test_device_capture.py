# SPDX-License-Identifier: MIT
"""Captures of a device and of a driver: they agree, and neither is in the device's way."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet import Device, Feature, HashConfig, Pair, RssConfig, UsageError
from pyvnet.capture import CaptureError, Rotation, Writer, read_frames
from pyvnet.capture.words import Steering, steering_of, verdict_of
from pyvnet.driver.errors import CommandError
from pyvnet.reference import classify
from pyvnet.spec.net_hdr import GsoType, HdrFlag, NetHdr
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY, HashType
from pyvnet.testing.frames import Ipv4, build, tcp, udp
from tests.capture.apart import seen, tshark

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pyvnet import Driver
    from pyvnet.capture import CapturedFrame

FEATURES = (
    Feature.CTRL_VQ
    | Feature.MQ
    | Feature.RSS
    | Feature.HASH_REPORT
    | Feature.MRG_RXBUF
    | Feature.CSUM
    | Feature.GUEST_CSUM
    | Feature.GUEST_TSO4
    | Feature.HOST_TSO4
)
RSS = RssConfig(ALL_HASH_TYPES, (0, 1, 2, 3), VERIFICATION_KEY)
BACKWARDS = RssConfig(int(HashType.IPV4), (3, 2, 1, 0), VERIFICATION_KEY[::-1], 2)
TIMEOUT = 20.0  # a hang guard


def udp_frame(flow: int, size: int = 60) -> bytes:
    return bytes(build(Ipv4(), udp(1024 + flow, 53, bytes(size - 42))))


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[tuple[Device, Driver, Pair]]:
    port = Pair(4)
    async with Device(netdev=port) as device, device.driver(**options) as driver:
        yield device, driver, port


async def receive(driver: Driver, port: Pair, frames: list[bytes]) -> None:
    for flow, frame in enumerate(frames):
        port.wire(flow % 4).send(frame)
    for _ in frames:
        await driver.receive(timeout=TIMEOUT)


async def send(driver: Driver, port: Pair, frame: bytes, queue: int) -> None:
    await driver.send(frame, queue=queue)
    await asyncio.wait_for(port.wire(queue).receive(), TIMEOUT)


def told(frame: CapturedFrame) -> tuple[Any, ...]:
    """What a frame of a capture says, but for time, name and steering."""
    side = frame.interface_name.split(":")[1]
    return side, frame.data, frame.queue, frame.hash_value, frame.flags, frame.comments[0]


async def test_device_and_driver_tell_the_same(tmp_path: Path) -> None:
    large = bytes(build(Ipv4(), tcp(payload=bytes(9000))))
    asks = NetHdr(
        HdrFlag.NEEDS_CSUM, GsoType.TCPV4, hdr_len=54, gso_size=1448, csum_start=34, csum_offset=16
    )
    with Writer(tmp_path / "driver.pcapng", name="guest") as writer:
        async with running(capture=writer) as (device, driver, port):
            device.capture(tmp_path / "device.pcapng", name="vm1")
            await driver.negotiate(FEATURES)
            await receive(driver, port, [udp_frame(0)])
            for config in (RSS, BACKWARDS):
                await driver.ctrl.rss_config(config)
                await receive(driver, port, [udp_frame(flow) for flow in range(12)])
            port.wire(0).send(large, asks.pack())
            assert (await driver.receive(timeout=TIMEOUT)).header.gso_size == 1448
            await driver.ctrl.vq_pairs_set(2)
            await receive(driver, port, [udp_frame(flow) for flow in range(2)])
            await send(driver, port, udp_frame(1), 1)
            await driver.send(large, queue=0, header=asks)
            await asyncio.wait_for(port.wire(0).receive(), TIMEOUT)
            assert device.stop_capture()
            assert not device.stop_capture()
            assert device.capture_status()["frames"] == 30
    by_device = list(read_frames(tmp_path / "device.pcapng"))
    by_driver = list(read_frames(tmp_path / "driver.pcapng"))
    assert sorted(map(told, by_device), key=str) == sorted(map(told, by_driver), key=str)
    assert {f.interface_name.split(":")[0] for f in by_device} == {"vm1"}
    assert {f.interface_name.split(":")[0] for f in by_driver} == {"guest"}
    for frames in (by_device, by_driver):
        steerings = [s for f in frames for c in f.comments if (s := steering_of(c))]
        key, backwards = VERIFICATION_KEY, VERIFICATION_KEY[::-1]
        automatic = steerings.pop(0)
        assert (automatic.hash_types, automatic.indirection_table) == (0, ())
        assert steerings == [
            Steering(ALL_HASH_TYPES, key, (0, 1, 2, 3), 0),
            Steering(HashType.IPV4, backwards, (3, 2, 1, 0), 2),
            Steering(HashType.IPV4, backwards),
        ]


async def test_hashes_are_those_of_the_reference(tmp_path: Path) -> None:
    """By a reader that is not ours."""
    path = tmp_path / "x.pcapng"
    async with running() as (device, driver, port):
        await driver.negotiate(FEATURES)
        await driver.ctrl.rss_config(RSS)
        device.capture(path)
        await receive(driver, port, [udp_frame(flow) for flow in range(32)])
    file = seen(path)
    assert file.names == [f"vnet:{way}{pair}" for pair in range(4) for way in ("rx", "tx")]
    assert len(file.frames) == 32
    for (name, data, options), value in zip(file.frames, file.hashes(), strict=True):
        expected = classify(data, ALL_HASH_TYPES, VERIFICATION_KEY)
        assert value == expected.value
        assert options["epb_queue"] == [expected.value & 3]
        assert name == f"vnet:rx{expected.value & 3}"
    assert sum(counts["isb_usrdeliv"] for counts in file.counts.values()) == 32
    assert sum(counts["isb_ifrecv"] for counts in file.counts.values()) == 32


@pytest.mark.needs_program("tshark")
def test_tshark_reads_a_device_s_capture(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"

    async def capture() -> None:
        async with running() as (device, driver, port):
            await driver.negotiate(FEATURES)
            await driver.ctrl.rss_config(RSS)
            device.capture(path)
            await receive(driver, port, [udp_frame(flow) for flow in range(8)])

    asyncio.run(capture())
    shown = tshark(path, "frame.interface_name", "frame.interface_queue", "frame.comment")
    assert len(shown) == 8
    for name, queue, comment in shown:
        verdict = verdict_of(comment)
        assert verdict is not None
        assert (name, queue) == (f"vnet:rx{verdict.queue}", str(verdict.queue))
        assert verdict.hash_report == 3


async def test_the_device_s_own_drops_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    async with running() as (device, driver, port):
        await driver.negotiate(FEATURES, rx_buffers=0)
        await driver.ctrl.rss_config(RSS)
        device.capture(path)
        port.wire(0).send(udp_frame(0))
        await driver.ctrl.vq_pairs_set(4)  # behind it the frame is judged
    counts = seen(path).counts
    assert sum(interface["isb_ifdrop"] for interface in counts.values()) == 1
    assert list(read_frames(path)) == []


async def test_files_of_a_rotation(tmp_path: Path) -> None:
    """Each is a capture of its own, and says anew what steers."""
    path = tmp_path / "x.pcapng"
    async with running() as (device, driver, port):
        await driver.negotiate(FEATURES)
        await driver.ctrl.rss_config(RSS)
        capture = device.capture(path, rotation=Rotation(256 * 1024, 3))
        for _ in range(10):
            await receive(driver, port, [udp_frame(flow, 9000) for flow in range(16)])
        device.stop_capture()
        assert capture.status()["files"] > 4
        assert capture.status()["frames"] == 160
        last = capture.status()["files"] - 1
    files = [tmp_path / f"x.{number}.pcapng" for number in range(last - 2, last + 1)]
    assert sorted(os.listdir(tmp_path)) == sorted(file.name for file in files)  # noqa: PTH208
    times: list[int] = []
    for file in files:
        frames = list(read_frames(file))
        assert steering_of(frames[0].comments[-1]) is not None
        assert len(seen(file).counts) == 8
        assert file.stat().st_size <= 256 * 1024 + 1024
        times += [frame.timestamp_ns or 0 for frame in frames]
    assert times == sorted(times)


async def test_a_full_disk_stops_the_capture_and_not_the_device(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.pcapng"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    received = 0
    async with running() as (device, driver, port):
        await driver.negotiate(FEATURES)
        await driver.ctrl.rss_config(RSS)
        with caplog.at_level(logging.ERROR, "pyvnet"):
            capture = device.capture(path)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
            try:
                while capture.running:
                    await receive(driver, port, [udp_frame(flow, 9000) for flow in range(16)])
                    received += 16
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            await receive(driver, port, [udp_frame(0)])
        status = device.status()["capture"]
        assert status["state"] == "failed"
        assert status["failure"] == f"capture {path} stopped: {os.strerror(errno.EFBIG)}"
        assert [r.message for r in caplog.records] == [f"{status['failure']}; the device goes on"]
        again = tmp_path / "again.pcapng"
        device.capture(again)
        await receive(driver, port, [udp_frame(0)])
    assert len(list(read_frames(again))) == 1
    kept = len(list(read_frames(path)))
    assert 0 < kept < 16
    assert status["frames"] == kept
    assert received - kept <= status["lost"] <= received + 1 - kept  # one was behind the end


async def test_one_capture_at_a_time(tmp_path: Path) -> None:
    async with running() as (device, driver, port):
        assert device.status()["capture"] == {"state": "off"}
        await driver.negotiate(FEATURES)
        device.capture(tmp_path / "x.pcapng")
        with pytest.raises(UsageError, match="captured already"):
            device.capture(tmp_path / "y.pcapng")
        await receive(driver, port, [udp_frame(0)])
        device.stop_capture()
        assert device.status()["capture"]["state"] == "stopped"
        device.capture(tmp_path / "y.pcapng", snap_length=20)
        await receive(driver, port, [udp_frame(0)])
    assert [len(f.data) for f in read_frames(tmp_path / "x.pcapng")] == [60]
    assert [len(f.data) for f in read_frames(tmp_path / "y.pcapng")] == [20]


async def test_captures_that_cannot_begin(tmp_path: Path) -> None:
    async with running() as (device, _, _):
        for path, reason in ((tmp_path / "no/x", "No such file"), ("/dev/full", "No space left")):
            with pytest.raises(CaptureError, match=reason):
                device.capture(path)
        with pytest.raises(UsageError, match="snapshot length -1"):
            device.capture(tmp_path / "x.pcapng", snap_length=-1)
        assert device.status()["capture"] == {"state": "off"}
    with pytest.raises(UsageError, match="not open"):
        device.capture(tmp_path / "x.pcapng")


async def test_a_pipe_whose_reader_is_gone_ends_the_capture(tmp_path: Path) -> None:
    path = tmp_path / "x"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    async with running() as (device, driver, port):
        await driver.negotiate(FEATURES)
        capture = device.capture(path)
        await receive(driver, port, [udp_frame(0)])
        os.close(reader)
        while capture.running:
            await receive(driver, port, [udp_frame(0)])
        assert device.capture_status()["failure"].endswith(os.strerror(errno.EPIPE))


async def test_a_driver_s_capture_holds_refused_commands_apart(tmp_path: Path) -> None:
    """What the device did not obey decides nothing."""
    with Writer(tmp_path / "x.pcapng") as writer:
        async with running(capture=writer) as (_, driver, port):
            await driver.negotiate(FEATURES)
            await driver.ctrl.rss_config(RSS)
            with pytest.raises(CommandError):
                await driver.ctrl.rss_config(RssConfig(ALL_HASH_TYPES, (0, 99), VERIFICATION_KEY))
            await receive(driver, port, [udp_frame(0)])
            await driver.negotiate(FEATURES & ~Feature.HASH_REPORT)
            await receive(driver, port, [udp_frame(0)])
            await driver.negotiate(FEATURES & ~Feature.RSS)
            await driver.ctrl.hash_config(HashConfig(ALL_HASH_TYPES, VERIFICATION_KEY))
            await receive(driver, port, [udp_frame(0)])
    first, second, third = read_frames(tmp_path / "x.pcapng")
    assert steering_of(first.comments[1]) == Steering(
        ALL_HASH_TYPES, VERIFICATION_KEY, (0, 1, 2, 3)
    )
    assert second.comments == ("receiveq 0", Steering(0, b"").as_comment())
    assert second.hash_value is None
    assert steering_of(third.comments[1]) == Steering(ALL_HASH_TYPES, VERIFICATION_KEY)
    assert third.hash_value == classify(third.data, ALL_HASH_TYPES, VERIFICATION_KEY).value
