# SPDX-License-Identifier: MIT
"""The stream itself: cut anywhere, garbage, floods of fds; a session answers or hangs up."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvnet.errors import FrontendError
from pyvnet.spec.vhost_user import (
    F_PROTOCOL_FEATURES,
    HEADER,
    MAX_PAYLOAD,
    RegionDescription,
    Request,
    VringAddress,
    VringState,
    message,
    pack_memory_table,
    pack_u64,
)
from pyvnet.transport.vhost_user.messages import PROTOCOL_FEATURES
from tests.vhost_user.support import GPA, OFFER, SIZE, UVA, Conversation, event_fd, memory_fd


def whole_conversation() -> bytes:
    """Without messages that need fds."""
    parts = [
        message(Request.GET_FEATURES),
        message(Request.GET_PROTOCOL_FEATURES),
        message(Request.SET_PROTOCOL_FEATURES, pack_u64(int(PROTOCOL_FEATURES))),
        message(Request.SET_OWNER, need_reply=True),
        message(Request.SET_FEATURES, pack_u64(int(OFFER) | F_PROTOCOL_FEATURES), need_reply=True),
        message(Request.SET_VRING_NUM, VringState(0, 256).pack()),
        message(Request.SET_VRING_ADDR, VringAddress(0, 0, UVA, UVA, UVA).pack()),
        message(Request.GET_VRING_BASE, VringState(0, 0).pack()),
    ]
    return b"".join(parts)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 11, 13])
def test_a_message_may_come_in_pieces(step: int) -> None:
    data = whole_conversation()
    with Conversation() as front, Conversation() as other:
        pieces = b"".join(front.raw(data[at : at + step]) for at in range(0, len(data), step))
        assert pieces == other_answers(other, data)


def other_answers(front: Conversation, data: bytes) -> bytes:
    answers = b""
    while data:
        size = HEADER.size + HEADER.unpack_from(data)[2]
        answers += front.raw(data[:size])
        data = data[size:]
    return answers


@pytest.mark.requirement("PF-A-08")
def test_the_end_may_come_after_any_byte() -> None:
    data = message(
        Request.SET_MEM_TABLE, pack_memory_table((RegionDescription(GPA, SIZE, UVA, 0),))
    )
    before = fd_count()
    for length in range(1, len(data)):
        with Conversation() as front:
            front.negotiate()
            assert front.raw(data[:length], [memory_fd()]) == b""
    assert fd_count() == before


@pytest.mark.parametrize(
    ("flags", "size", "what"),
    [
        (0, 0, "version 0"),
        (2, 0, "version 2"),
        (3, 0, "version 3"),
        (5, 8, "a reply to nothing"),
        (1, MAX_PAYLOAD + 1, "of payload"),
        (1, 0xFFFFFFFF, "of payload"),
    ],
)
@pytest.mark.requirement("PF-A-08")
def test_a_header_nothing_can_be_made_of(flags: int, size: int, what: str) -> None:
    with Conversation() as front, pytest.raises(FrontendError, match=what):
        front.raw(struct.pack("=III", Request.GET_FEATURES, flags, size), [event_fd()])


@pytest.mark.parametrize("at", [1, 11, 12, 19])
@pytest.mark.requirement("CVE-2020-10717")
def test_fds_come_with_the_first_byte_or_not_at_all(front: Conversation, at: int) -> None:
    """Else a message of many pieces could bring more than the process may hold."""
    data = message(Request.SET_VRING_CALL, pack_u64(0))
    assert front.raw(data[:at]) == b""
    with pytest.raises(FrontendError, match="in the middle of a message"):
        front.raw(data[at:], [event_fd()])


def test_flags_nobody_defined_are_ignored(front: Conversation) -> None:
    assert front.raw(struct.pack("=III", Request.GET_FEATURES, 0xFFFFFFF1, 0))


def fd_count() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("request_id", range(1, 45))
@pytest.mark.requirement("CVE-2019-14818-a")
def test_surplus_fds_are_closed(front: Conversation, request_id: int) -> None:
    front.ready()
    before = fd_count()
    for count in (0, 1, 2, 3, 9, 64):
        for length in (0, 8, 12, 40):
            with contextlib.suppress(FrontendError):
                front.raw(message(request_id, bytes(length)), [event_fd() for _ in range(count)])
    front.close()
    assert fd_count() <= before


REQUESTS = st.one_of(st.sampled_from(list(Request)), st.integers(0, 2**32 - 1))
NUMBERS = st.one_of(
    st.integers(0, 5), st.sampled_from([0xFF, 0x100, 0x101, 2**31, 2**32 - 1, GPA, SIZE])
)
PAYLOADS = st.one_of(
    st.binary(max_size=64),
    st.builds(pack_u64, st.one_of(NUMBERS, st.integers(0, 2**64 - 1))),
    st.builds(lambda i, n: VringState(i, n).pack(), NUMBERS, NUMBERS),
    st.builds(
        lambda i, f, a, b, c: VringAddress(i, f, a, b, c).pack(),
        NUMBERS, st.integers(0, 2), *[st.integers(UVA, UVA + 2 * SIZE)] * 3,
    ),
    st.builds(
        lambda g, s, u, o: pack_memory_table((RegionDescription(g, s, u, o),)),
        *[st.one_of(NUMBERS, st.integers(0, 2**64 - 1))] * 4,
    ),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(REQUESTS, PAYLOADS, st.integers(0, 3), st.booleans()), max_size=20))
def test_any_messages_get_an_answer_or_the_end(
    script: list[tuple[int, bytes, int, bool]],
) -> None:
    """Nothing but FrontendError comes out, and no fd is left."""
    before = fd_count()
    with Conversation() as front:
        front.ready()
        for request, payload, fds, need_reply in script:
            with contextlib.suppress(FrontendError):
                front.raw(
                    message(request, payload, need_reply=need_reply),
                    [event_fd() for _ in range(fds)],
                )
    assert fd_count() == before


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=256))
def test_any_bytes_get_an_answer_or_the_end(data: bytes) -> None:
    with Conversation() as front, contextlib.suppress(FrontendError):
        front.raw(data)
