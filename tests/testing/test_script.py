# SPDX-License-Identifier: MIT
"""The verbs of a scenario, and what becomes of their misuse."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.plist import PacketList

from pyvnet import EngineConfig, Feature, HashReport, HashType
from pyvnet.capture import CaptureError, Writer
from pyvnet.driver import CommandError
from pyvnet.errors import UsageError
from pyvnet.spec.net_hdr import GsoType, HdrFlag, NetHdr
from pyvnet.testing import ExpectationError, PlainVnet, Vnet, scenario
from pyvnet.testing.frames import Ipv4, Ipv6, build, icmp, tcp, udp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OTHER = build(Ipv6(), icmp())
FRAMES = [build(Ipv4(), udp(port, 53)) for port in range(40_000, 40_016)]


# --- what it promises -----------------------------------------------------------------------


async def test_expectations_in_any_order_and_across_queues(vnet: Vnet) -> None:
    await vnet.steer()
    assert vnet.inject(*FRAMES) == [bytes(frame) for frame in FRAMES]
    for frame in reversed(FRAMES):
        seen = await vnet.expect(frame, **vnet.predict(frame))
        assert seen.data == bytes(frame)
    await vnet.expect_nothing()


async def test_each_frame_satisfies_one_expectation(vnet: Vnet) -> None:
    vnet.inject(FRAMES[0], FRAMES[0])
    await vnet.expect(FRAMES[0])
    await vnet.expect(FRAMES[0])
    with pytest.raises(ExpectationError, match="no frame came"):
        await vnet.expect(FRAMES[0])


async def test_a_frame_may_be_expected_before_it_is_there(vnet: Vnet) -> None:
    await vnet.steer()
    waiting = [asyncio.create_task(vnet.expect(frame)) for frame in FRAMES[:4]]
    vnet.inject(*FRAMES[:4])
    assert [seen.data for seen in await asyncio.gather(*waiting)] == list(map(bytes, FRAMES[:4]))


async def test_a_verb_goes_wherever_a_coroutine_goes(vnet: Vnet) -> None:
    vnet.inject(*FRAMES[:3])
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        first = group.create_task(vnet.expect(FRAMES[0]))
    assert first.result().data == bytes(FRAMES[0])
    assert (await asyncio.wait_for(vnet.expect(FRAMES[1]), 60)).data == bytes(FRAMES[1])
    cancelled = asyncio.ensure_future(vnet.expect(OTHER, within=60))
    await vnet.expect(FRAMES[2])
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_several_wait_for_what_the_driver_sends(vnet: Vnet) -> None:
    waiting = [asyncio.create_task(vnet.expect_sent(frame, within=60)) for frame in FRAMES[:3]]
    await vnet.expect_nothing()
    await vnet.send(*FRAMES[:3])
    assert [seen.data for seen in await asyncio.gather(*waiting)] == list(map(bytes, FRAMES[:3]))


async def _coroutine(vnet: Vnet, frame: Any, within: float | None = None) -> Any:
    return await vnet.expect(frame, within=within)


async def test_more_frames_than_the_rings_hold(vnet: Vnet) -> None:
    """They wait until there is room, and none is lost."""
    count = 4 * vnet.driver.receiveqs[0].ring.size
    frame = build(Ipv4(), tcp(payload=bytes(3000)))
    vnet.inject(*[frame] * count)
    assert vnet.not_injected
    for _ in range(count):
        await vnet.expect(frame)
    await vnet.expect_nothing()
    assert not any("drop" in name for name in vnet.counters())


async def test_scapy_packets_and_captures(vnet: Vnet, tmp_path: Path) -> None:
    packet = Ether() / IP(dst="192.0.2.1") / UDP()
    with Writer(tmp_path / "some.pcapng") as writer:
        for frame in FRAMES:
            writer.add("eth0", bytes(frame))
    await vnet.steer()
    injected = vnet.inject(packet, tmp_path / "some.pcapng")
    assert injected == [bytes(packet), *map(bytes, FRAMES)]
    await vnet.expect(packet, report=HashReport.UDPV4)
    for frame in FRAMES:
        await vnet.expect(frame)


async def test_a_damaged_capture_goes_in_as_far_as_it_is_whole(vnet: Vnet, tmp_path: Path) -> None:
    path = tmp_path / "cut.pcapng"
    with Writer(path) as writer:
        writer.add("eth0", bytes(FRAMES[0]))
        writer.add("eth0", bytes(FRAMES[1]))
        writer.flush()
        whole = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(whole - 20)
    with pytest.raises(CaptureError, match=r"cut\.pcapng"):
        vnet.inject(path)
    await vnet.expect(FRAMES[0])
    await vnet.expect_nothing()


async def test_header_fields_and_conditions(vnet: Vnet) -> None:
    burst = build(Ipv4(), tcp(payload=bytes(4000)), checksums=False)
    asked = NetHdr(HdrFlag.NEEDS_CSUM, GsoType.TCPV4, 54, 1000, 34, 16)
    vnet.inject(burst, header=asked)
    seen = await vnet.expect(
        burst,
        flags=HdrFlag.NEEDS_CSUM,
        gso_type=GsoType.TCPV4,
        gso_size=1000,
        where=lambda frame: len(frame.buffers) > 1,
    )
    assert seen.header.num_buffers == len(seen.buffers)
    vnet.inject(FRAMES[0])
    await vnet.expect(header=NetHdr(num_buffers=1))


async def test_the_other_direction(vnet: Vnet) -> None:
    burst = build(Ipv6(), tcp(payload=bytes(4000)), checksums=False)
    asked = NetHdr(HdrFlag.NEEDS_CSUM, GsoType.TCPV6, 74, 1000, 54, 16)
    await vnet.send(FRAMES[0], FRAMES[1], queue=1)
    await vnet.send(burst, header=asked)
    await vnet.expect_sent(burst, gso_type=GsoType.TCPV6, gso_size=1000)
    await vnet.expect_sent(FRAMES[1])
    await vnet.expect_sent(FRAMES[0], where=lambda frame: not frame.header.flags)
    await vnet.expect_nothing_sent()


async def test_what_the_device_drops_is_silence(vnet: Vnet) -> None:
    await vnet.driver.ctrl.rx_promisc(on=False)
    vnet.inject(*FRAMES)
    await vnet.expect_nothing()
    assert vnet.counters()["rx_drop_filtered"] == len(FRAMES)


async def test_silence_on_one_queue(vnet: Vnet) -> None:
    await vnet.steer(table=(2,))
    vnet.inject(FRAMES[0])
    await vnet.expect_nothing(queue=1)
    with pytest.raises(ExpectationError, match="came on queue 2"):
        await vnet.expect_nothing()


async def test_frames_a_test_takes_itself_do_not_hold_up_silence(vnet: Vnet) -> None:
    vnet.inject(FRAMES[0])
    assert (await vnet.driver.receive(5)).data == bytes(FRAMES[0])
    await vnet.expect_nothing()
    vnet.wire.send(bytes(FRAMES[1]))
    await vnet.expect(FRAMES[1])


async def test_a_frame_that_is_yet_to_be_sent_is_waited_for(vnet: Vnet) -> None:
    with pytest.raises(ExpectationError, match="no frame came"):
        await vnet.expect(FRAMES[0])
    waiting = asyncio.create_task(_coroutine(vnet, FRAMES[0], within=60))
    await vnet.expect_nothing()
    await vnet.expect_nothing_sent(within=0.01)
    vnet.inject(FRAMES[0])
    assert (await waiting).data == bytes(FRAMES[0])


async def test_a_prediction_says_what_is_reported(vnet: Vnet) -> None:
    assert vnet.predict(FRAMES[0]) == {"hash": 0, "report": HashReport.NONE}
    config = await vnet.steer(table=(1, 2), hash_types=HashType.IPV4, unclassified_queue=3)
    assert config.indirection_table == (1, 2)
    assert vnet.predict(OTHER) == {"queue": 3, "hash": 0, "report": HashReport.NONE}
    vnet.inject(OTHER, FRAMES[0])
    await vnet.expect(OTHER, **vnet.predict(OTHER))
    await vnet.expect(FRAMES[0], **vnet.predict(FRAMES[0]))


async def test_a_driver_alone(vnet_device_factory: Any) -> None:
    """Where only a driver is ours, the steering is that of the command; time has to do."""
    device = await vnet_device_factory()
    driver = await vnet_device_factory.driver(device)
    alone = Vnet(None, driver, vnet_device_factory.wire(device))
    with pytest.raises(UsageError, match="use steer"):
        alone.predict(FRAMES[0])
    await alone.steer(table=(3,))
    alone.inject(FRAMES[0])
    await alone.expect(FRAMES[0], **alone.predict(FRAMES[0]))
    await alone.expect_nothing(within=0.01)
    await alone.send(FRAMES[1])
    await alone.expect_sent(FRAMES[1])
    assert alone.counters() == {}


@pytest.mark.one_loop("it runs a loop of its own")
def test_without_pytest() -> None:
    async def use() -> None:
        async with scenario(queues=2, features=Feature.CTRL_VQ | Feature.MQ, mtu=1500) as vnet:
            vnet.inject(FRAMES[0])
            await vnet.expect(FRAMES[0])
            assert vnet.driver.pairs == 2

    asyncio.run(use())


async def test_a_worker_of_a_test_looks_on_for_longer_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def poll_us(**options: Any) -> int:
        async with scenario(queues=1, **options) as vnet:
            assert vnet.device is not None
            return vnet.device.engine.info().poll_us

    monkeypatch.delenv("PYVNET_POLL_US", raising=False)
    assert await poll_us() == 500
    assert await poll_us(engine_config=EngineConfig(poll_us=7)) == 7
    monkeypatch.setenv("PYVNET_POLL_US", "9")
    assert await poll_us() == 9


async def test_what_comes_out_is_taken_by_queue_and_not_from_a_wire_that_was_closed() -> None:
    async with scenario(queues=2) as vnet:
        await vnet.steer()
        await vnet.send(FRAMES[0], queue=1)
        await vnet.send(FRAMES[1], queue=0)
        await vnet.driver.flush()
        taken = [vnet.wire.recv(), vnet.wire.recv(), vnet.wire.recv()]
        assert [None if frame is None else frame.queue for frame in taken] == [0, 1, None]
    with pytest.raises(OSError, match="Bad file descriptor"):
        vnet.wire.recv()


# --- misuse ---------------------------------------------------------------------------------


async def test_forgotten_awaits_are_named() -> None:
    opened = scenario(queues=1)
    vnet = await opened.__aenter__()
    vnet.expect(FRAMES[0])  # type: ignore[unused-coroutine]
    vnet.expect_nothing()  # type: ignore[unused-coroutine]
    with pytest.raises(UsageError, match="not done: expect, expect_nothing; write `await"):
        await opened.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"queue": 4}, "no queue pair 4: the driver has set up 4"),
        ({"report": HashType.UDPV4}, "is a hash type; reports are numbered otherwise"),
        ({"gsosize": 1}, "'gsosize' is no field of the virtio header: flags, gso_type"),
        ({"frame": "some.pcap"}, "a whole capture cannot be expected"),
        ({"frame": 7}, "7 is no frame: give bytes"),
    ],
)
async def test_what_cannot_be_expected(vnet: Vnet, wanted: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        await vnet.expect(**wanted)


async def test_what_cannot_be_injected(vnet: Vnet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no queue 4 on this wire: it has 0 to 3"):
        vnet.inject(FRAMES[0], queue=4)
    with pytest.raises(UsageError, match="a list is no frame but many: give them one by one"):
        vnet.inject([1])  # type: ignore[arg-type]  # that is the point
    with pytest.raises(CaptureError, match="cannot open"):
        vnet.inject(tmp_path / "missing.pcap")
    with pytest.raises(UsageError, match="no queue pair 9"):
        await vnet.send(FRAMES[0], queue=9)


async def test_no_hash_is_expected_where_none_is_reported() -> None:
    async with scenario(queues=2, features=Feature.CTRL_VQ | Feature.RSS) as vnet:
        await vnet.steer()
        with pytest.raises(UsageError, match="HASH_REPORT was not negotiated"):
            await vnet.expect(hash=1)
        assert set(vnet.predict(FRAMES[0])) == {"queue"}


async def test_plain_calls_inside_a_coroutine(vnet_plain: PlainVnet) -> None:
    with pytest.raises(UsageError, match="plain calls cannot be made inside a coroutine"):
        PlainVnet().__enter__()
    with pytest.raises(UsageError, match="plain calls cannot be made inside a coroutine"):
        vnet_plain.expect_nothing()


async def test_a_port_that_is_none() -> None:
    with pytest.raises(UsageError, match="'tun' is no kind of port: pair, tap"):
        await scenario(port="tun").__aenter__()  # type: ignore[arg-type]  # that is the point


async def test_features_of_the_device_are_not_the_driver_s(vnet_device_factory: Any) -> None:
    with pytest.raises(UsageError, match="what a device offers: `offered`"):
        await vnet_device_factory(features=Feature.RSS)


@pytest.fixture
def other_loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        yield runner


def test_a_script_of_another_loop(other_loop: asyncio.Runner) -> None:
    with PlainVnet(queues=1) as plain, pytest.raises(UsageError, match="same loop scope"):
        other_loop.run(_coroutine(plain.script, FRAMES[0]))


async def test_a_short_header_is_lost_and_said_so(vnet: Vnet) -> None:
    vnet.inject(b"", header=bytes(4))
    with pytest.raises(ExpectationError, match=r"1 × rx_drop_port \(the wire gave less than a"):
        await vnet.expect(FRAMES[0])


# --- what its user gets wrong -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("steering", "reason"),
    [
        ({"table": (0, 1, 2)}, "3 entries, which is no power of two"),
        ({"table": (0, 9)}, "names queue 9; there are 4, from 0 on"),
        ({"table": (0,) * 256}, "256 entries; the device takes 128"),
        ({"unclassified_queue": 4}, "unclassified_queue is 4; there are 4"),
        ({"key": bytes(60)}, "60 bytes; the device takes 40"),
        ({"hash_types": 1 << 20}, "does not offer: 0x100000"),
    ],
)
async def test_a_refused_steering_says_what_was_wrong_with_it(
    steering: dict[str, Any], reason: str
) -> None:
    async with scenario() as vnet:
        with pytest.raises(CommandError) as caught:
            await vnet.steer(**steering)
    (note,) = caught.value.__notes__
    assert reason in note


async def test_a_steering_without_its_feature_says_so() -> None:
    async with scenario(features=Feature.CTRL_VQ) as vnet:
        with pytest.raises(CommandError) as caught:
            await vnet.steer()
    assert caught.value.__notes__ == ["RSS was not negotiated"]


@pytest.mark.parametrize(
    "steering", [{"table": ()}, {"table": 3}, {"table": (-1,)}, {"key": bytes(256)}, {"key": "6d"}]
)
async def test_a_steering_no_command_can_say(vnet: Vnet, steering: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        await vnet.steer(**steering)


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"queue": "1"}, "queue '1' is no number"),
        ({"report": "TCPV4"}, "hash_report 'TCPV4' is no number"),
        ({"hash": "0x12"}, "hash_value '0x12' is no number"),
        ({"gso_size": b"1"}, "gso_size b'1' is no number"),
    ],
)
async def test_text_is_no_number(vnet: Vnet, expected: dict[str, Any], said: str) -> None:
    vnet.inject(FRAMES[0])
    with pytest.raises(UsageError, match=said):
        await vnet.expect(FRAMES[0], **expected)


async def test_many_frames_are_given_one_by_one(vnet: Vnet) -> None:
    with pytest.raises(UsageError, match="a PacketList is no frame but many"):
        vnet.inject(PacketList([Ether() / IP()]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mtuu": 1500}, "no option mtuu"),
        ({"mac": "02:00:00:00:00:01"}, "give its six bytes"),
        ({"features": "RSS"}, "'RSS' is no set of features"),
    ],
)
async def test_options_that_make_no_device(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        async with scenario(**options):
            pytest.fail("it was opened")
