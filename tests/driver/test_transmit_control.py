# SPDX-License-Identifier: MIT
"""Frames and commands out: layouts, room, answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pyvnet.driver import CommandError, CtrlLayout, DeviceViolation, Driver, RingFullError
from pyvnet.driver.control import UNWRITTEN
from pyvnet.errors import UsageError
from pyvnet.spec.ctrl import Ack
from pyvnet.spec.features import NO_FEATURES, Feature
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.spec.rss import HashConfig, RssConfig
from tests.driver.ways import WITHIN

if TYPE_CHECKING:
    from tests.driver.plain_device import PlainDevice

FULL = Feature.CTRL_VQ | Feature.MQ | Feature.RSS | Feature.HASH_REPORT | Feature.INDIRECT_DESC
KEY = bytes(range(40))


class Packet:
    """What scapy's packets have in common."""

    def __bytes__(self) -> bytes:
        return b"packet"


# --- frames ----------------------------------------------------------------------------


@pytest.mark.parametrize("features", [NO_FEATURES, Feature.INDIRECT_DESC])
async def test_header_and_frame_may_be_cut_anywhere(
    plain: PlainDevice, drv: Driver, features: Feature
) -> None:
    await drv.negotiate(features)
    for cut in range(1, 30):
        await drv.send(b"0123456789abcdefghij", header=NetHdr(hdr_len=7), cuts=(cut, 1))
        ring = plain.rings[1]
        chain = ring.pop()
        assert chain is not None
        assert [length for _, length in chain.readable] == [cut, 1, 31 - cut]
        assert ring.gather(chain) == NetHdr(hdr_len=7).pack() + b"0123456789abcdefghij"
        ring.push(chain.head, 0)
        ring.publish()
    await drv.flush(0)


async def test_anything_with_bytes_goes_out_on_the_queue_named(
    plain: PlainDevice, drv: Driver
) -> None:
    await drv.negotiate(FULL)
    await drv.send(Packet(), queue=2)
    await drv.send(bytearray(b"array"), queue=2)
    await drv.send(b"short lie", queue=1, header=b"\xff" * 5)
    await drv.send(b"", queue=1, header=b"\xff")
    assert plain.sent(2) == [bytes(20) + b"packet", bytes(20) + b"array"]
    assert plain.sent(1) == [b"\xff" * 5 + b"short lie", b"\xff"]
    assert plain.sent(0) == []


@pytest.mark.parametrize("size", [0, 2035, 2036, 2037, 65557])
async def test_every_size_of_frame(plain: PlainDevice, drv: Driver, size: int) -> None:
    await drv.negotiate(NO_FEATURES)
    await drv.send(b"x" * size)
    assert plain.sent() == [bytes(12) + b"x" * size]


async def test_a_frame_beyond_all_measure_is_a_mistake(drv: Driver) -> None:
    await drv.negotiate(NO_FEATURES)
    with pytest.raises(UsageError, match="more than a transmit buffer holds"):
        await drv.send(bytes(70_000))


@pytest.mark.parametrize("features", [NO_FEATURES, Feature.EVENT_IDX])
async def test_a_full_ring_makes_senders_wait_for_room(
    plain: PlainDevice, drv: Driver, features: Feature
) -> None:
    await drv.negotiate(features, queue_size=4)
    for number in range(4):
        await drv.send(bytes([number]))
    with pytest.raises(RingFullError):
        drv.send_nowait(b"no")
    waiting = [asyncio.create_task(drv.send(bytes([number]))) for number in (4, 5, 6)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    out = plain.sent()
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
        flushing = asyncio.create_task(drv.flush())
        await asyncio.sleep(0)
        out += plain.sent()
        await flushing
    assert [frame[12] for frame in out] == list(range(7))


async def test_many_big_frames_share_few_buffers(plain: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(NO_FEATURES)
    for _ in range(32):
        drv.send_nowait(bytes(60_000))
    with pytest.raises(RingFullError):
        drv.send_nowait(bytes(60_000))
    drv.send_nowait(b"small ones still go")
    assert len(plain.sent()) == 33
    drv.send_nowait(bytes(60_000))


async def test_bytes_written_into_a_transmit_buffer_are_a_violation(
    plain: PlainDevice, drv: Driver
) -> None:
    await drv.negotiate(NO_FEATURES)
    await drv.send(b"frame")
    chain = plain.rings[1].pop()
    assert chain is not None
    plain.rings[1].push(chain.head, 1)
    plain.rings[1].publish()
    with pytest.raises(DeviceViolation, match="0 writable"):
        await drv.flush()


async def test_kicks_and_interrupts_are_counted(plain: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(NO_FEATURES)
    await drv.send(b"one")
    plain.rings[1].set_used_flags(1)
    await drv.send(b"two")
    statistics = {row.index: row for row in drv.statistics()}
    assert (statistics[1].kicks, statistics[1].outstanding) == (1, 2)
    plain.inject(b"frame")
    await drv.receive(WITHIN)
    assert drv.statistics()[0].interrupts == 1


# --- commands --------------------------------------------------------------------------


async def test_the_named_commands_send_what_the_standard_says(
    plain: PlainDevice, drv: Driver
) -> None:
    await drv.negotiate(FULL)
    assert await drv.ctrl.vq_pairs_set(3) is Ack.OK
    await drv.ctrl.rss_config(RssConfig(0x3F, (1, 2), KEY, unclassified_queue=3, max_tx_vq=4))
    await drv.ctrl.hash_config(HashConfig(0x12, KEY))
    assert plain.commands == [
        b"\4\0\3\0",
        b"\4\1" + bytes.fromhex("3f000000 0100 0300 0100 0200 0400 28") + KEY,
        b"\4\2" + bytes.fromhex("12000000 0000000000000000 28") + KEY,
    ]


@pytest.mark.parametrize(
    ("layout", "request_cuts", "answer_cuts"),
    [
        (CtrlLayout(), [2, 8], [1]),
        (CtrlLayout(request=(1, 1, 3)), [1, 1, 3, 5], [1]),
        (CtrlLayout(request=(), indirect=False), [10], [1]),
        (CtrlLayout(request=(9,), answer=(1, 2), indirect=False), [9, 1], [1, 2, 5]),
        (CtrlLayout(request=(2, 3), answer=(4,), direct_prefix=2), [2, 3, 5], [4, 4]),
    ],
)
async def test_a_command_is_laid_out_as_told(
    plain: PlainDevice,
    drv: Driver,
    layout: CtrlLayout,
    request_cuts: list[int],
    answer_cuts: list[int],
) -> None:
    await drv.negotiate(FULL)
    ring = plain.rings[8]
    seen = []
    pop = ring.pop

    def watched() -> object:
        chain = pop()
        if chain is not None:
            seen.append([[n for _, n in chain.readable], [n for _, n in chain.writable]])
        return chain

    ring.pop = watched  # type: ignore[method-assign, assignment]
    plain.command = lambda _: b"\0result"
    writable = sum(answer_cuts)
    answer = await drv.ctrl.exchange(b"\x08\x00payload!", writable, layout=layout)
    assert seen == [[request_cuts, answer_cuts]]
    assert (answer.ack, answer.length) == (Ack.OK, min(7, writable))
    assert answer.result == b"result"[: writable - 1]


async def test_err_raises_unless_it_is_wanted(plain: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(FULL)
    plain.command = lambda _: b"\1"
    with pytest.raises(CommandError, match="answered ERR to MQ_VQ_PAIRS_SET") as caught:
        await drv.ctrl.vq_pairs_set(0)
    assert (caught.value.ctrl_class, caught.value.command) == (4, 0)
    assert await drv.ctrl.raw(77, 1, b"?", check=False) is Ack.ERR


@pytest.mark.parametrize("answer", [b"", b"\2", b"\xff"])
async def test_an_answer_without_an_ack_is_a_violation(
    plain: PlainDevice, drv: Driver, answer: bytes
) -> None:
    await drv.negotiate(FULL)
    plain.command = lambda _: answer
    with pytest.raises(DeviceViolation, match="no ack"):
        await drv.ctrl.raw(0, 0, b"\1")


async def test_commands_cut_short_and_without_room_for_the_ack(
    plain: PlainDevice, drv: Driver
) -> None:
    await drv.negotiate(FULL)
    plain.command = lambda _: b""
    for request, writable in ((b"\4", 1), (b"", 1), (b"\4\0\1\0", 0)):
        answer = await drv.ctrl.exchange(request, writable)
        assert (answer.length, answer.data) == (0, bytes([UNWRITTEN]) * writable)
    with pytest.raises(UsageError, match="0 bytes"):
        await drv.ctrl.exchange(b"", 0)
    assert plain.commands == [b"\4", b"", b"\4\0\1\0"]


async def test_commands_wait_their_turn(plain: PlainDevice, drv: Driver) -> None:
    await drv.negotiate(FULL)
    async with asyncio.timeout(5):
        await asyncio.gather(*(drv.ctrl.vq_pairs_set(number) for number in range(1, 9)))
    assert [request[2] for request in plain.commands] == list(range(1, 9))


async def test_more_commands_than_indexes(plain: PlainDevice, drv: Driver) -> None:
    """Invariant: buffers of answered commands are used again; memory does not grow."""
    await drv.negotiate(FULL, queue_size=4)
    await drv.ctrl.raw(0, 0, b"\1")
    floor = drv.memory.alloc(1)
    for _ in range(300):
        await drv.ctrl.raw(0, 0, b"\1")
    assert drv.memory.alloc(1) - floor == 16
    assert len(plain.commands) == 301


async def test_no_answer_is_a_timeout_and_a_late_one_does_no_harm(plain: PlainDevice) -> None:
    async with Driver(plain, control_timeout=0.01) as drv:
        await drv.negotiate(FULL)
        ring = plain.rings[8]
        plain._loop.remove_reader(ring.setup.kick_fd)
        with pytest.raises(TimeoutError, match="no answer to RX_PROMISC"):
            await drv.ctrl.raw(0, 0, b"\1")
        with pytest.raises(TimeoutError, match="a command"):
            await drv.ctrl.exchange(b"\1")
    # a fresh driver with patience: the late answers come first
    late = type(plain)()
    async with Driver(late, control_timeout=5) as drv:
        await drv.negotiate(FULL)
        ring = late.rings[8]
        late._loop.remove_reader(ring.setup.kick_fd)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await drv.ctrl.raw(0, 0, b"\1")
        late.command = lambda request: b"\0" if request[2] == 2 else b"\1"
        late._loop.add_reader(ring.setup.kick_fd, late._serve_control, ring)
        assert await drv.ctrl.raw(0, 0, b"\2") is Ack.OK


async def test_no_controlq_no_commands(drv: Driver) -> None:
    await drv.negotiate(NO_FEATURES)
    with pytest.raises(UsageError, match="CTRL_VQ was not negotiated"):
        await drv.ctrl.vq_pairs_set(1)
