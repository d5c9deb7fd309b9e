# SPDX-License-Identifier: MIT
"""Back-ends that lie, stall or die: the front-end says so, waits for nobody, keeps nothing open."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet import Driver
from pyvnet.driver import DeviceViolation, NegotiationError
from pyvnet.driver.errors import RefusedError
from pyvnet.spec.features import NO_FEATURES, Feature
from tests.driver.scripted_backend import (
    PROTOCOL_OFFER,
    REPLY_ACK,
    Message,
    ScriptedBackend,
    reply,
    u64,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

WITHIN = 30.0  # a hang guard
BRIEF = 0.02  # what a front-end is told to wait for an answer that does not come


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[ScriptedBackend, Driver]]:
    backend = ScriptedBackend()
    try:
        options = {"timeout": WITHIN} | options
        async with asyncio.timeout(WITHIN), Driver.connect(backend.frontend, **options) as drv:
            yield backend, drv
    finally:
        backend.close()


@asynccontextmanager
async def impatient() -> AsyncIterator[tuple[ScriptedBackend, Driver]]:
    """Connected as ever; what comes after that is waited for `BRIEF` only.

    A handshake has some twenty answers, of which the machine may delay any so long.
    """
    async with connected() as (backend, drv):
        drv.frontend.link._timeout = BRIEF
        yield backend, drv


# --- wrong answers ----------------------------------------------------------------------

GOOD = reply(1, u64(1 << 32))
LIES: dict[str, tuple[bytes, str]] = {
    "id": (reply(15, u64(0)), "not an answer to GET_FEATURES: it says GET_PROTOCOL_FEATURES"),
    "unknown-id": (reply(1000, u64(0)), "it says request 1000"),
    "version-0": (reply(1, u64(0), flags=4), "protocol version 0"),
    "version-2": (reply(1, u64(0), flags=6), "protocol version 2"),
    "no-reply-flag": (reply(1, u64(0), flags=1), "no REPLY flag"),
    "size-0": (reply(1, b""), "its size is 0"),
    "size-4": (reply(1, bytes(4)), "its size is 4"),
    "size-16": (reply(1, bytes(16)), "its size is 16"),
    "size-huge": (struct.pack("=III", 1, 5, 0xFFFFFFFF), "its size is 4294967295"),
    "twice": (GOOD * 2, "more bytes follow"),
    "a-byte-more": (GOOD + b"x", "more bytes follow"),
    "garbage": (bytes(range(64)), "protocol version"),
}


@pytest.mark.parametrize("name", LIES)
async def test_what_is_no_answer_ends_the_connection(name: str) -> None:
    lie, match = LIES[name]
    async with connected() as (backend, drv):
        backend.answers[1] = lambda _: lie
        with pytest.raises(DeviceViolation, match=match):
            await drv.frontend.device_features()
        with pytest.raises(ConnectionError, match=match):
            await drv.frontend.device_features()
        assert backend._sock.recv(1) == b"", "and the back-end sees that"


@pytest.mark.parametrize("cut", range(1, 20))
async def test_an_answer_in_pieces_is_an_answer(cut: int) -> None:
    async with connected() as (backend, drv):
        backend.answers[1] = lambda _: GOOD[:cut]
        asking = asyncio.create_task(drv.frontend.device_features())
        while asking not in await _one_turn():
            if backend.names()[-1] == 1:
                backend.say(GOOD[cut:])
                break
        backend.answers.clear()
        assert await asking == 1 << 32


async def _one_turn() -> set[asyncio.Task[Any]]:
    await asyncio.sleep(0)
    return {task for task in asyncio.all_tasks() if task.done()}


@pytest.mark.parametrize("cut", [0, 1, 11, 12, 19])
async def test_a_back_end_that_dies_half_way_through_an_answer(cut: int) -> None:
    async with connected() as (backend, drv):

        def die(_: Message) -> None:
            if cut:
                backend.say(GOOD[:cut])
            backend.hang_up()

        backend.answers[1] = die
        with pytest.raises(ConnectionError, match="instead of answering GET_FEATURES"):
            await drv.frontend.device_features()


@pytest.mark.parametrize("cut", [0, 1, 12, 19])
async def test_a_back_end_that_falls_silent_is_waited_for_no_longer_than_told(cut: int) -> None:
    async with impatient() as (backend, drv):
        backend.answers[1] = lambda _: GOOD[:cut]
        with pytest.raises(TimeoutError, match=r"no answer to GET_FEATURES within 0\.02 s"):
            await drv.frontend.device_features()
        with pytest.raises(ConnectionError, match="no answer to GET_FEATURES"):
            await drv.negotiate(NO_FEATURES)


@pytest.mark.parametrize("step", [1, 15, 3, 17, 21])
async def test_silence_at_every_step_of_the_handshake(step: int) -> None:
    backend = ScriptedBackend()
    backend.answers[step] = lambda _: None
    with pytest.raises(TimeoutError):
        await Driver.connect(backend.frontend, timeout=BRIEF)
    backend.close()


async def test_a_peer_that_reads_nothing_blocks_nobody() -> None:
    """The socket's buffer is full and nobody empties it."""
    async with impatient() as (backend, drv):
        backend._loop.remove_reader(backend._sock.fileno())
        ours = socket.socket(fileno=os.dup(drv.frontend.link._sock.fileno()))
        with ours, suppress(BlockingIOError):
            while True:
                ours.send(bytes(1 << 16))
        with pytest.raises(TimeoutError):
            await drv.frontend.set_mtu(1500)


async def test_a_call_given_up_half_way_leaves_no_answer_to_the_next() -> None:
    async with connected() as (backend, drv):
        backend.answers[1] = lambda _: None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(drv.frontend.device_features(), BRIEF)
        backend.answers.clear()
        with pytest.raises(ConnectionError, match="given up half way"):
            await drv.frontend.device_features()


async def test_calls_take_turns() -> None:
    async with connected() as (_, drv):
        front = drv.frontend
        await asyncio.gather(
            *(call for _ in range(10) for call in (front.device_features(), front.get_status()))
        )


async def test_bytes_nobody_asked_for() -> None:
    async with connected() as (backend, drv):
        await drv.negotiate(NO_FEATURES)
        receiving = asyncio.create_task(drv.receive())
        backend.say(GOOD)
        with pytest.raises(ConnectionError, match="nobody had asked for"):
            await receiving


@pytest.mark.parametrize("number", [1, 8, 9, 60])
@pytest.mark.parametrize("asked", [True, False])
async def test_surplus_fds_are_closed(number: int, asked: bool) -> None:
    """The leak check finds those that are not."""
    async with connected() as (backend, drv):
        fds = [os.memfd_create("pyvnet-surplus") for _ in range(number)]
        if asked:
            backend.fds_with[1] = fds
            with pytest.raises(DeviceViolation, match="file descriptors came"):
                await drv.frontend.device_features()
        else:
            backend.say(b"x", fds)
            with pytest.raises((ConnectionError, DeviceViolation), match="file descriptors came"):
                await drv.frontend.device_features()
        for fd in fds:
            os.close(fd)


# --- answers with the wrong contents ----------------------------------------------------


@pytest.mark.parametrize(
    ("request_number", "answer", "match"),
    [
        pytest.param(17, u64(0), "0 queues", id="no-queues"),
        pytest.param(36, u64(0), "0 memory slots", id="no-slots"),
    ],
)
async def test_a_handshake_that_cannot_be(request_number: int, answer: bytes, match: str) -> None:
    backend = ScriptedBackend(protocol_features=(1 << 64) - 1)
    backend.answers[request_number] = lambda _: reply(request_number, answer)
    with pytest.raises(DeviceViolation, match=match):
        await Driver.connect(backend.frontend)
    backend.close()


@pytest.mark.parametrize(
    ("payload", "match"),
    [
        pytest.param(struct.pack("=II", 0, 3), "virtqueue 1 answered", id="other-ring"),
        pytest.param(struct.pack("=II", 1, 0x10000), "virtqueue 1 answered", id="no-index"),
        pytest.param(u64(1) + b"x", "its size is 9", id="size"),
    ],
)
async def test_a_ring_stopped_elsewhere(payload: bytes, match: str) -> None:
    async with connected() as (backend, drv):
        await drv.negotiate(NO_FEATURES)
        backend.answers[11] = lambda _: reply(11, payload)
        with pytest.raises(DeviceViolation, match=match):
            await drv.transport.stop_queue(1)


async def test_configuration_space_that_is_not_what_was_asked_for() -> None:
    async with connected() as (backend, drv):
        backend.answers[24] = lambda _: reply(24, struct.pack("=III", 0, 0, 0))
        with pytest.raises(RefusedError, match="refused GET_CONFIG: 28 bytes at 0"):
            await drv.negotiate(NO_FEATURES)
        backend.answers[24] = lambda _: reply(24, struct.pack("=III", 4, 28, 0) + bytes(28))
        with pytest.raises(DeviceViolation, match=r"answered \(4, 28\)"):
            await drv.negotiate(NO_FEATURES)
        backend.answers[24] = lambda _: reply(24, struct.pack("=III", 0, 28, 0) + bytes(27))
        with pytest.raises(DeviceViolation, match="its size is 39"):
            await drv.negotiate(NO_FEATURES)


async def test_a_status_wider_than_a_byte() -> None:
    async with connected() as (backend, drv):
        backend.answers[40] = lambda _: reply(40, u64(0x100))
        with pytest.raises(DeviceViolation, match="0x100"):
            await drv.negotiate(NO_FEATURES)


@pytest.mark.parametrize("refused", [5, 8, 9, 10, 12, 13, 14, 18, 34, 39])
async def test_a_refusal_names_the_message_and_the_connection_goes_on(refused: int) -> None:
    async with connected() as (backend, drv):
        backend.answers[refused] = lambda _: reply(refused, u64(1))
        with pytest.raises(RefusedError, match=r"the back-end refused [A-Z_]*: it answered 0x1"):
            await drv.negotiate(NO_FEATURES)
        backend.answers.clear()
        await drv.negotiate(NO_FEATURES)


async def test_without_reply_ack_a_refusal_is_a_hangup() -> None:
    backend = ScriptedBackend(protocol_features=PROTOCOL_OFFER & ~REPLY_ACK)

    def die(_: Message) -> None:
        backend.hang_up()

    async with asyncio.timeout(WITHIN), Driver.connect(backend.frontend) as drv:
        backend.answers[5] = die
        with pytest.raises(ConnectionError, match=r"closed the connection|is gone"):
            await drv.negotiate(NO_FEATURES)
    backend.close()


# --- the end ----------------------------------------------------------------------------


async def test_whoever_waits_for_a_back_end_that_dies_is_told() -> None:
    async with connected() as (backend, drv):
        await drv.negotiate(Feature.CTRL_VQ, queue_size=4)
        while drv.transmitqs[0].ring.outstanding < 4:
            drv.send_nowait(b"frame")
        calls: list[Callable[[], Any]] = [
            drv.receive,
            drv.flush,
            lambda: drv.send(b"no room"),
            lambda: drv.ctrl.rx_promisc(on=True),
            drv.wait_config_change,
        ]
        waiting = [asyncio.create_task(call()) for call in calls]
        await asyncio.sleep(0)
        backend.hang_up()
        for task in waiting:
            with pytest.raises(ConnectionError, match="the back-end closed the connection"):
                await task
        with pytest.raises(ConnectionError):
            await drv.receive()


@pytest.mark.parametrize("step", range(12))
async def test_a_back_end_that_dies_at_every_message(step: int) -> None:
    async with connected() as (backend, drv):
        dies_at = len(backend.messages) + step
        serve = backend._serve

        def count(message: Message) -> None:
            if len(backend.messages) > dies_at:
                backend.hang_up()
            else:
                serve(message)

        backend._serve = count  # type: ignore[method-assign]
        with pytest.raises(ConnectionError):
            await drv.negotiate(NO_FEATURES)


# --- the channel of the back-end's requests -----------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(struct.pack("=III", 2, 2, 0), id="version"),
        pytest.param(struct.pack("=III", 2, 5, 0), id="a-reply"),
        pytest.param(struct.pack("=III", 2, 1, 0x7FFFFFFF), id="size"),
    ],
)
async def test_garbage_among_the_back_ends_requests_ends_the_connection(garbage: bytes) -> None:
    async with connected() as (backend, drv):
        await drv.negotiate(NO_FEATURES)
        assert backend.request_fd is not None
        receiving = asyncio.create_task(drv.receive())
        backend.request_fd.sendall(garbage)
        with pytest.raises(ConnectionError, match="carries no request"):
            await receiving


async def test_a_back_end_that_does_not_read_the_answers_to_its_requests() -> None:
    async with connected() as (backend, drv):
        await drv.negotiate(NO_FEATURES)
        assert backend.request_fd is not None
        backend.request_fd.settimeout(0)
        receiving = asyncio.create_task(drv.receive())
        with suppress(OSError):
            while not receiving.done():
                with suppress(BlockingIOError):
                    backend.request_fd.send(struct.pack("=III", 99, 9, 0) * 100)
                await asyncio.sleep(0)
        with pytest.raises(ConnectionError, match="does not read the answers"):
            await receiving


async def test_a_back_end_that_wants_nothing_more_is_no_fault() -> None:
    async with connected() as (backend, drv):
        await drv.negotiate(NO_FEATURES)
        assert backend.request_fd is not None
        backend.request_fd.sendall(b"half a req")
        backend.request_fd.close()
        await drv.negotiate(NO_FEATURES)


async def test_a_verbatim_negotiation_survives_a_refusal_of_its_bits() -> None:
    async with connected() as (backend, drv):
        backend.answers[2] = lambda _: reply(2, u64(22))
        with pytest.raises(NegotiationError, match="refused FEATURES_OK"):
            await drv.negotiate(Feature(0), verbatim=True)
        backend.answers.clear()
        await drv.negotiate(NO_FEATURES)
