# SPDX-License-Identifier: MIT
"""Workers that look on: no kick wanted, commands obeyed, on the CPU they were given."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from pyvnet.datapath.config import POLL_US_MAX, EngineConfig
from pyvnet.errors import UsageError
from tests.datapath.rig import Rig, frame_of

BUSY = EngineConfig(poll_us=POLL_US_MAX)


@pytest.mark.parametrize("event_idx", [True, False])
def test_a_worker_that_looks_on_sees_frames_without_a_kick(event_idx: bool) -> None:
    with Rig(pairs=1, buffers=8, event_idx=event_idx, config=BUSY) as rig:
        rig.policy("automatic")
        rig.send(0, frame_of(0, 0), kick=True)
        rig.wait_sent(0, 1)
        for serial in range(1, 50):
            # With EVENT_IDX the index it once asked for has been passed.
            assert not rig.transmitq(0).publish()
            rig.send(0, frame_of(0, serial), kick=False)
            assert rig.from_wire(0, 1)
            rig.wait_sent(0, 1)
        assert rig.engine.queue_state(1).running
        assert rig.stats(0).tx_kicks <= 1


@pytest.mark.parametrize("event_idx", [True, False])
@pytest.mark.parametrize("poll_us", [0, 5, 50])
def test_no_chain_is_overlooked_on_the_way_to_sleep(event_idx: bool, poll_us: int) -> None:
    """Each chain is kicked for only if the device asks: one missed would hang for ever."""
    config = EngineConfig(poll_us=poll_us)
    with Rig(pairs=1, buffers=8, event_idx=event_idx, config=config) as rig:
        rig.policy("automatic")
        for serial in range(2000):
            rig.send(0, frame_of(0, serial))
            assert rig.from_wire(0, 1)
            rig.sent(0)


@pytest.mark.timeout(60, method="thread")  # nothing else ends a wait for a worker
@pytest.mark.parametrize("poll_us", [0, 5])
def test_no_command_is_overlooked_on_the_way_to_sleep(poll_us: int) -> None:
    """Each command waits for its answer: a worker that slept over one would hang for ever."""
    pause = random.Random(1)
    with Rig(pairs=4, workers=1, config=EngineConfig(poll_us=poll_us)) as rig:
        for _ in range(60000):
            rig.barrier()
            for _ in range(pause.randrange(400)):
                pass


def test_workers_run_on_the_cpus_they_were_given() -> None:
    cpu = min(os.sched_getaffinity(0))
    before = {int(task.name) for task in Path("/proc/self/task").iterdir()}
    with Rig(pairs=3, workers=3, config=EngineConfig(worker_cpus=(cpu,))):
        tasks = {int(task.name) for task in Path("/proc/self/task").iterdir()} - before
        assert [os.sched_getaffinity(task) for task in tasks] == [{cpu}] * 3


def test_what_no_engine_can_do_is_refused() -> None:
    with pytest.raises(UsageError, match="worker-cpus: CPU 8191 is not there"):
        EngineConfig(worker_cpus=(8191,)).cpus_of(1)
    with pytest.raises(UsageError, match="poll_us is a number from 0"):
        EngineConfig(poll_us=-1)
    with pytest.raises(UsageError, match="is none of auto, plain, uring"):
        EngineConfig(io="best")


def test_an_engine_says_what_it_runs_with() -> None:
    with Rig(pairs=1, config=EngineConfig(poll_us=7, io="plain")) as rig:
        info = rig.engine.info()
        assert (info.poll_us, info.io, info.io_reason) == (7, "plain", "")
        assert info.hash_kernel
