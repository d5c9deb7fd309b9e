# SPDX-License-Identifier: MIT
"""From the driver's set-up to an active ring."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from pyvnet.device._checks import StateError
from pyvnet.device.effects import Activate, ConfigChanged
from pyvnet.device.queue import QueueConfig
from pyvnet.errors import UsageError
from pyvnet.spec.features import Feature
from tests.device.support import PAIRS, commit, device, negotiate, ring, running, start, without

LIMITS = {"queue_count": 9, "max_queue_size": 1024}


def config(**changes: int) -> QueueConfig:
    return QueueConfig.from_setup(ring(changes.pop("index", 0), **changes))


@pytest.mark.parametrize("size", [1, 2, 256, 1024])
def test_good_ring_is_handed_over_as_it_was_set_up(size: int) -> None:
    setup = ring(3, size=size, kick_fd=10, call_fd=11, err_fd=12, avail_base=7, used_base=5)
    active = QueueConfig.from_setup(setup).activate(**LIMITS)
    assert asdict(active) == asdict(setup) | {"enabled": True}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": 0}, "power of two"),
        ({"size": 3}, "power of two"),
        ({"size": 2048}, "up to 1024"),
        ({"size": 32768}, "up to 1024"),
        ({"size": 65535}, "power of two"),
        ({"size": 2**31}, "up to 1024"),
        ({"desc_table": 0x1008}, "descriptor table is not aligned to 16"),
        ({"avail_ring": 0x1001}, "avail ring is not aligned to 2"),
        ({"used_ring": 0x1002}, "used ring is not aligned to 4"),
        ({"desc_table": 2**64 - 16}, "descriptor table wraps"),
        ({"avail_ring": 2**64 - 2}, "avail ring wraps"),
        ({"used_ring": 2**64 - 4}, "used ring wraps"),
        ({"index": 9}, "does not exist"),
    ],
)
def test_bad_ring_is_not_activated(changes: dict[str, int], reason: str) -> None:
    with pytest.raises(StateError, match=reason):
        config(**changes).activate(**LIMITS)


def test_ring_may_end_where_the_address_space_ends() -> None:
    assert config(desc_table=2**64 - 16, size=1).activate(**LIMITS).desc_table == 2**64 - 16


@pytest.mark.parametrize(
    "changes",
    [
        {"size": -1},
        {"size": 2**32},
        {"desc_table": -1},
        {"used_ring": 2**64},
        {"avail_base": 0x10000},
        {"used_base": -1},
        {"kick_fd": -2},
        {"call_fd": 2**31},
    ],
)
def test_value_beyond_its_field_is_ignored_and_counted(changes: dict[str, int]) -> None:
    target = device()
    commit(target, target.configure_queue(ring(0, **changes)))
    assert target.state.queues == ()
    assert target.state.counters.queue_setups_ignored == 1


@pytest.mark.requirement("PF-D-04")
@pytest.mark.parametrize("index", [-1, 2 * PAIRS + 1, 255, 0x7FFF, 0x8000, 0xFFFF, 2**32])
def test_queue_beyond_the_last_is_ignored_and_counted(index: int) -> None:
    """Peers reached past their array here (qemu:f47af0af0d)."""
    target = device()
    commit(target, target.configure_queue(ring(index)))
    assert target.state.queues == ()
    assert target.state.counters.queue_index_out_of_range == 1


@pytest.mark.requirement("PF-D-04")
def test_last_queue_follows_the_negotiated_layout() -> None:
    target = device()
    negotiate(target, without(Feature.MQ, Feature.RSS))
    for index in range(2 * PAIRS + 1):
        commit(target, target.configure_queue(ring(index)))
    assert [queue.index for queue in target.state.queues] == [0, 1, 2]
    assert target.state.counters.queue_index_out_of_range == 2 * PAIRS - 2


def test_later_setup_replaces_the_earlier_one() -> None:
    target = device()
    for index, size in ((2, 16), (0, 32), (2, 64)):
        commit(target, target.configure_queue(ring(index, size=size)))
    assert [(queue.index, queue.size) for queue in target.state.queues] == [(0, 32), (2, 64)]


@pytest.mark.requirement("VIO-STAT-01")
def test_rings_start_with_driver_ok_and_not_before() -> None:
    """No buffer is consumed before DRIVER_OK."""
    target = device()
    negotiate(target, without())
    for index in (0, 1, 2 * PAIRS):
        assert commit(target, target.configure_queue(ring(index))).effects == ()
    *_, activate = commit(target, target.write_status(15)).effects
    assert isinstance(activate, Activate)
    assert [queue.index for queue in activate.queues] == [0, 1, 2 * PAIRS]
    assert activate.features == target.features


def test_setup_after_driver_ok_is_ignored_and_counted() -> None:
    target = running()
    before = target.state.queues
    commit(target, target.configure_queue(ring(0, size=16)))
    assert target.state.queues == before
    assert target.state.counters.queue_setups_ignored == 1


@pytest.mark.requirement("VIO-STAT-02", "VIO-STAT-03")
@pytest.mark.parametrize("changes", [{"size": 0}, {"size": 5}, {"used_ring": 6}])
def test_driver_ok_with_a_ring_that_cannot_run_needs_a_reset(changes: dict[str, Any]) -> None:
    """Only a reset helps, so NEEDS_RESET is set and, DRIVER_OK being on, announced."""
    target = device()
    negotiate(target, without())
    commit(target, target.configure_queue(ring(0)))
    commit(target, target.configure_queue(ring(1, **changes)))
    assert commit(target, target.write_status(15)).effects == (ConfigChanged(),)
    assert target.status == 15 | 64
    assert target.state.counters.queues_invalid == 1


def test_ring_set_up_before_negotiation_must_exist_in_the_layout() -> None:
    target = device()
    commit(target, target.configure_queue(ring(2 * PAIRS)))
    negotiate(target, without(Feature.MQ, Feature.RSS))
    commit(target, target.write_status(15))
    assert target.status == 15 | 64


def test_positions_are_recorded_and_used_at_the_next_start() -> None:
    target = running()
    commit(target, target.record_queue_positions({0: (100, 99), 8: (0xFFFF, 0)}))
    taken = target.state
    other = device()
    *_, activate = commit(other, other.restore(taken)).effects
    assert isinstance(activate, Activate)
    positions = {queue.index: (queue.avail_base, queue.used_base) for queue in activate.queues}
    assert positions[0] == (100, 99)
    assert positions[1] == (0, 0)
    assert positions[8] == (0xFFFF, 0)


@pytest.mark.parametrize("positions", [{9: (0, 0)}, {0: (-1, 0)}, {0: (0, 0x10000)}])
def test_impossible_positions_are_the_callers_error(
    positions: dict[int, tuple[int, int]],
) -> None:
    target = device()
    start(target)
    with pytest.raises(UsageError):
        target.record_queue_positions(positions)
