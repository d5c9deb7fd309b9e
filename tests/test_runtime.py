# SPDX-License-Identifier: MIT
"""The composition root: effects carried out, refusals undone, states moved, everything put away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet import Device, Feature, HashConfig, HostError, Pair, RssConfig, UsageError
from pyvnet.datapath.native import Native
from pyvnet.device.queue import QueueFds
from pyvnet.driver.errors import CommandError
from pyvnet.reference import classify
from pyvnet.spec.rss import ALL_HASH_TYPES, VERIFICATION_KEY
from pyvnet.spec.status import DeviceStatus
from pyvnet.testing.frames import Ipv4, build, udp
from pyvnet.transport.inproc import InProcessTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pyvnet import Driver

ALL = (
    Feature.CTRL_VQ
    | Feature.MQ
    | Feature.RSS
    | Feature.HASH_REPORT
    | Feature.MRG_RXBUF
    | Feature.EVENT_IDX
    | Feature.INDIRECT_DESC
)
TABLE = (0, 1, 2, 3)
RSS = RssConfig(ALL_HASH_TYPES, TABLE, VERIFICATION_KEY)
TIMEOUT = 20.0  # a hang guard
# enum vnet_fail_site of native/src/test_hooks.h
FAIL_MMAP, FAIL_FD, FAIL_EPOLL, FAIL_THREAD, FAIL_PORT_ATTACH = 1, 2, 3, 4, 6


def frame_of(flow: int, serial: int = 0, size: int = 60) -> bytes:
    payload = serial.to_bytes(4, "big").ljust(size - 42, b".")
    return bytes(build(Ipv4("192.0.2.1", "198.51.100.2"), udp(1024 + flow, 4242, payload)))


def serial_of(frame: bytes) -> int:
    return int.from_bytes(frame[42:46], "big")


class OpenPair:
    """The queues of an open pair, for two devices one after the other; not theirs to close."""

    kind = "pair"

    def __init__(self, pair: Pair) -> None:
        self.queues, self.fds = pair.queues, pair.fds

    def open(self) -> None:
        """Is open."""

    def close(self) -> None:
        """Stays open."""


@contextlib.asynccontextmanager
async def running(
    port: Pair | None = None, **options: Any
) -> AsyncIterator[tuple[Device, Driver, Pair]]:
    """A device with four pairs, and a driver that negotiated everything."""
    port = port or Pair(4)
    device = Device(netdev=port, **options)
    async with device, device.driver() as driver:
        await driver.negotiate(ALL)
        yield device, driver, port


async def exchange(driver: Driver, port: Pair, serial: int, flows: int = 16) -> None:
    """Frames of some flows in, hashed and steered by RSS, and one out on every pair."""
    for flow in range(flows):
        port.wire(flow % 4).send(frame_of(flow, serial))
    seen = set()
    for _ in range(flows):
        frame = await driver.receive(timeout=TIMEOUT)
        expected = classify(frame.data, ALL_HASH_TYPES, VERIFICATION_KEY)
        assert (frame.hash_value, frame.hash_report) == (expected.value, expected.report)
        assert frame.queue == TABLE[expected.value & 3]
        assert serial_of(frame.data) == serial
        seen.add(frame.data)
    assert len(seen) == flows
    for pair in range(4):
        await driver.send(frame_of(pair, serial), queue=pair)
    for pair in range(4):
        wired = await asyncio.wait_for(port.wire(pair).receive(), TIMEOUT)
        assert wired.data == frame_of(pair, serial)


# --- state ------------------------------------------------------------------------------


async def test_a_paused_device_runs_on_where_it_stood() -> None:
    async with running(workers=2) as (device, driver, port):
        await driver.ctrl.rss_config(RSS)
        for serial in range(6):
            await exchange(driver, port, serial)
            device.restore(device.pause())
        await exchange(driver, port, 99)
        assert device.statistics().rx_drops == device.statistics().tx_drops == 0


def fds_of(driver: Driver) -> dict[int, QueueFds]:
    return {q.index: QueueFds(q.kick_fd, q.call_fd, q.err_fd) for q in driver.queues}


@pytest.mark.parametrize("workers", [4, 1])
async def test_a_state_moves_to_another_device_and_no_frame_is_lost_or_doubled(
    workers: int,
) -> None:
    with Pair(4) as pair:
        first = Device(netdev=OpenPair(pair))  # type: ignore[arg-type]
        second = Device(
            netdev=OpenPair(pair),  # type: ignore[arg-type]
            workers=workers,
            mac=first.device.settings.mac,
        )
        async with first, first.driver() as driver:
            await driver.negotiate(ALL, queue_size=256)
            await driver.ctrl.rss_config(RSS)
            await exchange(driver, pair, 1)
            # The wire is full, so chains are still in the transmitq when it moves.
            sent = 0
            while driver.transmitqs[0].ring.outstanding < 8:
                driver.send_nowait(frame_of(0, sent, 60000))
                sent += 1
                first.engine.queue_state(1)
                driver.running.transmitters[0].reap()
            state = first.pause()
            first.close()
            async with second:
                second.set_memory(driver.memory.regions)
                second.restore(state, fds_of(driver))
                for flow in range(16):
                    pair.wire(flow % 4).send(frame_of(flow, 7))
                assert second.device.state.steering == state.steering
                for serial in range(sent):
                    wired = await asyncio.wait_for(pair.wire(0).receive(), TIMEOUT)
                    assert serial_of(wired.data) == serial
                frames = [await driver.receive(timeout=TIMEOUT) for _ in range(16)]
                assert {serial_of(frame.data) for frame in frames} == {7}
                assert len({frame.data for frame in frames}) == 16
                await exchange(driver, pair, 2)
                # The control queue moved too.
                await driver.ctrl.vq_pairs_set(2)
                assert second.device.policy.mode == "automatic"
                await driver.ctrl.rss_config(RSS)
                await exchange(driver, pair, 3)
                totals = second.statistics()
                assert totals.rx_drops == totals.tx_drops == 0


async def test_a_state_of_another_shape_is_refused_before_anything_changes() -> None:
    async with running() as (device, _, _port):
        state = device.pause()
        other = Device(netdev=Pair(2), mac=device.device.settings.mac)
        async with other:
            before = other.device.state
            with pytest.raises(UsageError):
                other.restore(state)
            assert other.device.state == before


# --- effects that fail on the host --------------------------------------------------------


@pytest.fixture
def hooks(native_hooks: tuple[Any, Any]) -> Iterator[Native]:
    native = Native(*native_hooks)
    yield native
    for site in range(7):
        native.lib.vnet_test_fail(site, 0)


@pytest.mark.requirement("U-07", "OUR-CVQ-06")
@pytest.mark.parametrize("countdown", [1, 2, 3])
async def test_a_command_the_host_cannot_carry_out_is_answered_err_and_changes_nothing(
    hooks: Native, countdown: int
) -> None:
    async with running(native=hooks) as (device, driver, port):
        await driver.ctrl.hash_config(HashConfig(ALL_HASH_TYPES, VERIFICATION_KEY))
        before = device.device.policy
        for command in (driver.ctrl.vq_pairs_set(4), driver.ctrl.rss_config(RSS)):
            hooks.lib.vnet_test_fail(FAIL_PORT_ATTACH, countdown)
            with pytest.raises(CommandError):
                await command
            assert device.device.policy == before
            assert device.device.state.counters.control_not_applied
            assert not driver.needs_reset
        # Still one pair: what arrives elsewhere waits there until its queue is attached.
        port.wire(3).send(frame_of(1, 1))
        port.wire(0).send(frame_of(1, 2))
        frame = await driver.receive(timeout=TIMEOUT)
        assert (serial_of(frame.data), frame.queue) == (2, 0)
        assert frame.hash_report
        hooks.lib.vnet_test_fail(FAIL_PORT_ATTACH, 0)
        await driver.ctrl.rss_config(RSS)
        assert serial_of((await driver.receive(timeout=TIMEOUT)).data) == 1
        await exchange(driver, port, 3)


@pytest.mark.parametrize("site", [FAIL_FD, FAIL_EPOLL, FAIL_THREAD])
@pytest.mark.parametrize("countdown", [1, 2, 3])
async def test_a_device_the_host_has_no_means_for_leaves_nothing_behind(
    hooks: Native, site: int, countdown: int
) -> None:
    port = Pair(4)
    hooks.lib.vnet_test_fail(site, countdown)
    with pytest.raises(HostError):
        async with Device(netdev=port, native=hooks):
            pass
    assert port.fds == ()


async def test_memory_that_cannot_be_mapped_leaves_the_old_one_in_use(hooks: Native) -> None:
    async with running(native=hooks) as (device, driver, port):
        await driver.ctrl.rss_config(RSS)
        hooks.lib.vnet_test_fail(FAIL_MMAP, 1)
        with pytest.raises(HostError):
            device.set_memory(driver.memory.regions)
        await exchange(driver, port, 1)


@pytest.mark.requirement("VIO-STAT-02", "VIO-STAT-03")
async def test_a_ring_the_host_cannot_start_needs_a_reset_and_the_others_run(hooks: Native) -> None:
    device = Device(netdev=Pair(1), native=hooks)
    async with device, device.driver() as driver:
        start = driver._hand_over

        async def hand_over() -> None:
            await start()
            hooks.lib.vnet_test_fail(FAIL_EPOLL, 1)  # the first ring that starts: receiveq 0

        driver._hand_over = hand_over  # type: ignore[method-assign]
        await driver.negotiate(ALL)
        await driver.wait_config_change()
        assert driver.needs_reset
        await driver.send(frame_of(0))
        await driver.flush()
        driver._hand_over = start  # type: ignore[method-assign]
        await driver.negotiate(ALL)
        assert not driver.needs_reset


# --- broken rings -------------------------------------------------------------------------


@pytest.mark.requirement("VIO-STAT-02", "VIO-STAT-03")
@pytest.mark.parametrize("which", ["transmitq", "receiveq", "controlq"])
async def test_a_broken_ring_asks_for_a_reset_and_the_other_queues_run_on(which: str) -> None:
    async with running() as (device, driver, port):
        await driver.ctrl.vq_pairs_set(4)
        queue = {
            "transmitq": driver.transmitqs[1],
            "receiveq": driver.receiveqs[1],
            "controlq": driver.controlq,
        }[which]
        assert queue is not None
        queue.ring._avail[1] += 5000
        queue.kick()
        if which == "receiveq":
            for _ in range(300):  # it looks at the index when what it knew is used up
                port.wire(1).send(frame_of(1))
        await asyncio.wait_for(driver.wait_config_change(), TIMEOUT)
        assert driver.needs_reset is True
        assert device.device.status & DeviceStatus.DRIVER_OK
        assert queue.broken()
        for other in (0, 2, 3):
            await driver.send(frame_of(other), queue=other)
            assert (await port.wire(other).receive()).data == frame_of(other)
            port.wire(other).send(frame_of(9, other))
        seen: set[tuple[int, int]] = set()
        while len(seen) < 3:
            frame = await driver.receive(timeout=TIMEOUT)
            if frame.data[34:36] == frame_of(9)[34:36]:
                seen.add((serial_of(frame.data), frame.queue))
        assert seen == {(0, 0), (2, 2), (3, 3)}
        await driver.negotiate(ALL)
        assert not await driver.transport.get_status() & DeviceStatus.DEVICE_NEEDS_RESET
        await driver.ctrl.rss_config(RSS)
        await exchange(driver, port, 1)


# --- drivers come and go ------------------------------------------------------------------


async def test_a_second_driver_is_refused_until_the_first_has_gone() -> None:
    async with running() as (device, driver, port):
        with pytest.raises(UsageError, match="has a driver"):
            device.driver()
        with pytest.raises(UsageError, match="has a driver"):
            InProcessTransport(device)
        await driver.ctrl.rss_config(RSS)
        await driver.aclose()
        async with device.driver() as second:
            await second.negotiate(ALL)
            await second.ctrl.rss_config(RSS)
            await exchange(second, port, 1)


@pytest.mark.requirement("VIO-RST-01", "VIO-RST-02")
async def test_a_driver_that_closes_leaves_a_device_as_after_a_reset() -> None:
    async with running() as (device, driver, port):
        await driver.ctrl.rss_config(RSS)
        assert device.steering_owner == "software"
        await driver.aclose()
        assert device.device.status == 0
        assert device.steering_owner == "kernel-auto"
        assert not any(device.engine.queue_state(index).running for index in range(9))
        port.wire(0).send(frame_of(1))
        deadline = time.monotonic() + TIMEOUT
        while not device.statistics().rx_drop_queue_off:
            device.engine.queue_state(0)  # one more round of the worker
            assert time.monotonic() < deadline


@pytest.mark.parametrize("first", ["device", "driver", "neither"])
@pytest.mark.parametrize("negotiated", [True, False])
async def test_devices_and_drivers_are_put_away_in_any_order(first: str, negotiated: bool) -> None:
    port = Pair(2)
    async with Device(netdev=port) as device:
        driver = device.driver()
        if negotiated:
            await driver.negotiate(ALL)
            await driver.ctrl.vq_pairs_set(2)
        if first == "device":
            device.close()
            await driver.aclose()
        elif first == "driver":
            await driver.aclose()
            device.close()
        device.close()
        await driver.aclose()
    assert port.fds == ()
    with pytest.raises(UsageError):
        device.statistics()


async def test_a_device_can_be_opened_again() -> None:
    device = Device(netdev=Pair(4))
    for serial in range(3):
        async with device, device.driver() as driver:
            await driver.negotiate(ALL)
            await driver.ctrl.rss_config(RSS)
            await exchange(driver, device.netdev, serial)  # type: ignore[arg-type]


async def test_a_driver_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pyvnet")
    async with running() as (device, driver, _):
        for _ in range(100):
            await driver.ctrl.raw(0x77, 0, check=False)
        lines = [line for line in caplog.messages if "class 119" in line]
        assert len(lines) == 20
        assert caplog.messages[-1] == "what else this driver does wrong is not logged"
        assert device.device.state.counters.control_commands >= 100
