# SPDX-License-Identifier: MIT
"""The driver on the device it was written beside, not for: both readings of the standard agree."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pyvnet import Device, Driver, Feature, Pair, RssConfig
from pyvnet.driver import (
    Buffer,
    CommandError,
    CtrlLayout,
    GuestMemory,
    NegotiationError,
    RegionSpec,
)
from pyvnet.driver.memory import PAGE_SIZE
from pyvnet.driver.misbehave import Forger
from pyvnet.errors import UsageError
from pyvnet.reference import classify, steer
from pyvnet.spec.ctrl import Ack
from pyvnet.spec.features import NO_FEATURES
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY
from pyvnet.testing.frames import Ipv4, Ipv6, build, tcp, udp
from tests.driver.ways import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pyvnet.driver.ring_split import Chain
    from tests.driver.ways import Way

REPORT = Feature.CTRL_VQ | Feature.RSS | Feature.HASH_REPORT
TABLE = (0, 1, 2, 3)
RSS = RssConfig(ALL_HASH_TYPES, TABLE, VERIFICATION_KEY)
WITHIN = 10.0  # a hang guard


class Setting(NamedTuple):
    device: Device
    drv: Driver
    port: Pair


@asynccontextmanager
async def running(way: Way, memory: GuestMemory | None = None) -> AsyncIterator[Setting]:
    port = Pair(4)
    async with Device(netdev=port) as device, connected(device, way, memory=memory) as drv:
        yield Setting(device, drv, port)


def flow(number: int, size: int = 60) -> bytes:
    payload = bytes(i & 0xFF for i in range(size - 60 + 6))
    if number % 2:
        return bytes(build(Ipv6("2001:db8::1", "2001:db8::2"), tcp(2000 + number, 80, payload)))
    return bytes(build(Ipv4("192.0.2.1", "192.0.2.2"), udp(2000 + number, 53, payload)))


async def exchange(
    at: Setting, *, flows: int = 12, size: int = 60, table: tuple[int, ...] = TABLE
) -> None:
    """Frames of some flows in, each judged by the reference, and one out on each queue."""
    sent = set()
    for number in range(flows):
        frame = flow(number, size)
        at.port.wire(number % len(table)).send(frame)
        sent.add(frame)
    for _ in range(flows):
        got = await at.drv.receive(timeout=WITHIN)
        expected = classify(got.data, ALL_HASH_TYPES, VERIFICATION_KEY)
        assert (got.hash_value, got.hash_report) == (expected.value, expected.report)
        assert got.queue == steer(expected, table, 0)
        sent.remove(got.data)
    assert not sent
    for pair in range(at.drv.pairs):
        await at.drv.send(flow(pair, size), queue=pair)
        wire = at.port.wire(pair % len(table))  # as many are attached as the table names
        wired = await asyncio.wait_for(wire.receive(), WITHIN)
        assert wired.data == flow(pair, size)
    await asyncio.wait_for(at.drv.flush(), WITHIN)


# --- negotiation -----------------------------------------------------------------------


@pytest.mark.requirement("VIO-FEAT-02", "VIO-RST-01")
async def test_everything_on_offer_is_taken_and_works(way: Way) -> None:
    async with running(way) as at:
        await at.drv.negotiate()
        assert at.drv.features & REPORT == REPORT
        assert (at.drv.pairs, at.drv.config.max_virtqueue_pairs) == (4, 4)
        await at.drv.ctrl.rss_config(RSS)
        await exchange(at)


@pytest.mark.requirement("VIO-FEAT-02")
@pytest.mark.parametrize("features", [Feature.VERSION_1 | Feature.RSS, REPORT, Feature(1 << 44)])
async def test_what_the_device_refuses_shows_in_features_ok(way: Way, features: Feature) -> None:
    """RSS without CTRL_VQ; no VERSION_1; a bit that was not offered."""
    async with running(way) as at:
        with pytest.raises(NegotiationError, match="refused FEATURES_OK"):
            await at.drv.negotiate(features, verbatim=True)
        await at.drv.negotiate(REPORT)
        await at.drv.ctrl.rss_config(RSS)
        await exchange(at, flows=4)


@pytest.mark.requirement("VIO-FEAT-04")
async def test_the_same_device_again_and_again_with_other_choices(way: Way) -> None:
    everything = REPORT | Feature.EVENT_IDX | Feature.INDIRECT_DESC | Feature.MRG_RXBUF
    async with running(way) as at:
        for features, size in ((REPORT, 8), (NO_FEATURES, 1), (everything, 256), (REPORT, 32)):
            await at.drv.negotiate(features, queue_size=size)
            if features & Feature.RSS:
                await at.drv.ctrl.rss_config(RSS)
                await exchange(at, flows=4)
            else:
                at.port.wire(0).send(flow(0))
                assert (await at.drv.receive(WITHIN)).data == flow(0)


# --- layouts ---------------------------------------------------------------------------


@pytest.mark.requirement("VIO-SPL-01", "NET-RX-01", "NET-RX-02", "NET-RX-03")
@pytest.mark.parametrize("event_idx", [NO_FEATURES, Feature.EVENT_IDX])
@pytest.mark.parametrize("indirect", [NO_FEATURES, Feature.INDIRECT_DESC])
@pytest.mark.parametrize("size", [None, 100])
@pytest.mark.parametrize("cuts", [(), (1,), (19, 2)])
async def test_frames_however_buffers_are_cut_and_merged(
    way: Way, event_idx: Feature, indirect: Feature, size: int | None, cuts: tuple[int, ...]
) -> None:
    async with running(way) as at:
        await at.drv.negotiate(
            REPORT | Feature.MRG_RXBUF | event_idx | indirect,
            rx_buffer_size=size,
            rx_cuts=cuts,
        )
        await at.drv.ctrl.rss_config(RSS)
        for length in (60, 1500):
            await exchange(at, size=length, flows=8)


@pytest.mark.requirement("VIO-SPL-01")
@pytest.mark.parametrize("features", [REPORT, REPORT | Feature.INDIRECT_DESC])
async def test_transmit_headers_cut_at_every_byte(way: Way, features: Feature) -> None:
    async with running(way) as at:
        await at.drv.negotiate(features)
        for cut in range(1, 40):
            await at.drv.send(flow(cut), cuts=(cut,))
            await at.drv.send(flow(cut), cuts=(1,) * cut)
            for _ in range(2):
                wired = await asyncio.wait_for(at.port.wire(0).receive(), WITHIN)
                assert wired.data == flow(cut)


@pytest.mark.requirement("VIO-SPL-01", "VIO-SPL-06", "NET-CVQ-03")
@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(CtrlLayout((2, 8, 256, 3)), id="linux"),
        pytest.param(CtrlLayout((), indirect=False), id="one-piece"),
        pytest.param(CtrlLayout((1,) * 60), id="bytes-indirect"),
        pytest.param(CtrlLayout((1,) * 60, indirect=False), id="bytes-direct"),
        pytest.param(CtrlLayout((3, 100), direct_prefix=2), id="direct-then-indirect"),
    ],
)
async def test_a_command_in_any_layout(way: Way, layout: CtrlLayout) -> None:
    config = replace(RSS, indirection_table=TABLE * 32)
    async with running(way) as at:
        await at.drv.negotiate(REPORT | Feature.INDIRECT_DESC)
        assert await at.drv.ctrl.raw(4, 1, config.pack(), layout=layout) is Ack.OK
        await exchange(at)
        with pytest.raises(CommandError, match="MQ_RSS_CONFIG"):
            await at.drv.ctrl.raw(4, 1, config.pack()[:-1], layout=layout)
        await exchange(at)


async def test_memory_in_pieces(way: Way) -> None:
    """Pages that touch, in reverse order in the file: every receive buffer lies across a border."""
    base, size = 0x1000_0000, 32 << 20
    # A memory table has eight regions, so few buffers, which one queue shall have all.
    pages, table = (48, TABLE) if way == "inproc" else (7, (0,))
    main = RegionSpec(0x8000_0000, size, pages * PAGE_SIZE)
    small = [
        RegionSpec(base + i * PAGE_SIZE, PAGE_SIZE, (pages - 1 - i) * PAGE_SIZE)
        for i in range(pages)
    ]
    with GuestMemory([main, *small]) as memory:
        async with running(way, memory) as at:
            await at.drv.negotiate(REPORT, rx_buffers=0, queue_size=64)
            await at.drv.ctrl.rss_config(replace(RSS, indirection_table=table))
            for i in range(1, pages):
                border = base + i * PAGE_SIZE
                at.drv.add_receive_buffer(i % len(table), [Buffer(border - 25, 2048, True)])
            for _ in range(4):
                await exchange(at, flows=6, table=table)
                await exchange(at, flows=6, table=table, size=1500)


# --- stops and breaks ------------------------------------------------------------------


async def test_a_queue_stopped_and_resumed_goes_on_where_it_stood(way: Way) -> None:
    async with running(way) as at:
        await at.drv.negotiate(REPORT | Feature.EVENT_IDX, queue_size=16)
        await at.drv.ctrl.rss_config(RSS)
        for _ in range(5):
            await exchange(at)
            for queue in at.drv.queues[:-1]:
                avail_base, used_base = await at.drv.transport.stop_queue(queue.index)
                await at.drv.transport.set_queue(
                    replace(queue.setup(), avail_base=avail_base, used_base=used_base)
                )
        await exchange(at)


async def test_rings_may_begin_where_they_soon_wrap(way: Way) -> None:
    async with running(way) as at:
        await at.drv.negotiate(REPORT, queue_size=16, ring_start=0xFFFE)
        await at.drv.ctrl.rss_config(RSS)
        assert {queue.ring.setup(0).avail_base for queue in at.drv.transmitqs} == {0xFFFE}
        for _ in range(3):
            await exchange(at)
        assert all(queue.ring.setup(0).avail_base < 0xFFFE for queue in at.drv.transmitqs)


BREAKS: dict[str, Callable[[Forger, list[Buffer]], Chain]] = {
    "loop": Forger.loop,
    "next_out_of_range": Forger.next_out_of_range,
    "unmapped": Forger.unmapped,
    "nested_indirect": Forger.nested_indirect,
    "indirect_and_next": Forger.indirect_and_next,
    "indirect_loop": Forger.indirect_loop,
    "indirect_next_out_of_range": Forger.indirect_next_out_of_range,
    "indirect_unmapped": Forger.indirect_unmapped,
    "indirect_length_0": lambda forger, buffers: forger.indirect_length(buffers, 0),
    "indirect_length_17": lambda forger, buffers: forger.indirect_length(buffers, 17),
    "indirect_length_huge": lambda forger, buffers: forger.indirect_length(buffers, 0xFFFFFFF0),
}
DROPS: dict[str, Callable[[Forger, list[Buffer]], Chain]] = {
    "zero_length": Forger.zero_length,
    "zero_length_unmapped": lambda forger, buffers: forger.zero_length(buffers, gpa=0),
    "wrong_direction": Forger.wrong_direction,
    "writable_first": lambda forger, buffers: forger.as_given(
        [buffers[0]._replace(writable=True), buffers[1]]
    ),
}
LEGAL: dict[str, Callable[[Forger, list[Buffer]], Chain]] = {
    "indirect_odd_address": Forger.indirect_odd_address,
    "indirect_write_flag": Forger.indirect_write_flag,
}


def transmit_chain(at: Setting, frame: bytes) -> list[Buffer]:
    """Header and frame in two readable buffers."""
    message = bytes(20) + frame
    gpa = at.drv.memory.alloc(len(message))
    at.drv.memory.write(gpa, message)
    return [Buffer(gpa, 20), Buffer(gpa + 20, len(frame))]


@pytest.mark.requirement("VIO-SPL-17", "VIO-STAT-02", "VIO-STAT-03")
@pytest.mark.parametrize("name", BREAKS)
async def test_a_chain_that_cannot_be_followed_ends_its_ring_and_no_other(
    way: Way, name: str
) -> None:
    async with running(way) as at:
        await at.drv.negotiate(REPORT | Feature.INDIRECT_DESC)
        await at.drv.ctrl.rss_config(RSS)
        queue = at.drv.transmitqs[1]
        BREAKS[name](Forger(queue.ring), transmit_chain(at, flow(0)))
        queue.publish()
        async with asyncio.timeout(WITHIN):
            await at.drv.wait_config_change()
        assert at.drv.needs_reset
        assert queue.broken()
        assert not any(other.broken() for other in at.drv.queues if other is not queue)
        await at.drv.send(flow(1), queue=0)
        assert (await asyncio.wait_for(at.port.wire(0).receive(), WITHIN)).data == flow(1)
        await at.drv.negotiate(REPORT)
        await at.drv.ctrl.rss_config(RSS)
        await exchange(at)


@pytest.mark.requirement("VIO-SPL-17", "VIO-SPL-05")
@pytest.mark.parametrize("name", [*DROPS, *LEGAL])
async def test_a_chain_that_is_merely_wrong_or_odd_comes_back(way: Way, name: str) -> None:
    async with running(way) as at:
        await at.drv.negotiate(REPORT | Feature.INDIRECT_DESC, queue_size=8)
        await at.drv.ctrl.rss_config(RSS)
        queue = at.drv.transmitqs[1]
        forger = Forger(queue.ring)
        for _ in range(20):
            (DROPS | LEGAL)[name](forger, transmit_chain(at, flow(0)))
            queue.publish()
            if name in LEGAL:
                wired = await asyncio.wait_for(at.port.wire(1).receive(), WITHIN)
                assert wired.data == flow(0)
            await asyncio.wait_for(at.drv.flush(1), WITHIN)
        assert [used.length for used in queue.others] == [0] * 20
        assert not queue.broken()
        dropped = at.device.statistics(1).tx_drop_malformed
        assert dropped == (20 if name in DROPS else 0)
        await exchange(at)


async def test_a_second_driver_waits_for_the_first(way: Way) -> None:
    async with Device(netdev=Pair(4)) as device:
        async with connected(device, way) as first:
            await first.negotiate(REPORT)
            with pytest.raises(UsageError, match="has a driver already"):
                device.driver()
        async with connected(device, way) as second:
            await second.negotiate(REPORT)
