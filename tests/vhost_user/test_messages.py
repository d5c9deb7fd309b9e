# SPDX-License-Identifier: MIT
"""A test per message: what it is answered, what it asks of the device, how it is refused."""

from __future__ import annotations

import struct

import pytest

from pyvnet.errors import FrontendError
from pyvnet.spec.features import Feature
from pyvnet.spec.vhost_user import (
    F_LOG_ALL,
    F_PROTOCOL_FEATURES,
    ConfigSpace,
    ProtocolFeature,
    RegionDescription,
    Request,
    message,
    pack_memory_table,
    pack_region,
    pack_u64,
    unpack_u64,
)
from pyvnet.transport.vhost_user import actions
from pyvnet.transport.vhost_user.memory import MAX_SLOTS
from pyvnet.transport.vhost_user.messages import PROTOCOL_FEATURES, TABLE
from tests.vhost_user.support import (
    CONTROLQ,
    GPA,
    OFFER,
    SIZE,
    UVA,
    Conversation,
    RefusalError,
    event_fd,
    memory_fd,
    refused,
)

REGION = RegionDescription(GPA, SIZE, UVA, 0)

# In order but for what the test says.
PAYLOADS: dict[int, bytes] = {
    Request.GET_CONFIG: ConfigSpace(0, 8, 0, bytes(8)).pack(),
    Request.SET_CONFIG: ConfigSpace(0, 8, 0, bytes(8)).pack(),
    Request.ADD_MEM_REG: pack_region(RegionDescription(GPA + SIZE, SIZE, UVA + SIZE, 0)),
    Request.REM_MEM_REG: pack_region(REGION),
    Request.SET_BACKEND_REQ_FD: b"",
}


# Features.


def test_get_features_offers_the_protocol_bit_too(front: Conversation) -> None:
    assert front.ask(Request.GET_FEATURES) == OFFER | F_PROTOCOL_FEATURES


@pytest.mark.requirement("VIO-FEAT-10")
def test_set_features_keeps_the_protocol_bit_from_the_driver(front: Conversation) -> None:
    front.tell(Request.SET_FEATURES, int(OFFER) | F_PROTOCOL_FEATURES)
    assert front.took() == [actions.Negotiate(int(OFFER))]


def test_set_features_the_device_refuses(front: Conversation) -> None:
    front.fails[actions.Negotiate] = FrontendError("version_1 not accepted")
    with pytest.raises(FrontendError, match="SET_FEATURES: version_1 not accepted"):
        front.tell(Request.SET_FEATURES, F_PROTOCOL_FEATURES)
    assert front.state.features is None


def test_the_same_features_again_while_rings_run(front: Conversation) -> None:
    """Some front-ends repeat them per queue pair; it is no reset."""
    front.ready()
    front.start(0, 1)
    front.took()
    front.tell(Request.SET_FEATURES, int(OFFER) | F_PROTOCOL_FEATURES)
    assert front.took() == [actions.Negotiate(int(OFFER))]
    assert front.state.ring(0).running


def test_other_features_while_rings_run(front: Conversation) -> None:
    front.ready()
    front.start(0)
    refused(front, Request.SET_FEATURES, pack_u64(int(Feature.VERSION_1) | F_PROTOCOL_FEATURES))


def test_protocol_features(front: Conversation) -> None:
    """Usable before bit 30 was acknowledged; exactly what works is offered."""
    offered = front.ask(Request.GET_PROTOCOL_FEATURES)
    assert offered == PROTOCOL_FEATURES
    front.tell(Request.SET_PROTOCOL_FEATURES, offered)


@pytest.mark.parametrize("bit", [17, 18, 20, 21, 40, 63])
@pytest.mark.requirement("PF-A-16")
def test_a_protocol_feature_nobody_offered(front: Conversation, bit: int) -> None:
    with pytest.raises(FrontendError, match="not offered"):
        front.tell(Request.SET_PROTOCOL_FEATURES, 1 << bit)
    assert front.state.protocol_features == ProtocolFeature(0)


def test_set_protocol_features_with_an_acknowledgement(front: Conversation) -> None:
    """Agreed upon by the very message that asks for one."""
    answer = front.send(
        Request.SET_PROTOCOL_FEATURES, pack_u64(int(ProtocolFeature.REPLY_ACK)), need_reply=True
    )
    assert answer == pack_u64(0)


def test_no_acknowledgement_without_the_feature(front: Conversation) -> None:
    assert front.send(Request.SET_OWNER, need_reply=True) is None


def test_a_message_with_an_answer_is_not_acknowledged_on_top(front: Conversation) -> None:
    front.negotiate()
    answer = front.send(Request.GET_FEATURES, need_reply=True)
    assert answer is not None
    assert unpack_u64(answer) == OFFER | F_PROTOCOL_FEATURES


@pytest.mark.parametrize(
    "request_id",
    [request for request, row in TABLE.items() if row.needs],
    ids=lambda r: Request(r).name,
)
def test_a_message_whose_protocol_feature_was_not_negotiated(
    front: Conversation, request_id: int
) -> None:
    front.tell(Request.SET_PROTOCOL_FEATURES, int(ProtocolFeature.REPLY_ACK))
    row = TABLE[request_id]
    payload = PAYLOADS.get(request_id, b"" if row.empty else pack_u64(1500))
    refused(front, request_id, payload, fds=row.fds[0])
    fds = [event_fd() for _ in range(row.fds[0])]
    with pytest.raises(FrontendError, match="was not negotiated"):
        front.send(request_id, payload, fds)


@pytest.mark.parametrize(
    "request_id",
    [request for request, row in TABLE.items() if row.empty],
    ids=lambda r: Request(r).name,
)
def test_a_message_without_payload_has_none(front: Conversation, request_id: int) -> None:
    front.negotiate()
    with pytest.raises(FrontendError, match="bytes of payload"):
        front.raw(message(request_id, bytes(8)))


@pytest.mark.parametrize(
    ("pairs", "unit", "number"), [(1, 1, 1), (4, 4, 4), (4, 9, 9), (127, 127, 127)]
)
@pytest.mark.requirement("U-47", "PF-A-19")
def test_get_queue_num(pairs: int, unit: int, number: int) -> None:
    with Conversation(pairs=pairs, queue_num=unit) as front:
        front.negotiate()
        assert front.ask(Request.GET_QUEUE_NUM) == number


# Configuration space.


@pytest.mark.parametrize("size", [1, 12, 24, 28, 256])
def test_get_config_answers_with_exactly_the_size_asked_for(front: Conversation, size: int) -> None:
    front.negotiate()
    front.took()
    answer = front.send(Request.GET_CONFIG, ConfigSpace(0, size, 0, bytes(size)).pack())
    assert answer is not None
    config = ConfigSpace.unpack(answer)
    assert (config.offset, config.size, len(config.data)) == (0, size, size)
    assert front.took() == [actions.ReadConfig(0, size)]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(11),
        struct.pack("=III", 0, 0, 0),
        struct.pack("=III", 0, 257, 0) + bytes(257),
        struct.pack("=III", 0, 8, 0) + bytes(7),
        struct.pack("=III", 0, 0xFFFFFFFF, 0),
    ],
)
def test_get_config_malformed(front: Conversation, payload: bytes) -> None:
    front.negotiate()
    with pytest.raises(FrontendError):
        front.send(Request.GET_CONFIG, payload)


def test_set_config_changes_nothing(front: Conversation) -> None:
    """Configuration space of a modern network device is read-only."""
    front.negotiate()
    front.took()
    answer = front.send(Request.SET_CONFIG, ConfigSpace(0, 6, 0, b"\2" * 6).pack(), need_reply=True)
    assert answer == pack_u64(0)
    assert front.took() == []


# Memory.


def test_set_mem_table(front: Conversation) -> None:
    front.negotiate()
    front.took()
    second = RegionDescription(GPA + 2 * SIZE, SIZE, UVA + 4 * SIZE, 0x1000)
    front.give_memory(REGION, second)
    (asked,) = front.took()
    assert isinstance(asked, actions.SetMemory)
    assert [(r.gpa, r.size, r.mmap_offset) for r in asked.regions] == [
        (GPA, SIZE, 0),
        (GPA + 2 * SIZE, SIZE, 0x1000),
    ]


TABLES = {
    "no region": pack_memory_table(()),
    "nine regions": struct.pack("=I4x", 9) + REGION.pack() * 9,
    "2**32-1 regions": struct.pack("=I4x", 0xFFFFFFFF) + REGION.pack(),
    "cut short": pack_memory_table((REGION,))[:-1],
    "one byte more": pack_memory_table((REGION,)) + b"\0",
    "header alone": struct.pack("=I4x", 1),
    "half a header": b"\1\0\0",
    "empty region": pack_memory_table((RegionDescription(GPA, 0, UVA, 0),)),
    "gpa wraps": pack_memory_table((RegionDescription(2**64 - 8, 16, UVA, 0),)),
    "uva wraps": pack_memory_table((RegionDescription(GPA, 16, 2**64 - 8, 0),)),
    "offset wraps": pack_memory_table((RegionDescription(GPA, 2**64 - 1, 0, 8),)),
}


@pytest.mark.parametrize("payload", TABLES.values(), ids=TABLES)
def test_set_mem_table_malformed(front: Conversation, payload: bytes) -> None:
    front.negotiate()
    refused(front, Request.SET_MEM_TABLE, payload, fds=1)


@pytest.mark.parametrize("name", ["gpa", "uva"])
def test_regions_that_overlap(front: Conversation, name: str) -> None:
    front.negotiate()
    far = {"gpa": GPA + 8 * SIZE, "uva": UVA + 8 * SIZE} | {
        name: {"gpa": GPA, "uva": UVA}[name] + 1
    }
    table = pack_memory_table((REGION, RegionDescription(far["gpa"], SIZE, far["uva"], 0)))
    refused(front, Request.SET_MEM_TABLE, table, fds=2)


@pytest.mark.parametrize("fds", [0, 2, 3, 8, 9, 64])
@pytest.mark.requirement("CVE-2019-14818-a")
def test_set_mem_table_with_the_wrong_number_of_fds(front: Conversation, fds: int) -> None:
    front.negotiate()
    refused(front, Request.SET_MEM_TABLE, pack_memory_table((REGION,)), fds=fds)


@pytest.mark.parametrize("room", [1, 7])
def test_set_mem_table_with_room_for_more(front: Conversation, room: int) -> None:
    """User-mode Linux always sends two regions, others all eight."""
    front.negotiate()
    payload = struct.pack("=I4x", 1) + REGION.pack() + bytes(room * 32)
    assert front.send(Request.SET_MEM_TABLE, payload, [memory_fd()], need_reply=True) == pack_u64(0)


def test_a_table_the_engine_refuses_leaves_the_old_one(front: Conversation) -> None:
    front.ready()
    front.fails[actions.SetMemory] = FrontendError("memory regions refused")
    other = RegionDescription(GPA + SIZE, SIZE, UVA, 0)
    with pytest.raises(FrontendError, match="refused"):
        front.give_memory(other)
    assert [region.description for region in front.state.regions] == [REGION]


def test_a_running_ring_does_not_move_with_its_memory(front: Conversation) -> None:
    front.ready()
    front.start(0)
    elsewhere = RegionDescription(GPA + SIZE, SIZE, UVA, 0)
    refused(front, Request.SET_MEM_TABLE, pack_memory_table((elsewhere,)), fds=1)


def test_memory_slots(front: Conversation) -> None:
    front.negotiate()
    assert front.ask(Request.GET_MAX_MEM_SLOTS) == MAX_SLOTS
    regions = [RegionDescription(GPA + i * SIZE, SIZE, UVA + i * SIZE, 0) for i in range(MAX_SLOTS)]
    for region in regions:
        front.send(Request.ADD_MEM_REG, pack_region(region), [memory_fd()])
    one_more = RegionDescription(GPA + MAX_SLOTS * SIZE, SIZE, UVA + MAX_SLOTS * SIZE, 0)
    with pytest.raises(RefusalError, match="slots are taken"):
        front.send(Request.ADD_MEM_REG, pack_region(one_more), [memory_fd()], need_reply=True)
    front.took()
    front.send(Request.REM_MEM_REG, pack_region(regions[3]))
    (asked,) = front.took()
    assert isinstance(asked, actions.SetMemory)
    assert len(asked.regions) == MAX_SLOTS - 1


def test_a_region_added_again_takes_its_own_place(front: Conversation) -> None:
    front.negotiate()
    regions = [RegionDescription(GPA + i * SIZE, SIZE, UVA + i * SIZE, 0) for i in range(MAX_SLOTS)]
    for region in (*regions, *regions):
        front.send(Request.ADD_MEM_REG, pack_region(region), [memory_fd()], need_reply=True)
    assert [held.description for held in front.state.regions] == regions
    first, fds = regions[0], {held.fd.number for held in front.state.regions}
    assert len(fds) == MAX_SLOTS
    assert min(fds) >= 0
    for almost in (
        RegionDescription(first.gpa, first.size, first.uva, 4096),
        RegionDescription(first.gpa, first.size - 4096, first.uva, 0),
    ):
        front.send(Request.REM_MEM_REG, pack_region(regions[-1]))
        refused(front, Request.ADD_MEM_REG, pack_region(almost), fds=1)
        front.send(Request.ADD_MEM_REG, pack_region(regions[-1]), [memory_fd()])
    front.send(Request.REM_MEM_REG, pack_region(first))
    refused(front, Request.REM_MEM_REG, pack_region(first))


def test_rem_mem_reg_of_the_last_region_lets_go_of_all_memory(front: Conversation) -> None:
    front.ready()
    front.took()
    front.send(Request.REM_MEM_REG, pack_region(REGION), [event_fd()])
    assert front.took() == [actions.SetMemory(())]


@pytest.mark.parametrize("fds", [0, 2, 8])
@pytest.mark.requirement("PF-A-09")
def test_add_mem_reg_with_the_wrong_number_of_fds(front: Conversation, fds: int) -> None:
    front.negotiate()
    refused(front, Request.ADD_MEM_REG, pack_region(REGION), fds=fds)


@pytest.mark.parametrize("length", [*range(1, 40), 41, 72])
@pytest.mark.parametrize("request_id", [Request.ADD_MEM_REG, Request.REM_MEM_REG])
@pytest.mark.requirement("PF-A-09", "PF-A-10")
def test_a_memory_region_of_the_wrong_length(
    front: Conversation, request_id: int, length: int
) -> None:
    front.ready()
    refused(front, request_id, (PAYLOADS[request_id] + bytes(40))[:length], fds=1)


@pytest.mark.requirement("PF-A-09")
def test_rem_mem_reg_twice_or_of_something_unknown(front: Conversation) -> None:
    front.ready()
    refused(front, Request.REM_MEM_REG, pack_region(RegionDescription(GPA, SIZE - 1, UVA, 0)))
    front.send(Request.REM_MEM_REG, pack_region(REGION))
    refused(front, Request.REM_MEM_REG, pack_region(REGION))


# The rest.


def test_send_rarp(front: Conversation) -> None:
    front.negotiate()
    front.took()
    front.send(Request.SEND_RARP, b"\x52\x54\0\1\2\3\0\0")
    assert front.took() == [actions.SendRarp(b"\x52\x54\0\1\2\3")]


def test_net_set_mtu(front: Conversation) -> None:
    front.negotiate()
    front.took()
    front.tell(Request.NET_SET_MTU, 1500)
    assert front.took() == [actions.SetMtu(1500)]
    front.fails[actions.SetMtu] = FrontendError("MTU of 9000")
    with pytest.raises(RefusalError):
        front.send(Request.NET_SET_MTU, pack_u64(9000), need_reply=True)


def test_set_backend_req_fd(front: Conversation) -> None:
    front.negotiate()
    front.took()
    front.send(Request.SET_BACKEND_REQ_FD, b"", [event_fd()])
    (opened,) = front.took()
    assert isinstance(opened, actions.OpenBackendChannel)
    refused(front, Request.SET_BACKEND_REQ_FD)
    refused(front, Request.SET_BACKEND_REQ_FD, fds=2)


def test_set_owner_and_reset_owner(front: Conversation) -> None:
    front.ready()
    front.start(0)
    front.took()
    front.send(Request.SET_OWNER)
    assert front.took() == []
    front.send(Request.RESET_OWNER)
    assert front.took() == [actions.StopRing(0)]


def test_status(front: Conversation) -> None:
    front.negotiate()
    for status in (1, 3, 11, 15):
        front.tell(Request.SET_STATUS, status)
        assert front.ask(Request.GET_STATUS) == status
    front.device_status = 0x40
    assert front.ask(Request.GET_STATUS) == 0x4F
    refused(front, Request.SET_STATUS, pack_u64(0x100))


def test_features_ok_needs_features(front: Conversation) -> None:
    front.tell(Request.SET_PROTOCOL_FEATURES, int(PROTOCOL_FEATURES))
    refused(front, Request.SET_STATUS, pack_u64(11))


def test_reset_device(front: Conversation) -> None:
    front.ready()
    front.start(0, 1, CONTROLQ)
    front.took()
    front.send(Request.RESET_DEVICE)
    assert front.took() == [
        actions.StopRing(0),
        actions.StopRing(1),
        actions.StopRing(CONTROLQ),
        actions.ResetDevice(),
    ]
    refused(front, Request.SET_VRING_KICK, pack_u64(0), fds=1)
    assert front.ask(Request.GET_STATUS) == 0


# What is not spoken here.


@pytest.mark.parametrize("request_id", sorted(set(range(256)) - set(TABLE)))
def test_an_unknown_message(front: Conversation, request_id: int) -> None:
    front.negotiate()
    refused(front, request_id)
    refused(front, request_id, bytes(8), fds=3)


def test_log_all_is_not_offered(front: Conversation) -> None:
    assert not front.ask(Request.GET_FEATURES) & F_LOG_ALL


@pytest.mark.parametrize("fds", [1, 2, 8, 64])
@pytest.mark.parametrize(
    "request_id",
    [request for request, row in TABLE.items() if not row.fds[-1]],
    ids=lambda r: Request(r).name,
)
@pytest.mark.requirement("CVE-2019-14818-a", "CVE-2022-0669")
def test_a_message_that_takes_no_fds(front: Conversation, request_id: int, fds: int) -> None:
    front.ready()
    payload = {Request.SET_VRING_ADDR: 40, Request.GET_CONFIG: 12}.get(Request(request_id), 8)
    with pytest.raises(FrontendError, match=f"{fds} file descriptors"):
        front.send(
            request_id, b"" if TABLE[request_id].empty else bytes(payload),
            [event_fd() for _ in range(fds)],
        )  # fmt: skip
