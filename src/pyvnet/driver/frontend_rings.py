# SPDX-License-Identifier: MIT
"""The messages that hand a virtqueue to a back-end, start it and stop it.

A ring is *set up* (addresses, position, call and err fd), then *started*: the
kick fd goes over, the ring is enabled, and one kick is sent, because a ring
starts when its kick fd becomes readable and the driver, which has kicked before
or sees no need to, may never do it again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pyvnet.driver.errors import DeviceViolation
from pyvnet.errors import UsageError
from pyvnet.spec import vhost_user as vu

if TYPE_CHECKING:
    from pyvnet.driver.frontend_link import Link
    from pyvnet.driver.frontend_memory import MemoryMap
    from pyvnet.spec.transport import QueueSetup

_STATE_REPLY: Final = frozenset({8})
_SPLIT_MASK: Final = 0xFFFF


@dataclass(slots=True)
class Ring:
    """One virtqueue the back-end knows, with fds of our own.

    Attributes:
        setup: as the driver gave it, but for the fds.
        started: its kick fd was handed over.
    """

    setup: QueueSetup
    started: bool = False

    @classmethod
    def keep(cls, setup: QueueSetup) -> Ring:
        """Duplicate the fds, which stay the driver's."""
        if not 0 <= setup.index <= vu.VRING_INDEX_MASK:
            raise UsageError(f"virtqueue {setup.index}: the protocol's indexes end at 255")
        fds: list[int] = []
        try:
            for fd in (setup.kick_fd, setup.call_fd, setup.err_fd):
                fds += [fd if fd < 0 else os.dup(fd)]
        except OSError:
            _close(fds)
            raise
        kick, call, err = fds
        return cls(replace(setup, kick_fd=kick, call_fd=call, err_fd=err))

    def kick(self) -> None:
        """Notify the device."""
        _signal(self.setup.kick_fd)

    def interrupt(self) -> None:
        """Notify the driver in the device's place."""
        _signal(self.setup.call_fd)

    def close(self) -> None:
        """Close our fds."""
        _close([self.setup.kick_fd, self.setup.call_fd, self.setup.err_fd])


def _signal(fd: int) -> None:
    if fd >= 0:
        with suppress(BlockingIOError):  # full: it is readable anyway
            os.eventfd_write(fd, 1)


def _close(fds: list[int]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


async def set_up(link: Link, memory: MemoryMap, ring: Ring) -> None:
    """Everything but what starts it."""
    setup = ring.setup
    index = setup.index
    await _set_fd(link, vu.Request.SET_VRING_CALL, index, setup.call_fd)
    await link.tell(vu.Request.SET_VRING_NUM, vu.VringState(index, setup.size).pack())
    await link.tell(vu.Request.SET_VRING_BASE, vu.VringState(index, setup.avail_base).pack())
    addresses = vu.VringAddress(
        index,
        0,
        memory.translate(setup.desc_table),
        memory.translate(setup.used_ring),
        memory.translate(setup.avail_ring),
    )
    await link.tell(vu.Request.SET_VRING_ADDR, addresses.pack())
    if setup.err_fd >= 0:
        await _set_fd(link, vu.Request.SET_VRING_ERR, index, setup.err_fd)


async def hand_kick(link: Link, ring: Ring) -> None:
    """From the next kick on, the ring runs."""
    await _set_fd(link, vu.Request.SET_VRING_KICK, ring.setup.index, ring.setup.kick_fd)
    ring.started = True


async def enable(link: Link, ring: Ring, *, on: bool) -> None:
    """SET_VRING_ENABLE; only with protocol features, else rings are always enabled."""
    state = vu.VringState(ring.setup.index, int(on))
    await link.tell(vu.Request.SET_VRING_ENABLE, state.pack())


async def stop(link: Link, index: int) -> int:
    """GET_VRING_BASE: stop one ring; returns the next avail entry it would have taken."""
    answer = await link.call(
        vu.Request.GET_VRING_BASE, vu.VringState(index, 0).pack(), sizes=_STATE_REPLY
    )
    state = vu.VringState.unpack(answer)
    if state.index != index or state.num > _SPLIT_MASK:
        raise DeviceViolation(f"GET_VRING_BASE of virtqueue {index} answered {state}")
    return state.num


async def _set_fd(link: Link, request: vu.Request, index: int, fd: int) -> None:
    if fd < 0:
        await link.tell(request, vu.pack_u64(index | vu.VRING_NO_FD))
    else:
        await link.tell(request, vu.pack_u64(index), (fd,))
