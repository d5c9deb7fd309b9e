# SPDX-License-Identifier: MIT
"""Socket pairs keep frames whole, wait for nobody and belong to no event loop."""

from __future__ import annotations

import asyncio
import itertools
import os

import pytest

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev import Pair
from pyvnet.netdev.pair import FRAME_MAX, HEADER_SIZE
from tests.netdev.kernel import open_fds, room_for_fds

HEADER = bytes(range(12))


@pytest.mark.parametrize("length", [0, 1, 13, 60, 1514, 9018, 0xFFFF, FRAME_MAX])
def test_a_frame_of_any_length_crosses_whole(length: int) -> None:
    frame = os.urandom(length)
    with Pair(1) as pair:
        wire = pair.wire(0)
        wire.send(frame)
        assert os.read(pair.fds[0], 1 << 17) == bytes(HEADER_SIZE) + frame
        wire.send(frame, HEADER)
        assert os.read(pair.fds[0], 1 << 17) == HEADER + frame
        assert os.writev(pair.fds[0], [HEADER, frame]) == HEADER_SIZE + length
        assert wire.recv() == (HEADER, frame)


def test_frames_stay_apart_and_in_order() -> None:
    frames = [bytes([number]) * number for number in range(100)]
    with Pair(1) as pair:
        for frame in frames:
            pair.wire(0).send(frame)
            os.write(pair.fds[0], HEADER + frame)
        # As the engine reads: header and frame into two buffers.
        for frame in frames:
            header, data = bytearray(HEADER_SIZE), bytearray(2048)
            assert os.readv(pair.fds[0], [header, data]) == HEADER_SIZE + len(frame)
            assert bytes(header + data[: len(frame)]) == bytes(HEADER_SIZE) + frame
        assert [pair.wire(0).recv().data for _ in frames] == frames


def test_a_header_of_any_length_is_sent_as_it_is() -> None:
    with Pair(1) as pair:
        pair.wire(0).send(b"", b"short")
        assert os.read(pair.fds[0], 100) == b"short"


def test_queues_are_apart() -> None:
    with Pair(3) as pair:
        assert len(set(pair.fds)) == pair.queues == 3
        pair.wire(1).send(b"one")
        for queue in (0, 2):
            with pytest.raises(BlockingIOError):
                os.read(pair.fds[queue], 100)
        assert os.read(pair.fds[1], 100) == bytes(HEADER_SIZE) + b"one"
        assert pair.wire(1) is pair.wire(1)


def test_nothing_waits() -> None:
    with Pair(1) as pair:
        assert not os.get_blocking(pair.fds[0])
        with pytest.raises(BlockingIOError):
            pair.wire(0).recv()
        for _ in range(250):  # what the usual default of net.core.wmem_max has room for
            pair.wire(0).send(bytes(60))
        with pytest.raises(BlockingIOError):
            list(map(pair.wire(0).send, itertools.repeat(bytes(60))))
        assert len(os.read(pair.fds[0], 100)) == HEADER_SIZE + 60


def test_a_frame_too_large_for_the_socket_says_so() -> None:
    with (
        Pair(1) as pair,
        pytest.raises(HostError, match=f"16777216 bytes .* at most {FRAME_MAX}"),
    ):
        pair.wire(0).send(bytes(16 << 20))


def test_describes_what_passes() -> None:
    pair = Pair(2)
    assert pair.describe() == {"kind": "pair", "queues": 2}
    with pair:
        assert pair.describe() == {"kind": "pair", "queues": 2, "frame_max": FRAME_MAX}


def test_close_is_idempotent_and_open_is_not() -> None:
    before = open_fds()
    pair = Pair(2)
    pair.close()
    with pair:
        with pytest.raises(UsageError, match="open already"):
            pair.open()
        assert len(open_fds() - before) == 4
    pair.close()
    assert pair.fds == ()
    assert open_fds() == before


def test_at_least_one_queue() -> None:
    with pytest.raises(UsageError, match="at least one"):
        Pair(0)


def test_running_out_of_fds_leaves_nothing_behind() -> None:
    before = open_fds()
    for room in range(6):
        with (
            room_for_fds(room),
            pytest.raises(HostError, match="no socket pair: Too many open files; raise the limit"),
        ):
            Pair(4).open()
        assert open_fds() == before


# --- waiting ----------------------------------------------------------------------------


async def test_receive_waits_for_the_next_frame() -> None:
    with Pair(1) as pair:
        wire = pair.wire(0)
        waiting = asyncio.create_task(wire.receive())
        await asyncio.sleep(0)
        os.write(pair.fds[0], HEADER + b"first")
        assert await waiting == (HEADER, b"first")
        os.write(pair.fds[0], HEADER + b"second")
        assert (await wire.receive()).data == b"second"


async def test_receive_can_be_given_up_without_losing_a_frame() -> None:
    with Pair(1) as pair:
        wire = pair.wire(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await wire.receive()
        os.write(pair.fds[0], HEADER + b"kept")
        assert (await wire.receive()).data == b"kept"


async def test_one_waiter_at_a_time() -> None:
    with Pair(1) as pair:
        wire = pair.wire(0)
        first = asyncio.create_task(wire.receive())
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="another task waits"):
            await wire.receive()
        os.write(pair.fds[0], HEADER)
        assert (await first).data == b""


async def test_the_end_of_the_device_ends_the_wait() -> None:
    with Pair(1) as pair:
        waiting = asyncio.create_task(pair.wire(0).receive())
        await asyncio.sleep(0)
        pair._ends[0].close()
        with pytest.raises(EOFError, match="closed its end"):
            await waiting
        with pytest.raises(HostError, match="open it again"):
            pair.wire(0).send(b"")
