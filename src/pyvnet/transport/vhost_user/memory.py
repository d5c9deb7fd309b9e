# SPDX-License-Identifier: MIT
"""Guest memory as the front-end describes it: SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG.

The engine checks what only it can (files, their sizes, what the kernel lets be
mapped) and keeps the old table if it refuses the new one; so does the session.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from pyvnet.errors import FrontendError
from pyvnet.spec.transport import MemoryRegion
from pyvnet.spec.vhost_user import pack_u64, unpack_memory_table, unpack_region
from pyvnet.transport.vhost_user import rings
from pyvnet.transport.vhost_user.actions import Answer, SetMemory, Steps, SubSteps
from pyvnet.transport.vhost_user.fds import close_all
from pyvnet.transport.vhost_user.state import Region, SessionState

if TYPE_CHECKING:
    from pyvnet.spec.vhost_user import RegionDescription
    from pyvnet.transport.vhost_user.messages import Message

MAX_SLOTS = 32
_END = 1 << 64


def set_mem_table(state: SessionState, message: Message) -> Steps:
    """Replace all regions at once."""
    descriptions = unpack_memory_table(message.payload)
    if len(descriptions) != len(message.fds):
        raise FrontendError(f"{len(descriptions)} memory regions and {len(message.fds)} fds")
    new = [Region(what, fd) for what, fd in zip(descriptions, message.fds, strict=True)]
    yield from _replace(state, new)
    message.fds.clear()
    return None


def add_mem_reg(state: SessionState, message: Message) -> Steps:
    """Add one region.

    QEMU up to 8.0 adds every region once for each queue pair: one that is there
    takes the place of itself.
    """
    description = unpack_region(message.payload)
    others = [region for region in state.regions if region.description != description]
    if len(others) == MAX_SLOTS:
        raise FrontendError(f"all {MAX_SLOTS} memory slots are taken")
    yield from _replace(state, [*others, Region(description, message.fds[0])])
    message.fds.clear()
    return None


def rem_mem_reg(state: SessionState, message: Message) -> Steps:
    """Remove the region with this guest address, user address and size."""
    gone = unpack_region(message.payload)
    kept = [
        region
        for region in state.regions
        if (region.description.gpa, region.description.uva, region.description.size)
        != (gone.gpa, gone.uva, gone.size)
    ]
    if len(kept) == len(state.regions):
        raise FrontendError(f"no memory region of {gone.size:#x} bytes at {gone.gpa:#x}")
    yield from _replace(state, kept)
    return None


def get_max_mem_slots(_state: SessionState, _message: Message) -> Answer:
    """How many regions ADD_MEM_REG may come to."""
    return pack_u64(MAX_SLOTS)


def _replace(state: SessionState, new: list[Region]) -> SubSteps:
    _check([region.description for region in new])
    _check_rings_stay(state, new)
    yield SetMemory(
        tuple(
            MemoryRegion(
                region.description.gpa,
                region.description.size,
                region.description.mmap_offset,
                region.fd.number,
            )
            for region in new
        )
    )
    kept = {id(region.fd) for region in new}
    close_all(region.fd for region in state.regions if id(region.fd) not in kept)
    state.regions = new


def _check_rings_stay(state: SessionState, new: list[Region]) -> None:
    """A running ring may lose its memory, which breaks it, but not find itself elsewhere."""
    after = SessionState(state.offer, regions=new)
    for ring in state.in_order():
        if not ring.running:
            continue
        try:
            moved = rings.guest_addresses(state, ring) != rings.guest_addresses(after, ring)
        except FrontendError:
            continue
        if moved:
            raise FrontendError(f"the memory of vring {ring.index}, which runs, would move")


def _check(regions: list[RegionDescription]) -> None:
    for region in regions:
        if not region.size:
            raise FrontendError(f"empty memory region at {region.gpa:#x}")
        ends = (region.gpa, region.uva, region.mmap_offset)
        if any(start + region.size > _END for start in ends):
            raise FrontendError(f"memory region at {region.gpa:#x} wraps around")
    for name in ("gpa", "uva"):
        ordered = sorted(regions, key=lambda region: int(getattr(region, name)))
        for before, after in pairwise(ordered):
            if getattr(before, name) + before.size > getattr(after, name):
                raise FrontendError(f"memory regions overlap at {name} {getattr(after, name):#x}")
