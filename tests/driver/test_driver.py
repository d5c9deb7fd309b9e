# SPDX-License-Identifier: MIT
"""From reset to DRIVER_OK and back, against a device that logs what it is told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.driver import DeviceViolation, Driver, GuestMemory, NegotiationError
from pyvnet.errors import PyvnetError, UsageError
from pyvnet.spec.config import LinkStatus
from pyvnet.spec.features import NO_FEATURES, Feature
from tests.driver.plain_device import OFFER, PlainDevice
from tests.driver.ways import WITHIN

if TYPE_CHECKING:
    from pyvnet.spec.config import NetConfig

RSS = Feature.CTRL_VQ | Feature.RSS


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- the dance -------------------------------------------------------------------------


async def test_negotiation_goes_in_the_order_of_the_standard(
    plain: PlainDevice, drv: Driver
) -> None:
    await drv.negotiate(Feature.MAC)
    assert plain.log == [
        "status 0", "status 1", "status 3", "features", "status 11",
        "memory", "queue 0", "queue 1", "status 15",
    ]  # fmt: skip
    assert drv.features == plain.driver_features == Feature.MAC | Feature.VERSION_1
    assert drv.config.mac == b"\2plain"


async def test_no_kick_before_driver_ok_and_one_after(plain: PlainDevice, drv: Driver) -> None:
    """Receive buffers are there when the device starts; it is told once it may be."""
    kicks_at_ok: list[int] = []
    set_status = plain.set_status

    async def watch(status: int) -> None:
        if status & 4:
            kicks_at_ok.append(plain.kicks(0))
            kicks_at_ok.append(plain.rings[0].available)
        await set_status(status)

    plain.set_status = watch  # type: ignore[method-assign]
    await drv.negotiate(NO_FEATURES)
    assert kicks_at_ok == [0, 0]
    assert plain.kicks(0) == 1
    assert plain.rings[0].available == 256


async def test_everything_both_sides_have_is_the_default(plain: PlainDevice, drv: Driver) -> None:
    plain.offer |= Feature.RING_PACKED | Feature.ORDER_PLATFORM
    await drv.negotiate()
    assert drv.features == OFFER


async def test_of_an_offer_that_contradicts_itself_the_rest_is_the_default(
    plain: PlainDevice, drv: Driver
) -> None:
    """One that lacks what it requires takes others with it: ECN over a missing TSO."""
    plain.offer |= Feature.HOST_ECN | Feature.CSUM
    plain.offer &= ~Feature.GUEST_CSUM
    await drv.negotiate()
    assert drv.features == (OFFER | Feature.CSUM) & ~(Feature.GUEST_CSUM | Feature.GUEST_TSO4)


@pytest.mark.parametrize(
    ("features", "match"),
    [
        (Feature.MTU, "not offered: mtu"),
        (Feature.RSS, "rss requires ctrl_vq"),
        (Feature.RING_PACKED, "not implemented here: ring_packed"),
    ],
)
async def test_bits_that_cannot_be_are_refused_before_they_are_written(
    plain: PlainDevice, drv: Driver, features: Feature, match: str
) -> None:
    plain.offer |= Feature.RING_PACKED
    with pytest.raises(NegotiationError, match=match):
        await drv.negotiate(features)
    assert "features" not in plain.log
    assert plain.status == 0x80 | 3, "FAILED tells the device"
    with pytest.raises(UsageError, match="negotiate first"):
        drv.receive_nowait()


async def test_verbatim_writes_what_it_is_told(plain: PlainDevice, drv: Driver) -> None:
    plain.refuse_features = True
    with pytest.raises(NegotiationError, match="refused FEATURES_OK for mtu,rss"):
        await drv.negotiate(Feature.MTU | Feature.RSS | Feature(1 << 99), verbatim=True)
    assert plain.driver_features == Feature.MTU | Feature.RSS | Feature(1 << 99)
    assert "memory" not in plain.log


async def test_a_status_that_survives_a_reset_is_a_violation(
    plain: PlainDevice, drv: Driver
) -> None:
    plain.sticky_status = 0x40
    with pytest.raises(DeviceViolation, match="0x40 after a reset"):
        await drv.negotiate()
    plain.sticky_status = 0


async def test_negotiating_again_starts_from_nothing(plain: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(Feature.MQ | Feature.CTRL_VQ, queue_size=8)
    before = open_fds()
    for features, size in ((RSS, 64), (NO_FEATURES, 1), (Feature.MQ | Feature.CTRL_VQ, 8)):
        await drv.negotiate(features, queue_size=size)
        plain.inject(b"x" * 60)
        assert (await drv.receive(WITHIN)).data == b"x" * 60
        assert plain.rings[0].size == size
    assert open_fds() == before


# --- queue layout ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "pairs", "expected"),
    [
        pytest.param(NO_FEATURES, None, [0, 1], id="nothing"),
        pytest.param(Feature.CTRL_VQ, None, [0, 1, 2], id="control-only"),
        pytest.param(Feature.CTRL_VQ | Feature.MQ, None, [*range(9)], id="mq"),
        pytest.param(RSS, None, [*range(9)], id="rss"),
        pytest.param(RSS, 2, [0, 1, 2, 3, 8], id="rss-two-of-four"),
    ],
)
async def test_the_controlq_is_where_the_negotiated_features_put_it(
    plain: PlainDevice, drv: Driver, features: Feature, pairs: int | None, expected: list[int]
) -> None:
    await drv.negotiate(features, pairs=pairs)
    assert sorted(plain.rings) == expected
    assert [queue.index for queue in drv.queues] == expected
    assert (drv.controlq is not None) == bool(features & Feature.CTRL_VQ)
    if drv.controlq is not None:
        await drv.ctrl.raw(0, 0, b"\1")
        assert plain.commands == [b"\0\0\1"]


@pytest.mark.parametrize("pairs", [0, 2])
async def test_more_pairs_than_there_are_is_a_mistake(drv: Driver, pairs: int) -> None:
    with pytest.raises(UsageError, match="the device has 1"):
        await drv.negotiate(NO_FEATURES, pairs=pairs)


async def test_a_device_without_a_single_pair_is_none(plain: PlainDevice, drv: Driver) -> None:
    plain.net_config = replace(plain.net_config, max_virtqueue_pairs=0)
    with pytest.raises(NegotiationError, match="max_virtqueue_pairs is 0"):
        await drv.negotiate(RSS)


async def test_receive_buffers_as_many_and_as_large_as_told(
    plain: PlainDevice, drv: Driver
) -> None:
    await drv.negotiate(RSS, queue_size=16, rx_buffers=5, rx_buffer_size=100, rx_cuts=(12, 40))
    ring = plain.rings[4]
    assert ring.available == 5
    chain = ring.pop()
    assert chain is not None
    assert [length for _, length in chain.writable] == [12, 40, 48]


async def test_receive_buffers_for_gso_without_merging_hold_65550_bytes(
    plain: PlainDevice, drv: Driver
) -> None:
    await drv.negotiate(Feature.GUEST_CSUM | Feature.GUEST_TSO4)
    chain = plain.rings[0].pop()
    assert chain is not None
    assert sum(length for _, length in chain.writable) == 12 + 65550


async def test_memory_of_ones_own(plain: PlainDevice) -> None:
    with GuestMemory(8 << 20) as memory:
        async with Driver(plain, memory=memory) as drv:
            for _ in range(3):
                await drv.negotiate(NO_FEATURES, queue_size=16)
                assert drv.memory is memory
        memory.read(memory.regions[0].gpa, 1)  # still there


# --- configuration space ---------------------------------------------------------------


async def test_configuration_is_read_until_its_generation_holds_still(
    plain: PlainDevice, drv: Driver
) -> None:
    await drv.negotiate(NO_FEATURES)
    plain.generations = [1, 2, 2]
    reads = 0
    read_config = plain.read_config

    async def counted(offset: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        return await read_config(offset, length)

    plain.read_config = counted  # type: ignore[method-assign]
    await drv.read_config()
    assert reads == 2


async def test_a_configuration_change_is_noticed_and_told(plain: PlainDevice) -> None:
    told: list[NetConfig] = []
    async with Driver(plain, on_config_change=told.append) as drv:
        await drv.negotiate(Feature.STATUS)
        down = replace(plain.net_config, status=LinkStatus.DOWN)
        plain.change_config(down)
        assert await drv.wait_config_change() == down
        assert drv.config == down
        assert told == [down]


async def test_needs_reset_is_noticed_with_the_configuration_change(
    plain: PlainDevice, drv: Driver
) -> None:
    await drv.negotiate(Feature.STATUS)
    seen = [drv.needs_reset]
    plain.sticky_status = 0x40
    plain.change_config(plain.net_config)
    await drv.wait_config_change()
    seen.append(drv.needs_reset)
    with pytest.raises(TimeoutError, match="DEVICE_NEEDS_RESET"):
        await drv.receive(0)
    plain.sticky_status = 0
    await drv.negotiate(Feature.STATUS)
    assert [*seen, drv.needs_reset] == [False, True, False]


async def test_what_the_callback_raises_comes_out_where_it_is_waited_for(
    plain: PlainDevice,
) -> None:
    def fail(_: NetConfig) -> None:
        raise LookupError("mine")

    async with Driver(plain, on_config_change=fail) as drv:
        await drv.negotiate(NO_FEATURES)
        plain.change_config(plain.net_config)
        with pytest.raises(LookupError, match="mine"):
            await drv.wait_config_change()


# --- the end ---------------------------------------------------------------------------


async def test_closing_resets_the_device_wakes_waiters_and_is_final(plain: PlainDevice) -> None:
    drv = Driver(plain)
    await drv.negotiate(RSS)
    waiting = asyncio.create_task(drv.receive())
    await asyncio.sleep(0)
    await drv.aclose()
    await drv.aclose()
    assert plain.log[-1] == "status 0"
    with pytest.raises(UsageError, match="reset or closed"):
        await waiting
    calls: list[Any] = [drv.negotiate, drv.reset, drv.receive, drv.wait_config_change]
    for call in calls:
        with pytest.raises(PyvnetError):
            await call()
    with pytest.raises(UsageError):
        await drv.send(b"")


async def test_a_transport_that_dies_during_negotiation_leaves_nothing(
    plain: PlainDevice,
) -> None:
    async def lost(_: object) -> None:
        raise ConnectionResetError

    plain.set_queue = lost  # type: ignore[assignment]
    async with Driver(plain) as drv:
        with pytest.raises(ConnectionResetError):
            await drv.negotiate(RSS)
        plain.set_status = lost  # type: ignore[assignment]
