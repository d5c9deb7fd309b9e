# SPDX-License-Identifier: MIT
"""The null port: a counter per queue and nothing else."""

from __future__ import annotations

import os

import pytest

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev import NetDevice, Null, Pair, Tap
from tests.netdev.kernel import open_fds, room_for_fds


def test_injected_frames_add_up_per_queue() -> None:
    with Null(2) as null:
        null.inject(1, 5)
        null.inject(1, 2)
        assert os.eventfd_read(null.fds[1]) == 7
        for queue in (0, 1):
            with pytest.raises(BlockingIOError):
                os.eventfd_read(null.fds[queue])
        assert null.describe() == {"kind": "null", "queues": 2}


def test_an_endless_port_never_runs_dry() -> None:
    with Null(2, endless=True) as null:
        for fd in null.fds:
            assert os.eventfd_read(fd) > 2**63


def test_close_is_idempotent_and_open_is_not() -> None:
    before = open_fds()
    null = Null(3)
    null.close()
    with null, pytest.raises(UsageError, match="open already"):
        null.open()
    null.close()
    assert null.fds == ()
    assert open_fds() == before


def test_at_least_one_queue() -> None:
    with pytest.raises(UsageError, match="at least one"):
        Null(0)


def test_running_out_of_fds_leaves_nothing_behind() -> None:
    before = open_fds()
    for room in range(3):
        with room_for_fds(room), pytest.raises(HostError, match=r"no eventfd.*raise the limit"):
            Null(4).open()
        assert open_fds() == before


@pytest.mark.parametrize("device", [Tap("ours", queues=2), Pair(2), Null(2)], ids=lambda d: d.kind)
def test_every_port_keeps_the_protocol(device: NetDevice) -> None:
    assert device.queues == 2
    assert device.fds == ()
    assert device.describe().items() >= {"kind": device.kind, "queues": 2}.items()
