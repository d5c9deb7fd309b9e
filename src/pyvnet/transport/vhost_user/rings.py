# SPDX-License-Identifier: MIT
"""Rings as the front-end describes, starts, enables and stops them; theory in ``state.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvnet.errors import FrontendError, PyvnetError
from pyvnet.spec.ring import MAX_QUEUE_SIZE
from pyvnet.spec.transport import QueueSetup
from pyvnet.spec.vhost_user import (
    VRING_INDEX_MASK,
    VRING_NO_FD,
    VringAddress,
    VringState,
    unpack_u64,
)
from pyvnet.transport.vhost_user.actions import (
    Answer,
    BeginAnew,
    EnableRing,
    MoveRing,
    ReplaceCalls,
    ReplaceKick,
    StartRing,
    Steps,
    StopRing,
    SubSteps,
)
from pyvnet.transport.vhost_user.fds import Fd, close_all, number_of
from pyvnet.transport.vhost_user.state import SessionState, Vring

if TYPE_CHECKING:
    from pyvnet.transport.vhost_user.messages import Message

__all__ = ["Vring", "activate", "guest_addresses", "halt", "halt_all"]

_U16 = 0xFFFF
_LOG_USED_RING = 1


# What a started ring needs.


def guest_addresses(state: SessionState, ring: Vring) -> tuple[int, int, int]:
    """Descriptor table, avail ring and used ring in guest physical addresses."""
    return _translated(state, ring, ring.address)


def _translated(
    state: SessionState, ring: Vring, address: VringAddress | None
) -> tuple[int, int, int]:
    if address is None:
        raise FrontendError(f"vring {ring.index} has no addresses")
    return (
        state.translate(address.desc_table, f"vring {ring.index}: descriptor table"),
        state.translate(address.avail_ring, f"vring {ring.index}: avail ring"),
        state.translate(address.used_ring, f"vring {ring.index}: used ring"),
    )


def activate(state: SessionState, ring: Vring) -> SubSteps:
    """Let a ring run if everything it waits for is there; raises for one that cannot."""
    enabled = _enabled(state, ring)
    if ring.running or not ring.started or enabled is None:
        return
    if not state.driver_may_run or all_disabled(state):
        return
    desc_table, avail_ring, used_ring = guest_addresses(state, ring)
    yield from decide(state, ring)
    setup = QueueSetup(
        ring.index,
        ring.size,
        desc_table,
        avail_ring,
        used_ring,
        number_of(ring.kick),
        number_of(ring.call),
        number_of(ring.err),
        ring.base,
        ring.base,
    )
    yield StartRing(setup, enabled)
    ring.running = True


def _enabled(state: SessionState, ring: Vring) -> bool | None:
    return ring.enabled if state.rings_wait_for_enable else True


def activate_all(state: SessionState) -> SubSteps:
    """Let every ring run that now can, or, if one of them cannot, none of them."""
    waiting = [ring for ring in state.in_order() if not ring.running]
    try:
        for ring in waiting:
            yield from activate(state, ring)
    except PyvnetError:
        for ring in waiting:
            yield from halt(ring)
        raise


def halt(ring: Vring) -> SubSteps:
    """Take a ring out of the engine, noting where it stands; it stays started."""
    if ring.running:
        avail, _used = yield StopRing(ring.index)
        ring.running = False
        ring.base = avail


def halt_all(state: SessionState) -> SubSteps:
    """Stop every ring, as a reset or the end of the conversation does."""
    for ring in state.in_order():
        yield from halt(ring)
        ring.started = ring.disabled_since_start = False
        close_all([ring.kick])
        ring.kick = None


def decide(state: SessionState, starting: Vring) -> SubSteps:
    """Was what armed a reset one?  The position of the control queue tells (U-59).

    A driver that begins anew has its rings at their initial position; so has one
    that never sent a command, which has nothing to lose.  Front-ends that
    describe all rings before they start the first decide it then and there, the
    others when the control queue itself starts.
    """
    if not state.reset_armed:
        return
    controlq = state.controlq
    if controlq is None:
        told = [ring for ring in state.rings.values() if ring.base_is_new or ring is starting]
    else:
        ring = state.ring(controlq)
        if not ring.base_is_new and ring is not starting:
            return
        told = [ring]
    if not any(ring.base for ring in told):
        yield BeginAnew()
    state.reset_armed = False


# Messages.


def set_vring_num(state: SessionState, message: Message) -> Answer:
    """Queue size, in descriptors; not while the ring runs (CVE-2026-5747)."""
    told = VringState.unpack(message.payload)
    ring = state.ring(told.index)
    if ring.started:
        raise FrontendError(f"vring {ring.index} is started: its size cannot change")
    if not 1 <= told.num <= MAX_QUEUE_SIZE or told.num & (told.num - 1):
        raise FrontendError(f"vring {ring.index}: {told.num} is no queue size")
    ring.size = told.num
    return None


def set_vring_addr(state: SessionState, message: Message) -> Steps:
    """Where the ring lies; may come again while it runs, and is then checked like at a start."""
    told = VringAddress.unpack(message.payload)
    ring = state.ring(told.index)
    if told.flags & ~_LOG_USED_RING:
        raise FrontendError(f"vring {ring.index}: unknown address flags {told.flags:#x}")
    if ring.running:
        yield MoveRing(ring.index, *_translated(state, ring, told))
    ring.address = told
    return None


def set_vring_base(state: SessionState, message: Message) -> Answer:
    """Where to go on in the avail ring; not while the ring runs."""
    told = VringState.unpack(message.payload)
    ring = state.ring(told.index)
    if ring.started:
        raise FrontendError(f"vring {ring.index} is started: its position cannot change")
    if told.num > _U16:
        raise FrontendError(f"vring {ring.index}: no split ring has position {told.num:#x}")
    ring.base = told.num
    ring.base_is_new = True
    return None


def get_vring_base(state: SessionState, message: Message) -> Steps:
    """Stop the ring and say where; a ring never set up stands at 0."""
    ring = state.ring(VringState.unpack(message.payload).index)
    was_started = ring.started
    yield from halt(ring)
    ring.started = ring.disabled_since_start = False
    close_all([ring.kick])
    ring.kick = None
    if was_started and state.suspended:
        state.arm_reset()
    return VringState(ring.index, ring.base).pack()


def _fd_message(state: SessionState, message: Message) -> tuple[Vring, Fd | None]:
    """The ring and the fd of a KICK, CALL or ERR message; the fd stays the message's."""
    told = unpack_u64(message.payload)
    if told & ~(VRING_INDEX_MASK | VRING_NO_FD):
        raise FrontendError(f"{message.name} for vring {told:#x}")
    ring = state.ring(told & VRING_INDEX_MASK)
    if bool(told & VRING_NO_FD) == bool(message.fds):
        raise FrontendError(f"{message.name} with {len(message.fds)} fds")
    if not message.fds:
        return ring, None
    if not message.fds[0].notifies:
        raise FrontendError(f"{message.name}: neither an eventfd, a socket nor a pipe")
    return ring, message.fds[0]


def set_vring_kick(state: SessionState, message: Message) -> Steps:
    """Start the ring, or give it another kick fd; without one it is polled."""
    ring, fd = _fd_message(state, message)
    if ring.started:
        if ring.running:
            yield ReplaceKick(ring.index, number_of(fd))
        close_all([ring.kick])
        ring.kick = fd
        message.fds.clear()
        return None
    if state.features is None:
        raise FrontendError(f"vring {ring.index} is started before any SET_FEATURES")
    if not ring.size:
        raise FrontendError(f"vring {ring.index} is started before its size is known")
    guest_addresses(state, ring)
    ring.kick = fd
    ring.started = True
    ring.disabled_since_start = False
    try:
        yield from activate(state, ring)
    except PyvnetError:
        ring.kick = None
        ring.started = False
        raise
    message.fds.clear()
    return None


def set_vring_call(state: SessionState, message: Message) -> Steps:
    """How to notify the driver; can be replaced at any time."""
    ring, fd = _fd_message(state, message)
    if ring.running:
        yield ReplaceCalls(ring.index, number_of(fd), number_of(ring.err))
    close_all([ring.call])
    ring.call = fd
    message.fds.clear()
    return None


def set_vring_err(state: SessionState, message: Message) -> Steps:
    """How to tell that the ring broke."""
    ring, fd = _fd_message(state, message)
    if ring.running:
        yield ReplaceCalls(ring.index, number_of(ring.call), number_of(fd))
    close_all([ring.err])
    ring.err = fd
    message.fds.clear()
    return None


def set_vring_enable(state: SessionState, message: Message) -> Steps:
    """Let the ring carry frames, or not; remembered while it is stopped."""
    told = VringState.unpack(message.payload)
    ring = state.ring(told.index)
    if told.num > 1:
        raise FrontendError(f"vring {ring.index}: enable {told.num}")
    before = ring.enabled, ring.disabled_since_start
    enabled = bool(told.num)
    if ring.running and ring.enabled is not enabled:
        yield EnableRing(ring.index, enabled)
    was_on = ring.disabled_since_start or bool(_enabled(state, ring))
    ring.disabled_since_start = ring.started and was_on and not enabled
    ring.enabled = enabled
    try:
        yield from activate_all(state)
    except PyvnetError:
        ring.enabled, ring.disabled_since_start = before
        raise
    if not enabled and all_disabled(state):
        yield from _park(state)
    return None


def _park(state: SessionState) -> SubSteps:
    """Every ring was disabled: a reset, maybe, by a driver that frees its rings without a word.

    So none is looked at any more, not even to throw away what is sent, until one
    of them is enabled again.
    """
    state.arm_reset()
    for ring in state.in_order():
        yield from halt(ring)


def all_disabled(state: SessionState) -> bool:
    """Whether every started ring, and there is one, was switched off since it started."""
    started = [ring for ring in state.rings.values() if ring.started]
    return bool(started) and all(ring.disabled_since_start for ring in started)
