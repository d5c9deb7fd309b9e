# SPDX-License-Identifier: MIT
"""Each thing a message asks for fails once: it is refused, and taken when it comes again.

The third form of docs/peer-faults.md, for the session: ``static`` is in
``test_messages.py`` and ``test_ring_messages.py``; ``flip`` cannot be, as a
message is copied before it is looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from pyvnet.errors import FrontendError, HostError
from pyvnet.spec.vhost_user import (
    F_PROTOCOL_FEATURES,
    VRING_NO_FD,
    ConfigSpace,
    RegionDescription,
    Request,
    VringAddress,
    VringState,
    pack_memory_table,
    pack_region,
    pack_u64,
)
from pyvnet.transport.vhost_user import actions
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
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FEATURES: Final = pack_u64(int(OFFER) | F_PROTOCOL_FEATURES)
MORE: Final = RegionDescription(GPA + SIZE, SIZE, UVA + SIZE, 0)


class Line(NamedTuple):
    """One message of the script."""

    request: Request
    payload: bytes = b""
    fds: tuple[Callable[[], int], ...] = ()


def ring(index: int) -> Iterator[Line]:
    at = UVA + index * 0x4000
    yield Line(Request.SET_VRING_NUM, VringState(index, 256).pack())
    yield Line(Request.SET_VRING_BASE, VringState(index, 0).pack())
    address = VringAddress(index, 0, at, at + 0x2000, at + 0x1000)
    yield Line(Request.SET_VRING_ADDR, address.pack())
    yield Line(Request.SET_VRING_KICK, pack_u64(index), (event_fd,))
    yield Line(Request.SET_VRING_ENABLE, VringState(index, 1).pack())


def script() -> Iterator[Line]:
    """Every message that asks for something, with rings that run and without."""
    yield Line(Request.SET_PROTOCOL_FEATURES, pack_u64(int(PROTOCOL_FEATURES)))
    yield Line(Request.SET_FEATURES, FEATURES)
    yield Line(Request.SET_BACKEND_REQ_FD, b"", (event_fd,))
    yield Line(Request.SET_STATUS, pack_u64(11))
    yield Line(
        Request.SET_MEM_TABLE,
        pack_memory_table((RegionDescription(GPA, SIZE, UVA, 0),)),
        (memory_fd,),
    )
    for index in (0, 1, CONTROLQ):
        yield from ring(index)
    yield Line(Request.SET_STATUS, pack_u64(15))
    yield Line(Request.NET_SET_MTU, pack_u64(1400))
    yield Line(Request.SEND_RARP, bytes(8))
    yield Line(Request.ADD_MEM_REG, pack_region(MORE), (memory_fd,))
    yield Line(Request.SET_VRING_CALL, pack_u64(0), (event_fd,))
    yield Line(Request.SET_VRING_ERR, pack_u64(0), (event_fd,))
    yield Line(Request.SET_VRING_KICK, pack_u64(0), (event_fd,))
    yield Line(Request.SET_VRING_KICK, pack_u64(1 | VRING_NO_FD))
    address = VringAddress(1, 0, UVA + SIZE, UVA + SIZE + 0x2000, UVA + SIZE + 0x1000)
    yield Line(Request.SET_VRING_ADDR, address.pack())
    yield Line(Request.SET_FEATURES, FEATURES)
    yield Line(Request.SET_VRING_ENABLE, VringState(1, 0).pack())
    yield Line(Request.SET_VRING_ENABLE, VringState(0, 0).pack())
    yield Line(Request.SET_VRING_ENABLE, VringState(CONTROLQ, 0).pack())  # all of them: parked
    yield Line(Request.SET_VRING_ENABLE, VringState(1, 1).pack())
    yield Line(Request.GET_CONFIG, ConfigSpace(0, 8, 0, bytes(8)).pack())
    yield Line(Request.GET_STATUS)
    yield Line(Request.GET_VRING_BASE, VringState(0, 0).pack())
    yield Line(Request.SET_STATUS, pack_u64(0))
    yield Line(Request.RESET_DEVICE)


class Failing(Conversation):
    """A world in which one action, by its number, fails once."""

    def __init__(self, fails_at: int, error: Exception) -> None:
        super().__init__()
        self.count = 0
        self.fails_at, self.error = fails_at, error

    def perform(self, action: actions.Action) -> Any:
        self.count += 1
        if self.count == self.fails_at:
            raise self.error
        return super().perform(action)

    def say(self, line: Line) -> None:
        self.send(line.request, line.payload, [make() for make in line.fds], need_reply=True)


def snapshot(front: Conversation) -> object:
    """All that was agreed, without the numbers of fds."""
    state = front.state
    rings = [
        (
            *(ring.index, ring.size, ring.address, ring.base, ring.base_is_new),
            *(ring.kick is None, ring.call is None, ring.err is None),
            *(ring.enabled, ring.disabled_since_start, ring.started, ring.running),
        )
        for ring in state.in_order()
    ]
    regions = [region.description for region in state.regions]
    return state.features, state.status, state.status_used, state.reset_armed, regions, rings


def running(front: Conversation) -> set[int]:
    """Rings the engine has."""
    return {ring.index for ring in front.state.in_order() if ring.running}


def total() -> int:
    """Actions of the whole script."""
    with Failing(0, HostError("never")) as front:
        for line in script():
            front.say(line)
        return front.count


TOTAL: Final = total()


def test_the_script_asks_for_everything() -> None:
    with Failing(0, HostError("never")) as front:
        for line in script():
            front.say(line)
        asked = {type(action) for action in front.actions}
    assert asked == set(actions.Action.__args__)


# A ring that was off, or stopped, before the failure stays so until the message is repeated.
NOT_UNDONE: Final = {Request.SET_VRING_ENABLE, Request.SET_STATUS, Request.RESET_DEVICE}


def open_fds() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("error", [FrontendError("of yours"), HostError("of ours")], ids=str)
@pytest.mark.parametrize("number", range(1, TOTAL + 1))
@pytest.mark.requirement("PF-F-08")
def test_what_fails_once_is_refused_and_then_taken(number: int, error: Exception) -> None:
    before = open_fds()
    with Failing(0, error) as whole, Failing(number, error) as front:
        for line in script():
            was, was_running = snapshot(front), running(front)
            try:
                front.say(line)
            except RefusalError:
                assert number <= front.count
                assert running(front) <= was_running, "a refused message started a ring"
                assert snapshot(front) == was or line.request in NOT_UNDONE
                front.say(line)
            except FrontendError:
                # It has an answer of its own, so it cannot be refused: the end.
                assert TABLE[line.request].answers
                break
            whole.say(line)
            assert snapshot(front) == snapshot(whole), line.request.name
    assert open_fds() == before


@pytest.mark.parametrize("number", range(1, 5))
@pytest.mark.requirement("PF-F-07", "PF-F-08")
def test_the_end_lets_go_of_everything_whatever_fails(number: int) -> None:
    before = open_fds()
    front = Failing(0, HostError("of ours"))
    for line in script():
        if line.request == Request.ADD_MEM_REG:
            break
        front.say(line)
    front.took()
    front.fails_at = front.count + number
    with pytest.raises(HostError, match="of ours"):
        front.close()
    asked = front.took()
    assert len(asked) == 3, "three rings and the memory, but for the one that failed"
    assert actions.SetMemory(()) in asked or number == 4
    assert open_fds() == before
