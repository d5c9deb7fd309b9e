# SPDX-License-Identifier: MIT
"""The steering program's map as the device writes it; a file of its size stands for it here."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.datapath.native import DEFAULT, Native
from pyvnet.datapath.policy import Policy
from pyvnet.datapath.steering_map import SteeringMap
from pyvnet.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

FFI, LIB = DEFAULT
FAIL_SETTLE = 11  # a site of test_hooks.h
SIZE = FFI.sizeof("struct vnet_steering_map")
HEADER = struct.pack("<IIQ", LIB.VNET_STEERING_MAP_MAGIC, LIB.VNET_STEERING_MAP_LAYOUT, 7)
SLOT = (SIZE - 64) // LIB.VNET_STEERING_SLOTS


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("steering")
    os.truncate(fd, -(-SIZE // 4096) * 4096)
    os.pwrite(fd, HEADER, 0)
    yield fd
    os.close(fd)


def policy(unclassified: int, native: Native = DEFAULT) -> Policy:
    return Policy.create(
        mode="rss", hash_types=0, key=b"", unclassified_queue=unclassified, native=native
    )


def active(fd: int) -> int:
    return int.from_bytes(os.pread(fd, 4, 16), "little")


def slot(fd: int, number: int) -> bytes:
    return os.pread(fd, SLOT, 64 + number * SLOT)


def unclassified(fd: int, number: int) -> int:
    return int.from_bytes(slot(fd, number)[16:18], "little")


@pytest.mark.requirement("U-57")
def test_a_snapshot_becomes_the_active_one_and_the_one_before_stays_as_it_was(file: int) -> None:
    with SteeringMap(file) as steering, policy(3) as first, policy(5) as second:
        steering.publish(first)
        before, kept = active(file), slot(file, active(file))
        assert unclassified(file, before) == 3
        steering.publish(second)
        assert active(file) != before
        assert unclassified(file, active(file)) == 5
        assert slot(file, before) == kept


@pytest.mark.requirement("U-57")
def test_a_slot_is_written_again_only_after_every_other_one(file: int) -> None:
    with SteeringMap(file) as steering:
        seen = []
        for number in range(3 * LIB.VNET_STEERING_SLOTS):
            with policy(number) as snapshot:
                steering.publish(snapshot)
            seen.append(active(file))
            assert unclassified(file, seen[-1]) == number
        assert seen == [(seen[0] + i) % LIB.VNET_STEERING_SLOTS for i in range(len(seen))]


def test_what_stands_in_front_of_the_slots_is_left_alone(file: int) -> None:
    with SteeringMap(file) as steering, policy(1) as snapshot:
        steering.publish(snapshot)
        steering.settle()
    assert os.pread(file, len(HEADER), 0) == HEADER


@pytest.mark.parametrize("at", [0, 4], ids=["magic", "layout"])
def test_a_map_of_another_version_is_refused(file: int, at: int) -> None:
    os.pwrite(file, b"\xee", at)
    with pytest.raises(HostError, match="not a steering map of this version"):
        SteeringMap(file)


def test_what_is_too_short_to_be_the_map_is_refused(file: int) -> None:
    os.truncate(file, 4096)
    with pytest.raises(HostError, match="cannot map the steering map"):
        SteeringMap(file)


def test_an_fd_that_cannot_be_mapped_is_refused() -> None:
    read, write = os.pipe()
    with pytest.raises(HostError, match="cannot map the steering map"):
        SteeringMap(read)
    os.close(read)
    os.close(write)


def test_a_map_that_somebody_overwrote_is_not_written(file: int) -> None:
    with SteeringMap(file, fresh=True) as steering, policy(3) as snapshot:
        os.pwrite(file, b"\xee", 0)
        with pytest.raises(HostError, match="cannot publish a steering snapshot"):
            steering.publish(snapshot)
    assert active(file) == 0


def test_where_the_kernel_cannot_be_waited_for_nothing_in_use_is_written(
    file: int, native_hooks: tuple[Any, Any]
) -> None:
    hooks = Native(*native_hooks)
    with SteeringMap(file, hooks, fresh=True) as steering:
        with policy(3, hooks) as snapshot:
            for _ in range(LIB.VNET_STEERING_SLOTS - 1):
                steering.publish(snapshot)
        before, kept = active(file), os.pread(file, SIZE, 0)
        hooks.lib.vnet_test_fail(FAIL_SETTLE, 1)
        try:
            with (
                policy(5, hooks) as snapshot,
                pytest.raises(HostError, match="membarrier"),
            ):
                steering.publish(snapshot)
        finally:
            hooks.lib.vnet_test_fail(FAIL_SETTLE, 0)
        assert os.pread(file, SIZE, 0) == kept
        with policy(5, hooks) as snapshot:
            steering.publish(snapshot)
        assert active(file) != before
        assert unclassified(file, active(file)) == 5


def test_closing_twice_is_harmless(file: int) -> None:
    steering = SteeringMap(file)
    steering.close()
    steering.close()
