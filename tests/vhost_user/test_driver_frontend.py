# SPDX-License-Identifier: MIT
"""What our front-end says to a back-end, byte by byte, and what it makes of right answers."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pyvnet import Driver, HostError, UsageError
from pyvnet.driver import GuestMemory, NegotiationError, RegionSpec
from pyvnet.driver.errors import RefusedError
from pyvnet.driver.frontend import VhostUserFrontend
from pyvnet.driver.memory import PAGE_SIZE
from pyvnet.spec.features import NO_FEATURES, Feature
from pyvnet.spec.vhost_user import ProtocolFeature
from tests.driver.plain_device import PlainDevice
from tests.driver.scripted_backend import (
    NET_CONFIG,
    OFFER,
    PROTOCOL,
    PROTOCOL_OFFER,
    REPLY_ACK,
    Message,
    ScriptedBackend,
    reply,
    u64,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

V1 = int(Feature.VERSION_1)
NEED_REPLY = 9  # version 1 | need_reply
HANDSHAKE = [1, 15, 16, 3, 17, 21]


@asynccontextmanager
async def scripted(
    *, protocol_features: int | None = PROTOCOL_OFFER, **options: Any
) -> AsyncIterator[tuple[ScriptedBackend, Driver]]:
    backend = ScriptedBackend(protocol_features=protocol_features)
    try:
        options = {"timeout": 5.0} | options
        async with Driver.connect(backend.frontend, **options) as drv:
            yield backend, drv
    finally:
        backend.close()


def state(index: int, num: int) -> bytes:
    return struct.pack("=II", index, num)


class Region(NamedTuple):
    gpa: int
    size: int
    uva: int
    offset: int


def table(message: Message) -> list[Region]:
    count = struct.unpack_from("=I4x", message.payload)[0]
    assert len(message.payload) == 8 + 32 * count
    return [Region(*struct.unpack_from("=QQQQ", message.payload, 8 + 32 * i)) for i in range(count)]


def to_gpa(regions: list[Region], uva: int) -> int:
    (found,) = (r for r in regions if r.uva <= uva < r.uva + r.size)
    return uva - found.uva + found.gpa


# --- the handshake ----------------------------------------------------------------------


async def test_the_handshake() -> None:
    async with scripted() as (backend, drv):
        assert backend.names() == HANDSHAKE
        chosen = backend.of(16)[0]
        assert (chosen.flags, chosen.payload) == (1, u64(PROTOCOL_OFFER))
        assert [message.flags for message in backend.messages] == [1, 1, 1, NEED_REPLY, 1, 9]
        assert [len(message.fds) for message in backend.messages] == [0, 0, 0, 0, 0, 1]
        assert int(drv.frontend.protocol_features) == PROTOCOL_OFFER
        assert drv.frontend.queue_num == 2


@pytest.mark.requirement("PF-A-16")
async def test_only_protocol_features_known_here_are_acknowledged() -> None:
    async with scripted(protocol_features=(1 << 64) - 1) as (backend, drv):
        bits = struct.unpack("=Q", backend.of(16)[0].payload)[0]
        assert bits == PROTOCOL_OFFER | 1 << 15
        assert drv.frontend.regions_max == 32, "GET_MAX_MEM_SLOTS"


async def test_protocol_features_can_be_limited() -> None:
    limit = ProtocolFeature.MQ | ProtocolFeature.CONFIG
    async with scripted(protocol_features=PROTOCOL_OFFER, timeout=5) as (backend, _):
        assert backend.names() == HANDSHAKE
    backend = ScriptedBackend()
    async with Driver.connect(backend.frontend, protocol_features=limit):
        assert backend.of(16)[0].payload == u64(int(limit))
        assert backend.names() == [1, 15, 16, 3, 17]
        assert backend.of(3)[0].flags == 1, "no REPLY_ACK, no NEED_REPLY"
    backend.close()


async def test_a_back_end_without_protocol_features() -> None:
    """Rings are enabled from the start; status and configuration are made up here."""
    async with scripted(protocol_features=None) as (backend, drv):
        assert await drv.frontend.device_features() & ~int(OFFER) == 0
        assert backend.names() == [1, 3, 1]
        await drv.negotiate(Feature.STATUS)
        assert backend.of(2)[0].payload == u64(V1 | int(Feature.STATUS)), "without bit 30"
        assert not backend.of(18)
        assert not backend.of(39)
        assert (drv.pairs, drv.link_up) == (1, True)
        with pytest.raises(NegotiationError, match="not offered: mac,rss"):
            await drv.negotiate(Feature.MAC | Feature.RSS | Feature.CTRL_VQ)


@pytest.mark.parametrize(("pairs", "controlq"), [(None, 254), (4, 8), (200, 254)])
async def test_without_configuration_space_the_number_of_pairs_is_chosen_here(
    pairs: int | None, controlq: int
) -> None:
    """A back-end may serve more rings than the protocol has indexes for with a controlq."""
    backend = ScriptedBackend(protocol_features=int(ProtocolFeature.MQ))
    backend.answers[17] = lambda message: reply(message.request, u64(128))
    async with Driver.connect(backend.frontend, pairs=pairs) as drv:
        await drv.negotiate(Feature.CTRL_VQ | Feature.MQ, pairs=1)
        assert drv.controlq
        assert drv.controlq.index == controlq
    backend.close()


# --- addresses --------------------------------------------------------------------------


async def test_by_path_by_scheme_and_by_fd(tmp_path: Path) -> None:
    path = tmp_path / "back.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        for target in (path, str(path), f"vhost-user:{path}"):
            connecting = asyncio.create_task(_connect(target))
            await asyncio.sleep(0)
            backend = ScriptedBackend(accepted=listener.accept()[0])
            drv = await connecting
            assert (await drv.frontend.device_features()) == int(OFFER)
            await drv.aclose()
            backend.close()
    backend = ScriptedBackend()
    drv = await Driver.connect(backend.frontend.detach())
    await drv.aclose()
    backend.close()


async def _connect(target: Path | str) -> Driver:
    return await Driver.connect(target)


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"no vhost-user back-end at .*No such file.*serve"):
        await Driver.connect(f"vhost-user:{tmp_path}/none")
    with pytest.raises(UsageError, match="names no socket"):
        Driver.connect("vhost-user:")


async def test_in_process_there_is_no_front_end() -> None:
    async with Driver(PlainDevice()) as drv:
        with pytest.raises(UsageError, match="not connected over vhost-user"):
            await drv.reconnect()


# --- negotiation ------------------------------------------------------------------------


async def test_from_reset_to_driver_ok_in_messages() -> None:
    async with scripted() as (backend, drv):
        start = len(backend.messages)
        await drv.negotiate(Feature.MAC, queue_size=64)
        ring = [13, 8, 10, 9, 14]
        assert backend.names(start) == [
            34, 39, 40,  # RESET_DEVICE, status 0, and a look whether it is
            39, 39,  # ACKNOWLEDGE, DRIVER
            1, 2, 39, 40,  # features, FEATURES_OK, and a look whether it is
            24,  # configuration
            5, *ring, *ring,  # memory; CALL, NUM, BASE, ADDR, ERR of both rings
            12, 12, 18, 18, 39,  # KICK, ENABLE, DRIVER_OK
            1,  # a fence
        ]  # fmt: skip
        asked = {m.request for m in backend.messages[start:] if m.flags == NEED_REPLY}
        assert asked == {34, 39, 2, 5, 13, 8, 10, 9, 14, 12, 18}
        assert [m.payload for m in backend.of(39)] == [u64(n) for n in (0, 1, 3, 11, 15)]
        assert backend.of(2)[0].payload == u64(V1 | PROTOCOL | int(Feature.MAC))
        assert backend.of(24)[0].payload == struct.pack("=III", 0, 28, 0) + bytes(28)
        assert drv.config == NET_CONFIG
        for request, expected in ((8, 64), (10, 0), (18, 1)):
            assert [m.payload for m in backend.of(request)] == [
                state(0, expected),
                state(1, expected),
            ]


async def test_ring_addresses_are_user_addresses_that_lead_to_the_rings() -> None:
    async with scripted() as (backend, drv):
        await drv.negotiate(NO_FEATURES)
        (memory,) = backend.of(5)
        (region,) = regions = table(memory)
        assert region.uva != region.gpa
        assert os.path.samestat(os.fstat(memory.fds[0]), os.fstat(drv.memory.regions[0].fd))
        for message, queue in zip(backend.of(9), drv.queues, strict=True):
            index, flags, desc, used, avail, log = struct.unpack("=IIQQQQ", message.payload)
            assert (index, flags, log) == (queue.index, 0, 0)
            ring = queue.ring
            assert [to_gpa(regions, uva) for uva in (desc, used, avail)] == [
                ring.desc_table,
                ring.used_ring,
                ring.avail_ring,
            ]


async def test_kick_call_and_err_fds_are_the_queues() -> None:
    async with scripted() as (backend, drv):
        await drv.negotiate(NO_FEATURES)
        queue = drv.transmitqs[0]
        by_request = {m.request: m for m in backend.messages if m.payload == u64(1)}
        await drv.send(b"frame")
        assert os.eventfd_read(by_request[12].fds[0]) >= 1
        os.eventfd_write(by_request[14].fds[0], 1)
        assert queue.broken()
        queue.called.clear()
        os.eventfd_write(by_request[13].fds[0], 1)
        await asyncio.wait_for(queue.called.wait(), 5)


async def test_every_ring_is_kicked_once_it_runs() -> None:
    """A back-end starts a ring when its kick fd becomes readable, not before."""
    async with scripted() as (backend, drv):
        readable: list[list[int]] = []

        def look(message: Message) -> bytes:
            # Read and put back: whether a kick is there when DRIVER_OK comes.
            if message.payload == u64(15):
                readable.append([_kicked(m.fds[0]) for m in backend.of(12)])
            return reply(39, u64(0))

        backend.answers[39] = look
        backend.answers[40] = lambda _: reply(40, u64(11 if len(backend.of(39)) > 1 else 0))
        await drv.negotiate(Feature.CTRL_VQ, rx_buffers=0)
        assert readable == [[0, 0, 0]], "no kick before DRIVER_OK"
        assert [_kicked(m.fds[0]) for m in backend.of(12)] == [1, 1, 1]


def _kicked(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


async def test_refused_features_show_in_features_ok() -> None:
    async with scripted() as (backend, drv):
        backend.answers[2] = lambda _: reply(2, u64(1))
        with pytest.raises(NegotiationError, match="refused FEATURES_OK for mac"):
            await drv.negotiate(Feature.MAC)
        del backend.answers[2]
        await drv.negotiate(Feature.MAC)


@pytest.mark.parametrize("bit", [26, 30, 64, 99])
async def test_bits_the_protocol_has_no_room_for_show_in_features_ok(bit: int) -> None:
    async with scripted() as (backend, drv):
        with pytest.raises(NegotiationError, match="refused FEATURES_OK"):
            await drv.negotiate(Feature.VERSION_1 | Feature(1 << bit), verbatim=True)
        assert not backend.of(2)


async def test_bits_of_the_protocol_are_none_of_the_device() -> None:
    async with scripted() as (backend, drv):
        backend.features |= 1 << 26
        assert await drv.frontend.device_features() == int(OFFER)


async def test_without_status_the_ladder_is_kept_here() -> None:
    limit = ProtocolFeature(PROTOCOL_OFFER) & ~ProtocolFeature.STATUS
    async with scripted(protocol_features=int(limit)) as (backend, drv):
        await drv.negotiate(NO_FEATURES)
        assert await drv.frontend.get_status() == 15
        backend.answers[2] = lambda _: reply(2, u64(1))
        with pytest.raises(NegotiationError, match="refused FEATURES_OK"):
            await drv.negotiate(NO_FEATURES)
        assert not backend.of(39)
        assert not backend.of(40)


async def test_without_reset_device_rings_are_disabled_and_stopped() -> None:
    limit = ProtocolFeature(PROTOCOL_OFFER) & ~ProtocolFeature.RESET_DEVICE
    async with scripted(protocol_features=int(limit)) as (backend, drv):
        await drv.negotiate(NO_FEATURES)
        start = len(backend.messages)
        await drv.reset()
        assert [(m.request, m.payload) for m in backend.messages[start:]] == [
            (18, state(0, 0)), (11, state(0, 0)),
            (18, state(1, 0)), (11, state(1, 0)),
            (39, u64(0)), (40, b""),
        ]  # fmt: skip


# --- memory -----------------------------------------------------------------------------


def pieces(count: int) -> list[RegionSpec]:
    """A large region and small ones above it, in reverse order in the file."""
    small = [
        RegionSpec(0x2_0000_0000 + i * PAGE_SIZE, PAGE_SIZE, (count - i) * PAGE_SIZE)
        for i in range(count - 1)
    ]
    return [RegionSpec(0x1_0000_0000, 8 << 20, (count + 1) * PAGE_SIZE), *small]


async def test_eight_regions_go_in_one_table() -> None:
    with GuestMemory(pieces(8)) as memory:
        async with scripted(memory=memory) as (backend, drv):
            await drv.negotiate(NO_FEATURES, queue_size=16)
            (message,) = backend.of(5)
            regions = table(message)
            assert [(r.gpa, r.size, r.offset) for r in regions] == [
                (r.gpa, r.size, r.mmap_offset) for r in memory.regions
            ]
            assert len(message.fds) == 8
            spans = sorted((r.uva, r.uva + r.size) for r in regions)
            assert all(a[1] <= b[0] for a, b in pairwise(spans))


async def test_more_regions_than_the_back_end_takes_are_a_mistake() -> None:
    with GuestMemory(pieces(9)) as memory:
        async with scripted(memory=memory) as (_, drv):
            with pytest.raises(UsageError, match="9 regions; this back-end takes 8"):
                await drv.negotiate(NO_FEATURES, queue_size=16)


async def test_memory_slots_are_added_and_removed_one_by_one() -> None:
    offer = PROTOCOL_OFFER | ProtocolFeature.CONFIGURE_MEM_SLOTS
    with GuestMemory(pieces(9)) as memory:
        async with scripted(memory=memory, protocol_features=int(offer)) as (backend, drv):
            await drv.negotiate(NO_FEATURES, queue_size=16)
            added = [Region(*struct.unpack("=8xQQQQ", m.payload)) for m in backend.of(37)]
            assert [r.gpa for r in added] == [r.gpa for r in memory.regions]
            assert [len(m.fds) for m in backend.of(37)] == [1] * 9
            start = len(backend.messages)
            await drv.frontend.set_memory(memory.regions[:-2])
            gone = [Region(*struct.unpack("=8xQQQQ", m.payload)) for m in backend.of(38)]
            assert gone == added[-2:], "by address, user address and size"
            await drv.frontend.set_memory(memory.regions[:-1])
            assert backend.names(start) == [38, 38, 37]
            assert struct.unpack("=8xQQQQ", backend.of(37)[-1].payload) == added[-2]


# --- rings while the device runs --------------------------------------------------------


async def test_a_queue_stopped_and_started_again() -> None:
    async with scripted() as (backend, drv):
        await drv.negotiate(NO_FEATURES, queue_size=16)
        queue = drv.transmitqs[0]
        memory = drv.memory
        memory.write(queue.ring.used_ring + 2, (5).to_bytes(2, "little"))
        backend.bases[1] = 7
        start = len(backend.messages)
        assert await drv.transport.stop_queue(1) == (7, 5)
        _kicked(queue.kick_fd)
        await drv.transport.set_queue(replace(queue.setup(), avail_base=7, used_base=5))
        assert backend.names(start) == [11, 13, 8, 10, 9, 14, 12, 18, 1]
        assert backend.of(10)[-1].payload == state(1, 7)
        assert _kicked(queue.kick_fd), "a resumed ring starts with a kick"
        memory.write(queue.ring.used_ring + 2, bytes(2))


async def test_a_queue_without_fds_says_so() -> None:
    async with scripted() as (backend, drv):
        await drv.negotiate(NO_FEATURES)
        setup = replace(drv.queues[0].setup(), kick_fd=-1, call_fd=-1, err_fd=-1)
        await drv.transport.stop_queue(0)
        await drv.transport.set_queue(setup)
        for request in (12, 13):
            assert backend.of(request)[-1][2:] == (u64(0x100), ())
        assert len(backend.of(14)) == 2, "no err fd, no SET_VRING_ERR"


# --- what only a front-end says ---------------------------------------------------------


async def test_rarp_and_mtu() -> None:
    async with scripted() as (backend, drv):
        await drv.frontend.send_rarp(b"\2abcde")
        assert backend.of(19)[0].payload == b"\2abcde\0\0"
        await drv.frontend.set_mtu(9000)
        assert backend.of(20)[0].payload == u64(9000)
        backend.answers[20] = lambda _: reply(20, u64(1))
        with pytest.raises(RefusedError, match="refused NET_SET_MTU"):
            await drv.frontend.set_mtu(3)
    async with scripted(protocol_features=REPLY_ACK) as (_, drv):
        with pytest.raises(UsageError, match="RARP was not negotiated"):
            await drv.frontend.send_rarp(bytes(6))


async def test_a_config_change_message_is_answered_and_noticed() -> None:
    async with scripted() as (backend, drv):
        await drv.negotiate(Feature.STATUS)
        up = [drv.link_up]
        assert backend.request_fd is not None
        backend.config = replace(NET_CONFIG, status=0)
        backend.request_fd.sendall(struct.pack("=III", 2, NEED_REPLY, 0))
        async with asyncio.timeout(5):
            assert (await drv.wait_config_change()).status == 0
        assert [*up, drv.link_up] == [True, False]
        assert backend.request_fd.recv(99, socket.MSG_DONTWAIT) == reply(2, u64(0))


@pytest.mark.parametrize("request_number", [1, 3, 4, 5, 9, 77])
async def test_other_requests_of_the_back_end_are_refused(request_number: int) -> None:
    async with scripted() as (backend, drv):
        await drv.negotiate(NO_FEATURES)
        assert backend.request_fd is not None
        body = bytes(24)
        backend.request_fd.sendall(struct.pack("=III", request_number, 1, 24) + body)
        socket.send_fds(
            backend.request_fd,
            [struct.pack("=III", request_number, NEED_REPLY, 24) + body],
            [0, 1, 2],
        )
        backend.request_fd.sendall(struct.pack("=III", 2, 1, 0))
        async with asyncio.timeout(5):
            await drv.wait_config_change()
        assert drv.frontend.requests_refused >= 2
        answer = backend.request_fd.recv(99, socket.MSG_DONTWAIT)
        assert struct.unpack_from("=III", answer) == (request_number, 5, 8)
        assert any(answer[12:])


async def test_reconnecting_needs_a_path() -> None:
    async with scripted() as (_, drv):
        with pytest.raises(UsageError, match="reconnecting needs a path"):
            await drv.reconnect()


# --- back-ends of other times -------------------------------------------------------------


def _space_of(backend: ScriptedBackend, size: int) -> None:
    """A configuration space of so many bytes; a read beyond it is refused."""

    def answer(message: Message) -> bytes:
        offset, length, _ = struct.unpack_from("=III", message.payload)
        if offset + length > size:
            return reply(24, struct.pack("=III", offset, 0, 0))
        return reply(24, message.payload[:12] + NET_CONFIG.pack()[offset : offset + length])

    backend.answers[24] = answer


@pytest.mark.parametrize("size", [6, 8, 10, 12, 24])
async def test_a_shorter_configuration_space_is_read_as_far_as_it_goes(size: int) -> None:
    async with scripted() as (backend, drv):
        _space_of(backend, size)
        whole = NET_CONFIG.pack()[:size].ljust(28, b"\0")
        assert await drv.transport.read_config(0, 28) == whole
        asked = len(backend.of(24))
        assert await drv.transport.read_config(0, 28) == whole
        assert await drv.transport.read_config(4, 2) == whole[4:6]
        assert len(backend.of(24)) == asked + 2, "the end is known from then on"
        assert await drv.transport.read_config(size, 4) == bytes(4)
        assert len(backend.of(24)) == asked + 2


async def test_a_configuration_space_nobody_may_read_is_a_refusal() -> None:
    async with scripted() as (backend, drv):
        _space_of(backend, 0)
        with pytest.raises(RefusedError, match="28 bytes at 0"):
            await drv.transport.read_config(0, 28)


async def test_an_answer_without_even_a_size_is_a_refusal() -> None:
    async with scripted() as (backend, drv):
        backend.answers[24] = lambda _: reply(24, b"")
        with pytest.raises(RefusedError, match="28 bytes at 0"):
            await drv.transport.read_config(0, 28)


async def test_a_front_end_from_before_protocol_features_does_not_know_of_them() -> None:
    backend = ScriptedBackend()
    sockets = [backend.frontend]
    frontend = VhostUserFrontend(sockets.pop, timeout=5.0, plain=True)
    await frontend.open()
    async with Driver(frontend) as drv:
        await drv.negotiate(NO_FEATURES)
        assert not backend.names().count(15) + backend.names().count(16)
        assert not backend.of(18), "its rings are enabled from their start"
        assert [unpacked(message) for message in backend.of(2)] == [V1]
    backend.close()


def unpacked(message: Message) -> int:
    return int(struct.unpack("=Q", message.payload)[0])
