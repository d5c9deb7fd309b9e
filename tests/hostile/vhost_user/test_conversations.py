# SPDX-License-Identifier: MIT
"""Conversations no front-end should have: each ends with one line, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import random
import struct
from contextlib import contextmanager, suppress
from itertools import product
from typing import TYPE_CHECKING, Final

import pytest

from pyvnet.errors import UsageError
from pyvnet.spec.vhost_user import (
    FLAG_NEED_REPLY,
    HEADER,
    MAX_PAYLOAD,
    RegionDescription,
    Request,
    VringState,
    message,
    pack_memory_table,
    pack_u64,
    request_name,
)
from pyvnet.transport.vhost_user.connection import MESSAGE_FDS
from tests.hostile.rig import expect_held, held
from tests.hostile.vhost_user.world import (
    ANSWERED,
    DEADLINE,
    FDS,
    GPA,
    REGION,
    SIZE,
    UVA,
    Said,
    World,
    conversation,
    memory,
    opening,
    ring,
    say,
    world,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ONE_LOOP: Final = pytest.mark.one_loop("the conversations are many, and the same on either")


async def attack(here: World, script: list[Said], said: str) -> None:
    """One hostile conversation: who is to blame goes, with one line; the neighbour forwards."""
    here.lines()
    here.neighbour.begin()
    reason = await here.hear(script, patiently=True)
    await here.neighbour.end()
    assert said in reason
    assert here.lines() == [f"victim: front-end disconnected: {reason}"]


@contextmanager
def named(name: str) -> Iterator[None]:
    """Say which of many did not go as it should."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"with {name}")
        raise


HEADERS: Final = {
    "garbage": (b"GET / HTTP/1.1\r\n\r\n", "protocol version"),
    "zeros": (bytes(64), "protocol version"),
    "ones": (b"\xff" * 64, "protocol version"),
    "oversized": (struct.pack("=III", 5, 1, MAX_PAYLOAD + 1), "bytes of payload"),
    "huge": (struct.pack("=III", 5, 1, 0xFFFFFFFF), "bytes of payload"),
    "a reply": (struct.pack("=III", 1, 5, 0), "a reply to nothing"),
    "unknown": (message(99, bytes(8)), "request 99: not supported"),
    "a payload where there is none": (message(Request.GET_FEATURES, bytes(8)), "of payload"),
    "cut short by its own word": (message(Request.SET_FEATURES, bytes(7)), "7 bytes instead of 8"),
}


@pytest.mark.requirement("PF-A-08")
async def test_bytes_nothing_can_be_made_of(caplog: pytest.LogCaptureFixture) -> None:
    async with world(caplog) as here:
        for name, (data, said) in HEADERS.items():
            with named(name):
                await attack(here, [Said(data)], said)
                await attack(here, [*opening(), Said(data)], said)
        await here.works()


LATER: Final = (
    "SET_LOG_BASE", "SET_LOG_FD", "IOTLB_MSG", "SET_VRING_ENDIAN", "CREATE_CRYPTO_SESSION",
    "POSTCOPY_ADVISE", "POSTCOPY_LISTEN", "POSTCOPY_END", "GET_INFLIGHT_FD", "SET_INFLIGHT_FD",
    "GPU_SET_SOCKET", "VRING_KICK", "GET_SHARED_OBJECT", "SET_DEVICE_STATE_FD",
    "CHECK_DEVICE_STATE",
)  # fmt: skip


@pytest.mark.requirement("CVE-2022-0669", "CVE-2021-3839", "CVE-2020-10726", "CVE-2020-10722")
async def test_messages_that_belong_to_features_not_offered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world(caplog) as here:
        before = held()
        for name in LATER:
            for fds in ((), ("memory",), ("eventfd",) * 8):
                said = say(Request[name], bytes(20), *fds)
                with named(name):
                    await attack(here, [*opening(), said], f"{name}: not supported")
        expect_held(before)


MEMORY: Final[dict[str, tuple[str, RegionDescription, str]]] = {
    "not a file": ("eventfd", REGION, "memory"),
    "a socket": ("socket without peer", REGION, "memory"),
    "a pipe": ("pipe without writer", REGION, "memory"),
    "a directory": ("directory", REGION, "memory"),
    "a path": ("path", REGION, "memory"),
    "a device": ("device", REGION, "memory"),
    "read only": ("file", RegionDescription(GPA, 4096, UVA, 0), "memory"),
    "beyond the file's end": ("short memory", REGION, "memory"),
    "in an empty file": ("empty memory", REGION, "memory"),
    "behind the file": ("memory", RegionDescription(GPA, SIZE, UVA, SIZE), "memory"),
    "larger than any": ("memory", RegionDescription(0, 1 << 63, 0, 0), "memory"),
    "wrapping around": ("memory", RegionDescription(GPA, 2**64 - GPA + 1, UVA, 0), "wraps"),
    "of no size": ("memory", RegionDescription(GPA, 0, UVA, 0), "empty"),
}


@pytest.mark.requirement("PF-A-09")
async def test_memory_that_is_none(caplog: pytest.LogCaptureFixture) -> None:
    async with world(caplog) as here:
        before = held()
        for name, (fd, region, said) in MEMORY.items():
            table = say(Request.SET_MEM_TABLE, pack_memory_table((region,)), fd)
            with named(name):
                await attack(here, [*opening()[:-1], table], said)
                await attack(here, [*opening(), *ring(0), *ring(1), table], said)
        expect_held(before)
        await here.works()


@pytest.mark.parametrize("fd", ["memory", "eventfd", "short memory"])
async def test_a_second_region_that_is_none(fd: str, caplog: pytest.LogCaptureFixture) -> None:
    """The first is as it should be, and is let go of with it."""
    over = RegionDescription(GPA + SIZE - 1, SIZE, UVA + SIZE, 0)
    beside = RegionDescription(GPA + SIZE, SIZE, UVA + SIZE, 0)
    async with world(caplog) as here:
        before = held()
        for region, said in ((over, "overlap"), (beside, "memory")):
            table = say(Request.SET_MEM_TABLE, pack_memory_table((REGION, region)), "memory", fd)
            if fd == "memory" and region is beside:
                continue  # which is as it should be
            await attack(here, [*opening()[:-1], table], said)
            await attack(here, [*opening(), *ring(0), *ring(1), table], said)
        expect_held(before)
        await here.works()


NOTIFIERS: Final = (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR)


@pytest.mark.requirement("PF-A-17")
async def test_fds_of_any_kind_where_eventfds_belong(caplog: pytest.LogCaptureFixture) -> None:
    """Some do, some are refused; none stops anything but its own ring."""
    async with world(caplog) as here:
        before = held()
        for kind, request, index in product(FDS, NOTIFIERS, (0, 1, 2)):
            odd = say(request, pack_u64(index), kind)
            with named(f"{kind} in {request.name} of ring {index}"):
                here.neighbour.begin()
                await here.hear([*opening(), odd, *ring(index)])
                await here.hear([*opening(), *ring(index), odd])
                await here.neighbour.end()
        expect_held(before)
        await here.works()


@pytest.mark.requirement("CVE-2019-14818-a", "PF-A-08")
async def test_more_fds_than_a_message_takes(caplog: pytest.LogCaptureFixture) -> None:
    async with world(caplog) as here:
        before = held()
        for said, fds in product(conversation(), (1, 2, 8, 9, 64, 252)):
            surplus = Said(said.data, (*said.fds, *(("eventfd",) * fds)))
            here.lines()
            with named(f"{len(surplus.fds)} fds in {request_name(said.request)}"):
                reason = await here.hear([*opening(), surplus])
                lines = here.lines()
                assert lines[-1] == f"victim: front-end disconnected: {reason}"
                asked = HEADER.unpack_from(said.data)[1] & FLAG_NEED_REPLY
                fits = len(surplus.fds) <= MESSAGE_FDS  # else the message never was a whole one
                assert len(lines) == (2 if asked and fits else 1)
        expect_held(before)
        await here.works()


@pytest.mark.requirement("PF-F-08")
async def test_messages_in_any_order(
    caplog: pytest.LogCaptureFixture, vnet_random: random.Random
) -> None:
    rng = vnet_random
    async with world(caplog) as here:
        before = held()
        for _ in range(40):
            script = conversation()
            rng.shuffle(script)
            here.neighbour.begin()
            await here.hear([*opening()[: rng.randrange(9)], *script])
            await here.neighbour.end()
        expect_held(before)
        await here.works()


def truncated(rng: random.Random) -> list[Said]:
    """The end after any byte."""
    script = conversation()[: rng.randrange(1, 34)]
    last = script.pop()
    return [*script, Said(last.data[: rng.randrange(1, len(last.data))], last.fds)]


def flipped(rng: random.Random) -> list[Said]:
    """Some bits are wrong."""
    script = conversation()
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(script))
        data = bytearray(script[at].data)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        script[at] = Said(bytes(data), script[at].fds)
    return script


def mixed_up(rng: random.Random) -> list[Said]:
    """Messages missing, doubled, with the fds of others."""
    script = conversation()
    for _ in range(rng.randrange(1, 6)):
        at, other = rng.randrange(len(script)), rng.randrange(len(script))
        match rng.randrange(3):
            case 0:
                del script[at]
            case 1:
                script.insert(at, script[other])
            case _:
                script[at] = Said(script[at].data, (rng.choice(list(FDS)),))
    return script


def garbled(rng: random.Random) -> list[Said]:
    """Bytes of any kind behind a good beginning."""
    return [*conversation()[: rng.randrange(30)], Said(rng.randbytes(rng.randrange(1, 200)))]


KINDS: Final[tuple[Callable[[random.Random], list[Said]], ...]] = (
    truncated, flipped, mixed_up, garbled,
)  # fmt: skip


async def cut_off(here: World, rng: random.Random) -> str:
    """A whole conversation, but somewhere the file of its memory is cut off, and frames come."""
    liar = here.connect()
    script = conversation()
    kept: list[int] = []
    cut_at = rng.randrange(8, len(script))
    try:
        for number, said in enumerate(script):
            if number == cut_at:
                await liar.answers(turns=6)
                for fd in kept:
                    os.ftruncate(fd, rng.choice((0, 0x1000, 0x8000)))
                with suppress(BlockingIOError):
                    here.port.wire(0).send(b"\xff" * 60)
            fds = [FDS[kind]() for kind in said.fds]
            kept += [os.dup(fd) for fd, kind in zip(fds, said.fds, strict=True) if kind == "memory"]
            if not liar.utter(said.data, fds):
                break
        return await liar.over()
    finally:
        for fd in kept:
            os.close(fd)


async def converse(here: World, count: int, seed: int) -> None:
    """So many hostile conversations, of all kinds."""
    rng = random.Random(seed)
    before = held()
    here.lines()
    here.log.set_level("ERROR", "pyvnet")
    lost = 0
    for number in range(count):
        if not number % 10:
            here.neighbour.begin()
        if number % 8 == 2:
            lost += "memory went away" in await cut_off(here, rng)
        else:
            script = KINDS[number % len(KINDS)](rng)
            await here.hear(script, abruptly=not number % 5)
        if number % 10 == 9:
            await here.neighbour.end()
    expect_held(before)
    assert here.lines() == [], "faults of ours are logged as errors"
    assert lost, "no memory was missed"
    here.log.set_level("WARNING", "pyvnet")
    await here.works()


@ONE_LOOP
@pytest.mark.requirement("PF-A-08", "PF-F-07")
async def test_a_thousand_conversations_leave_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with world(caplog) as here:
        await converse(here, 1000, 7)


@ONE_LOOP
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.requirement("PF-A-08", "PF-F-07")
async def test_a_hundred_thousand_conversations(caplog: pytest.LogCaptureFixture) -> None:
    async with world(caplog) as here:
        for seed in range(100):
            await converse(here, 1000, seed)


@ONE_LOOP
@pytest.mark.requirement("PF-A-08", "PF-F-06")
async def test_the_end_after_every_byte_of_a_whole_conversation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world(caplog) as here:
        before = held()
        here.neighbour.begin()
        script = conversation()
        for number, said in enumerate(script):
            for length in {1, 2, 11, 12, 13, 19, 20, len(said.data) - 1, len(said.data)}:
                if length <= len(said.data):
                    await here.hear([*script[:number], Said(said.data[:length], said.fds)])
        await here.neighbour.end()
        expect_held(before)
        assert all("it closed the connection" in line for line in here.lines())
        await here.works()


async def test_a_front_end_that_stalls_keeps_only_itself_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world(caplog) as here:
        liar = here.connect()
        for said in conversation()[:20]:
            liar.say(said)
        liar.utter(message(Request.SET_FEATURES, pack_u64(0))[:15])
        await liar.answers()
        here.neighbour.begin()
        await here.neighbour.end()
        with pytest.raises(UsageError, match="front-end already"):
            here.connect()
        assert here.backend.connected
        here.backend.disconnect("the operator lost patience")
        assert await liar.over() == "the operator lost patience"
        await here.works()


async def test_a_front_end_that_floods_leaves_others_their_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world(caplog) as here:
        liar = here.connect()
        for said in opening()[2:5]:
            liar.say(said)
        flood = message(Request.SET_VRING_NUM, VringState(0, 64).pack())
        heard = 0
        for _ in range(20):
            here.neighbour.begin()
            with suppress(BlockingIOError):
                while True:
                    heard += liar.sock.send(flood * 50)
            await here.neighbour.end()
        assert heard > 20 * len(flood) * 50
        # What was cut by the socket is the middle of a message.
        assert "closed" in await liar.over()


async def test_refusals_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    wrong = say(Request.SET_VRING_NUM, VringState(9, 64).pack(), need_reply=True)
    async with world(caplog) as here:
        for _ in range(2):
            here.lines()
            await here.hear([*opening(), *[wrong] * 100])
            *refusals, last_but_one, last = here.lines()
            assert len(set(refusals)) == 1
            assert len(refusals) == 10
            assert last_but_one == "victim: what else is refused on this connection is not logged"
            assert last == "victim: front-end disconnected: it closed the connection"


async def test_rings_that_break_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with world(caplog) as here:
        liar = here.connect()
        backing = memory()
        os.pwrite(backing, struct.pack("<HH", 0, 999), 0x4000 + 0x1000)  # far too far
        for said in (*opening(), *ring(1)):
            if said.request == Request.SET_MEM_TABLE:
                liar.utter(said.data, [backing])
            elif said.request not in ANSWERED:
                liar.say(said)
        for number in range(30):
            async with asyncio.timeout(DEADLINE):
                while here.device.device.state.counters.rings_broken <= number:
                    await liar.answers(turns=1)
            await liar.ask(Request.GET_VRING_BASE, VringState(1, 0).pack())
            liar.say(say(Request.SET_VRING_KICK, pack_u64(1), "eventfd"))
        await liar.over()
        *broke, last_but_one, last = here.lines()
        assert broke == ["virtqueue 1 broke: AVAIL_INDEX"] * 20
        assert last_but_one == "what else this driver does wrong is not logged"
        assert last == "victim: front-end disconnected: it closed the connection"


@pytest.mark.requirement("PF-A-18")
async def test_a_ring_between_its_base_and_its_next_kick(caplog: pytest.LogCaptureFixture) -> None:
    """Frames and kicks from either side meet a ring that is not there; then it goes on."""
    async with world(caplog) as here:
        liar = here.connect()
        backing, kick = memory(), os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            for said in (*opening(), *ring(0), *ring(1)):
                if said.request == Request.SET_MEM_TABLE:
                    liar.utter(said.data, [os.dup(backing)])
                elif said.request == Request.SET_VRING_KICK:
                    liar.utter(said.data, [os.dup(kick)])
                elif said.request not in ANSWERED:
                    liar.say(said)
            for index in (0, 1):
                base = await liar.ask(Request.GET_VRING_BASE, VringState(index, 0).pack())
                assert VringState.unpack(base) == VringState(index, 0)
            frozen = os.pread(backing, 0x8000, 0)
            for _ in range(50):
                here.port.wire(0).send(b"\xff" * 60)
                os.eventfd_write(kick, 1)
            liar.say(say(Request.SET_VRING_CALL, pack_u64(0), "eventfd"))
            here.neighbour.begin()
            await here.neighbour.end()
            assert await liar.ask(Request.GET_FEATURES)
            assert os.pread(backing, 0x8000, 0) == frozen, "a ring that was stopped is used"
        finally:
            os.close(kick)
            os.close(backing)
        assert await liar.over() == "it closed the connection"
        await here.works()
