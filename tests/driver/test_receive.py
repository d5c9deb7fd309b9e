# SPDX-License-Identifier: MIT
"""Frames in: what a device may do with receive buffers, and what it may not."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import pytest

from pyvnet.driver import Buffer, DeviceViolation, Driver
from pyvnet.spec.features import NO_FEATURES, Feature
from pyvnet.spec.net_hdr import NetHdr
from tests.driver.ways import WITHIN

if TYPE_CHECKING:
    from tests.driver.plain_device import PlainDevice

MERGE = Feature.MRG_RXBUF
REPORT = Feature.CTRL_VQ | Feature.HASH_REPORT | Feature.RSS
GSO = Feature.GUEST_CSUM | Feature.GUEST_TSO4


@pytest.mark.parametrize(
    "features", [NO_FEATURES, Feature.EVENT_IDX, Feature.EVENT_IDX | Feature.INDIRECT_DESC]
)
@pytest.mark.parametrize("cuts", [(), (1,), (12,), (5, 4, 3, 2)])
async def test_frames_come_whole_however_buffers_are_cut(
    plain: PlainDevice, drv: Driver, features: Feature, cuts: tuple[int, ...]
) -> None:
    await drv.negotiate(features, queue_size=16, rx_cuts=cuts)
    for number in range(40):
        data = bytes([number]) * (60 + number)
        plain.inject(data)
        frame = await drv.receive(timeout=WITHIN)
        assert (frame.data, frame.queue, frame.buffers) == (data, 0, (12 + len(data),))
        assert (frame.hash_value, frame.hash_report) == (0, 0)
        assert frame.header.num_buffers == 1


async def test_hash_and_queue_come_with_the_frame(plain: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(REPORT)
    header = NetHdr(num_buffers=1, hash_value=0xFEEDC0DE, hash_report=2).pack(20)
    plain.inject(b"frame", queue=3, header=header)
    frame = await drv.receive(WITHIN)
    assert (frame.queue, frame.hash_value, frame.hash_report) == (3, 0xFEEDC0DE, 2)
    assert frame.buffers == (25,)


@pytest.mark.parametrize("size", [1, 87, 88, 89, 188, 189, 1500])
async def test_merged_frames_are_put_together(plain: PlainDevice, drv: Driver, size: int) -> None:
    await drv.negotiate(MERGE, queue_size=32, rx_buffer_size=100)
    data = bytes(i & 0xFF for i in range(size))
    plain.inject(data)
    frame = await drv.receive(WITHIN)
    assert frame.data == data
    full, rest = divmod(size + 12, 100)
    assert frame.buffers == (*[100] * full, *([rest] if rest else []))
    assert frame.header.num_buffers == len(frame.buffers)


async def test_a_runt_is_a_frame(plain: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(NO_FEATURES)
    plain.inject(b"")
    assert (await drv.receive(WITHIN)).data == b""


async def test_buffers_of_any_shape_can_be_added(plain: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(NO_FEATURES, rx_buffers=0)
    low, high = (drv.memory.alloc(64) for _ in range(2))
    drv.add_receive_buffer(0, [Buffer(high, 13, True), Buffer(low, 64, True)])
    for data in (b"abc", b"defghijkl"):
        plain.inject(data)
        assert (await drv.receive(WITHIN)).data == data


# --- waiting ---------------------------------------------------------------------------


async def test_nothing_within_the_timeout(drv: Driver) -> None:
    await drv.negotiate(NO_FEATURES)
    with pytest.raises(TimeoutError, match=r"no frame within 0\.01 s"):
        await drv.receive(timeout=0.01)
    assert drv.receive_nowait() is None


async def test_receive_nowait_needs_no_interrupt(plain: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(REPORT)
    plain.inject(b"now", queue=2)
    frame = drv.receive_nowait()
    assert frame is not None
    assert (frame.data, frame.queue) == (b"now", 2)


@pytest.mark.parametrize("features", [NO_FEATURES, Feature.EVENT_IDX])
async def test_every_frame_wakes_a_sleeping_receiver(
    plain: PlainDevice, drv: Driver, features: Feature
) -> None:
    """Invariant: whoever sleeps is interrupted, however the frames fall."""
    await drv.negotiate(features, queue_size=4)
    for number in range(300):
        waiting = asyncio.create_task(drv.receive(timeout=WITHIN))
        for _ in range(number % 4):  # let it get more or less far
            await asyncio.sleep(0)
        plain.inject(b"%d" % number)
        if number % 3 == 0:
            plain.inject(b"again")
            assert (await drv.receive(WITHIN)).data in {b"again", b"%d" % number}
        assert (await waiting).data in {b"again", b"%d" % number}


async def test_two_receivers_share_the_frames(plain: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(NO_FEATURES)
    waiting = [asyncio.create_task(drv.receive(WITHIN)) for _ in range(2)]
    await asyncio.sleep(0)
    plain.inject(b"a")
    plain.inject(b"b")
    assert {frame.data for frame in await asyncio.gather(*waiting)} == {b"a", b"b"}


async def test_a_full_backlog_leaves_frames_in_the_rings(plain: PlainDevice) -> None:
    """Invariant: the backlog never exceeds its limit, and nothing is lost at it."""
    async with Driver(plain, backlog=8) as drv:
        await drv.negotiate(REPORT, queue_size=16)
        for number in range(16):
            plain.inject(bytes([number]), queue=0)
            plain.inject(bytes([number]), queue=1)
        got = [await drv.receive(WITHIN) for _ in range(32)]
        for queue in (0, 1):
            assert [f.data[0] for f in got if f.queue == queue] == list(range(16))
        assert plain.rings[0].available == 16, "buffers went back"
        plain.inject(b"still alive")
        assert (await drv.receive(WITHIN)).data == b"still alive"


async def test_without_refill_the_device_runs_out(plain: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(NO_FEATURES, queue_size=4, rx_buffers=2)
    plain.fill(b"1")
    plain.fill(b"2")
    assert not plain.rings[0].available


# --- violations ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "header", "match"),
    [
        pytest.param(NO_FEATURES, NetHdr(num_buffers=0), "num_buffers is 0", id="none"),
        pytest.param(NO_FEATURES, NetHdr(num_buffers=2), "num_buffers is 2", id="unmergeable"),
        pytest.param(MERGE, NetHdr(num_buffers=0), "num_buffers is 0", id="merge-none"),
        pytest.param(NO_FEATURES, NetHdr(flags=1, num_buffers=1), "NET-RX-05", id="csum"),
        pytest.param(GSO, NetHdr(flags=4, num_buffers=1), "NET-RX-05", id="rsc"),
        pytest.param(NO_FEATURES, NetHdr(gso_type=1, num_buffers=1), "NET-RX-07", id="gso"),
        pytest.param(GSO, NetHdr(1, 4, 54, 1000, num_buffers=1), "NET-RX-07", id="tso6"),
        pytest.param(GSO, NetHdr(0, 1, 54, 1000, num_buffers=1), "NET-RX-12", id="no-csum"),
        pytest.param(GSO, NetHdr(1, 1, 54, 0, num_buffers=1), "NET-RX-12", id="gso-size-0"),
        pytest.param(GSO, NetHdr(1, 0x81, 54, 1000, num_buffers=1), "NET-RX-10", id="ecn"),
        pytest.param(REPORT, NetHdr(num_buffers=1, hash_report=10), "NET-REP-03", id="report"),
        pytest.param(REPORT, NetHdr(num_buffers=1, padding_reserved=1), "padding", id="padding"),
    ],
)
async def test_a_header_the_features_do_not_allow(
    plain: PlainDevice, drv: Driver, features: Feature, header: NetHdr, match: str
) -> None:
    await drv.negotiate(features)
    plain.inject(b"bad", header=header.pack(20 if features & Feature.HASH_REPORT else 12))
    with pytest.raises(DeviceViolation, match=match):
        await drv.receive(WITHIN)
    plain.inject(b"good")
    assert (await drv.receive(WITHIN)).data == b"good", "one bad frame must not stop the queue"


async def test_a_gso_frame_the_features_allow(plain: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(GSO)
    header = NetHdr(1, 1, 54, 1448, 34, 16, num_buffers=1)
    plain.inject(b"x" * 60000, header=header.pack())
    frame = await drv.receive(WITHIN)
    assert (frame.header, len(frame.data)) == (header, 60000)


@pytest.mark.parametrize("lengths", [(99, 10), (100, 50, 100), (100, 0)])
async def test_a_buffer_of_a_merged_frame_not_filled(
    plain: PlainDevice, drv: Driver, lengths: tuple[int, ...]
) -> None:
    await drv.negotiate(MERGE, rx_buffer_size=100)
    ring = plain.rings[0]
    for number, length in enumerate(lengths):
        chain = ring.pop()
        assert chain is not None
        if not number:
            ring.scatter(chain, struct.pack("<10xH", len(lengths)))
        ring.push(chain.head, length)
    ring.publish()
    with pytest.raises(DeviceViolation, match="NET-RX-02"):
        await drv.receive(WITHIN)
    plain.inject(b"good")
    assert (await drv.receive(WITHIN)).data == b"good"


@pytest.mark.parametrize("claimed", [3, 0xFFFF])
async def test_buffers_of_a_frame_that_do_not_become_visible_together(
    plain: PlainDevice, drv: Driver, claimed: int
) -> None:
    await drv.negotiate(MERGE, rx_buffer_size=100)
    plain.fill(b"x" * 88, header=struct.pack("<10xH", claimed))
    plain.inject(b"x" * 88)
    with pytest.raises(DeviceViolation, match="only 2 buffers became visible together"):
        await drv.receive(WITHIN)


@pytest.mark.parametrize("length", [0, 11])
async def test_a_buffer_with_less_than_a_header(
    plain: PlainDevice, drv: Driver, length: int
) -> None:
    await drv.negotiate(NO_FEATURES)
    chain = plain.rings[0].pop()
    assert chain is not None
    plain.rings[0].push(chain.head, length)
    plain.rings[0].publish()
    with pytest.raises(DeviceViolation, match=f"{length} bytes are less than a header"):
        await drv.receive(WITHIN)


async def test_a_buffer_too_small_for_a_header_may_come_back_empty(
    plain: PlainDevice, drv: Driver
) -> None:
    await drv.negotiate(MERGE, rx_buffer_size=8)
    for _ in range(3):
        chain = plain.rings[0].pop()
        assert chain is not None
        plain.rings[0].push(chain.head, 0)
        plain.rings[0].publish()
        assert drv.receive_nowait() is None
    assert plain.rings[0].available == 256, "the buffers went back"


async def test_a_ring_that_cannot_be_followed_ends_its_queue_and_no_other(
    plain: PlainDevice, drv: Driver
) -> None:
    await drv.negotiate(REPORT, queue_size=4)
    plain.rings[0].push(9, 30)
    plain.rings[0].publish()
    with pytest.raises(DeviceViolation, match="id 9"):
        await drv.receive(WITHIN)
    plain.inject(b"other", queue=1)
    assert (await drv.receive(WITHIN)).data == b"other"
    assert drv.receiveqs[0].failure is not None
