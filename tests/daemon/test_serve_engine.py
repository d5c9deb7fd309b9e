# SPDX-License-Identifier: MIT
"""`pyvnet serve` told how its workers are to work: never to sleep, and on which CPUs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from pyvnet import Driver
from pyvnet.daemon.admin_client import ask
from pyvnet.testing.frames import Ipv4, build, udp
from tests.daemon.serving import Serving

NULL = ("--socket-path", "s", "--port", "null", "--admin", "a")
FRAME = bytes(build(Ipv4(), udp(7, 9)))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sockets go: the working directory, because their addresses must be short."""
    monkeypatch.chdir(tmp_path)


async def command(**request: str) -> Any:
    """Have the service do something; returns its answer."""
    return await asyncio.to_thread(ask, "a", request)


@pytest.mark.requirement("NET-LNK-01", "NET-MQ-04")
async def test_workers_that_look_on_for_a_second_obey_at_once_and_end() -> None:
    """Queue pairs, address, link and reset, between frames that keep them awake for a second."""
    sent = 0
    with Serving(*NULL, "--queues", "2", "--poll-us", "1000000") as serving:
        async with Driver.connect("vhost-user:s") as driver:
            for turn in range(2):
                await driver.negotiate()
                for pairs in (2, 1, 2):
                    await driver.ctrl.vq_pairs_set(pairs)
                    await driver.send(FRAME, queue=pairs - 1)
                    await driver.ctrl.mac_addr_set(bytes([2, 0, 0, 0, turn, pairs]))
                    await driver.flush()
                    sent += 1
                (shown,) = (await command(command="status"))["devices"]
                assert shown["steering"]["pairs"] == 2
                assert shown["config"]["mac"] == f"02:00:00:00:0{turn}:02"
                assert sum(queue["tx_packets"] for queue in shown["queues"]) == sent
                for state in ("down", "up"):
                    await driver.send(FRAME)
                    sent += 1
                    await command(command="link", state=state)
                    await driver.wait_config_change()
                    assert driver.link_up is (state == "up")
            await driver.send(FRAME)
            assert await asyncio.to_thread(serving.end) == 0
    assert "Traceback" not in serving.log


def workers(pid: int) -> list[set[int]]:
    """CPUs of the threads that may not run everywhere, in the order they were made."""
    tasks = sorted(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir())
    where = [os.sched_getaffinity(task) for task in tasks]
    return [cpus for cpus in where if cpus != os.sched_getaffinity(0)]


@pytest.mark.parametrize(
    ("asked", "pairs", "expected"),
    [
        ([0], 3, [0, 0, 0]),
        ([1, 0], 3, [1, 0, 1]),
        ([0, 1, 0, 0], 2, [0, 1]),  # more than there are workers
    ],
)
def test_workers_run_on_the_cpus_they_were_given(
    asked: list[int], pairs: int, expected: list[int]
) -> None:
    ours = sorted(os.sched_getaffinity(0))
    cpus = [ours[place % len(ours)] for place in asked]
    words = ("--queues", str(pairs), "--worker-cpus", ",".join(map(str, cpus)))
    with Serving(*NULL, *words) as serving:
        found = workers(serving.process.pid)
        assert found == [{ours[place % len(ours)]} for place in expected] or len(ours) == 1
        assert serving.end() == 0
    assert list(Path().iterdir()) == []
