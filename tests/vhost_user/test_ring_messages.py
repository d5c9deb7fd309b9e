# SPDX-License-Identifier: MIT
"""A test per message about rings; the others are in ``test_messages.py``."""

from __future__ import annotations

import os
import pty

import pytest

from pyvnet.errors import FrontendError, HostError
from pyvnet.spec.vhost_user import (
    Request,
    VringAddress,
    VringState,
    pack_u64,
)
from pyvnet.transport.vhost_user import actions
from tests.vhost_user.support import (
    GPA,
    PAIRS,
    SIZE,
    UVA,
    Conversation,
    RefusalError,
    event_fd,
    memory_fd,
    refused,
)

BEYOND = 2 * PAIRS + 1
NO_RING = (BEYOND, 0x10000, 0x10001, 2**31, 0xFFFFFFFF)


INDEXED = {
    Request.SET_VRING_NUM: lambda index: VringState(index, 256).pack(),
    Request.SET_VRING_BASE: lambda index: VringState(index, 0).pack(),
    Request.SET_VRING_ENABLE: lambda index: VringState(index, 1).pack(),
    Request.SET_VRING_ADDR: lambda index: VringAddress(index, 0, UVA, UVA, UVA).pack(),
}


@pytest.mark.parametrize("index", NO_RING)
@pytest.mark.parametrize("request_id", INDEXED, ids=lambda r: r.name)
@pytest.mark.requirement("CVE-2020-10723", "PF-A-11", "PF-D-04")
def test_a_ring_that_does_not_exist(front: Conversation, request_id: Request, index: int) -> None:
    front.ready()
    refused(front, request_id, INDEXED[request_id](index))


@pytest.mark.parametrize("index", NO_RING)
@pytest.mark.requirement("CVE-2020-10723", "PF-A-12")
def test_the_base_of_a_ring_that_does_not_exist(front: Conversation, index: int) -> None:
    front.ready()
    with pytest.raises(FrontendError, match="does not exist"):
        front.base(index)


@pytest.mark.parametrize("index", [BEYOND, 0xFF, 0x200, 0x10000, 0x10001, 0xFFFFFFFF, 2**63])
@pytest.mark.parametrize(
    "request_id", [Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR]
)
@pytest.mark.requirement("CVE-2020-10723")
def test_an_fd_for_a_ring_that_does_not_exist(
    front: Conversation, request_id: int, index: int
) -> None:
    front.ready()
    refused(front, request_id, pack_u64(index), fds=1)


@pytest.mark.parametrize(("flag", "fds"), [(0, 0), (0, 2), (0x100, 1), (0x100, 2), (0, 64)])
@pytest.mark.parametrize(
    "request_id", [Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR]
)
@pytest.mark.requirement("CVE-2019-14818-a")
def test_fds_and_the_flag_for_none_must_agree(
    front: Conversation, request_id: int, flag: int, fds: int
) -> None:
    front.ready()
    front.describe(0)
    refused(front, request_id, pack_u64(flag), fds=fds)


def odd_fd(kind: str) -> int:
    match kind:
        case "regular file":
            return memory_fd()
        case "directory":
            return os.open("/", os.O_RDONLY)
        case "device":
            return os.open(os.devnull, os.O_RDWR)
        case _:
            ours, theirs = pty.openpty()
            os.close(theirs)
            return ours


@pytest.mark.parametrize("kind", ["regular file", "directory", "device", "terminal"])
@pytest.mark.parametrize(
    "request_id", [Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR]
)
def test_an_fd_that_tells_nobody_anything(front: Conversation, request_id: int, kind: str) -> None:
    """Reading or writing one of these could wait for as long as its owner likes."""
    front.ready()
    front.describe(0)
    front.took()
    with pytest.raises(RefusalError, match="neither an eventfd, a socket nor a pipe"):
        front.send(request_id, pack_u64(0), [odd_fd(kind)], need_reply=True)
    assert front.took() == []


@pytest.mark.parametrize("size", [1, 2, 256, 1024, 32768])
def test_set_vring_num(front: Conversation, size: int) -> None:
    front.ready()
    front.describe(0, size=size)
    front.kick(0)
    front.enable(0)
    (started,) = (a for a in front.took() if isinstance(a, actions.StartRing))
    assert started.setup.size == size


@pytest.mark.parametrize("size", [0, 3, 100, 32769, 65535, 65536, 2**31, 0xFFFFFFFF])
@pytest.mark.requirement("CVE-2019-14818-b")
def test_a_size_no_ring_has(front: Conversation, size: int) -> None:
    front.ready()
    front.describe(0, size=64)
    refused(front, Request.SET_VRING_NUM, VringState(0, size).pack())
    assert front.state.ring(0).size == 64


@pytest.mark.requirement("CVE-2026-5747")
def test_size_and_position_of_a_started_ring_do_not_change(front: Conversation) -> None:
    front.ready()
    front.start(0)
    refused(front, Request.SET_VRING_NUM, VringState(0, 64).pack())
    refused(front, Request.SET_VRING_BASE, VringState(0, 7).pack())


@pytest.mark.requirement("CVE-2026-5747")
def test_addresses_of_a_running_ring_are_checked_again(front: Conversation) -> None:
    front.ready()
    front.start(0)
    front.took()
    front.send(
        Request.SET_VRING_ADDR,
        VringAddress(0, 0, UVA + 0x8000, UVA + 0xA000, UVA + 0x9000).pack(),
    )
    assert front.took() == [actions.MoveRing(0, GPA + 0x8000, GPA + 0x9000, GPA + 0xA000)]
    before = front.state.ring(0).address
    refused(front, Request.SET_VRING_ADDR, VringAddress(0, 0, UVA + SIZE, UVA, UVA).pack())
    front.fails[actions.MoveRing] = FrontendError("outside guest memory")
    with pytest.raises(FrontendError, match="outside guest memory"):
        front.send(Request.SET_VRING_ADDR, VringAddress(0, 0, UVA, UVA, UVA).pack())
    assert front.state.ring(0).address == before


@pytest.mark.parametrize("base", [0, 1, 0x7FFF, 0x8000, 0xFFFF])
def test_set_vring_base(front: Conversation, base: int) -> None:
    front.ready()
    front.describe(0, base=base)
    assert front.base(0) == base
    front.kick(0)
    front.enable(0)
    (started,) = (a for a in front.took() if isinstance(a, actions.StartRing))
    assert (started.setup.avail_base, started.setup.used_base) == (base, base)


@pytest.mark.parametrize("base", [0x10000, 0x80008000, 0xFFFFFFFF])
def test_a_position_no_split_ring_has(front: Conversation, base: int) -> None:
    front.ready()
    refused(front, Request.SET_VRING_BASE, VringState(0, base).pack())


@pytest.mark.requirement("PF-A-12")
def test_get_vring_base_first_thing(front: Conversation) -> None:
    assert [front.base(index) for index in range(BEYOND)] == [0] * BEYOND


def test_get_vring_base_stops_the_ring_and_says_where(front: Conversation) -> None:
    front.ready()
    front.start(0, 1)
    front.positions = {0: 17}
    front.took()
    assert front.base(0) == 17
    assert front.took() == [actions.StopRing(0)]
    assert front.base(0) == 17
    assert front.took() == []


@pytest.mark.parametrize("enable", [2, 0xFFFFFFFF])
def test_enable_with_a_value_that_is_neither(front: Conversation, enable: int) -> None:
    front.ready()
    refused(front, Request.SET_VRING_ENABLE, VringState(0, enable).pack())


@pytest.mark.parametrize(
    "request_id",
    [
        Request.SET_VRING_NUM,
        Request.SET_VRING_BASE,
        Request.SET_VRING_ADDR,
        Request.SET_VRING_ENABLE,
        Request.SET_VRING_KICK,
        Request.SET_FEATURES,
        Request.SET_PROTOCOL_FEATURES,
        Request.SET_STATUS,
        Request.NET_SET_MTU,
        Request.SEND_RARP,
    ],
    ids=lambda r: r.name,
)
@pytest.mark.parametrize("length", [0, 1, 7, 9, 39, 41, 4096])
def test_a_payload_of_the_wrong_length(
    front: Conversation, request_id: Request, length: int
) -> None:
    front.ready()
    refused(front, request_id, bytes(length), fds=int(request_id is Request.SET_VRING_KICK))


def test_a_kick_before_the_ring_was_described(front: Conversation) -> None:
    front.ready()
    refused(front, Request.SET_VRING_KICK, pack_u64(0), fds=1)
    front.send(Request.SET_VRING_NUM, VringState(0, 256).pack())
    refused(front, Request.SET_VRING_KICK, pack_u64(0), fds=1)


def test_a_kick_before_the_size_is_known(front: Conversation) -> None:
    front.ready()
    front.send(Request.SET_VRING_ADDR, VringAddress(0, 0, UVA, UVA, UVA).pack())
    refused(front, Request.SET_VRING_KICK, pack_u64(0), fds=1)


@pytest.mark.parametrize("flags", [2, 3, 2**31, 0xFFFFFFFF])
def test_address_flags_nobody_defined(front: Conversation, flags: int) -> None:
    front.ready()
    refused(front, Request.SET_VRING_ADDR, VringAddress(0, flags, UVA, UVA, UVA).pack())
    assert front.state.ring(0).address is None


def test_a_kick_before_features(front: Conversation) -> None:
    front.negotiate()
    front.give_memory()
    front.state.features = None
    front.describe(0)
    refused(front, Request.SET_VRING_KICK, pack_u64(0), fds=1)


def test_a_ring_outside_memory_does_not_start(front: Conversation) -> None:
    front.ready()
    front.describe(0)
    front.send(Request.SET_VRING_ADDR, VringAddress(0, 0, UVA + SIZE, UVA, UVA).pack())
    refused(front, Request.SET_VRING_KICK, pack_u64(0), fds=1)
    assert not front.state.ring(0).started


@pytest.mark.parametrize("error", [FrontendError("misaligned"), HostError("no memory")])
def test_a_ring_the_engine_refuses_stays_stopped(front: Conversation, error: Exception) -> None:
    front.ready()
    front.describe(0)
    front.enable(0)
    front.fails[actions.StartRing] = error
    with pytest.raises(FrontendError):
        front.kick(0)
    assert not front.state.ring(0).started
    assert front.state.ring(0).kick is None


@pytest.mark.requirement("PF-A-17")
def test_call_and_err_of_a_running_ring_can_be_replaced(front: Conversation) -> None:
    front.ready()
    front.start(0)
    front.took()
    front.send(Request.SET_VRING_CALL, pack_u64(0), [call := event_fd()])
    front.send(Request.SET_VRING_ERR, pack_u64(0), [err := event_fd()])
    front.tell(Request.SET_VRING_CALL, 0x100)
    assert front.took() == [
        actions.ReplaceCalls(0, call, -1),
        actions.ReplaceCalls(0, call, err),
        actions.ReplaceCalls(0, -1, err),
    ]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(call)


def test_a_second_kick_fd_replaces_the_first(front: Conversation) -> None:
    front.ready()
    front.start(0)
    first = front.state.ring(0).kick
    front.took()
    front.kick(0)
    assert [type(action) for action in front.took()] == [actions.ReplaceKick]
    assert first.number == -1
    front.kick(0, fd=False)
    assert front.took() == [actions.ReplaceKick(0, -1)]
