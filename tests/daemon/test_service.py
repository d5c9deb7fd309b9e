# SPDX-License-Identifier: MIT
"""The process's part: what a fault of ours costs, and whom."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from pyvnet import Driver
from pyvnet.daemon import logs
from pyvnet.daemon.config import ServiceOptions
from pyvnet.daemon.options import DeviceOptions
from pyvnet.daemon.readers import Port
from pyvnet.daemon.service import Service


def fail() -> None:
    raise ZeroDivisionError("a fault of ours")


async def until_it_ends(driver: Driver) -> None:
    while True:
        await driver.receive(timeout=30)


async def test_a_fault_in_a_callback_costs_its_device_the_front_end_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("vm1", "vm2")
    devices = [DeviceOptions(name, f"{name}.s", port=Port("null"), queues=1) for name in names]
    service = Service(ServiceOptions(tuple(devices)))
    ended = asyncio.create_task(service.run())
    while not Path("vm2.s").is_socket():  # noqa: ASYNC110, ASYNC240 - a turn of the loop each
        await asyncio.sleep(0)
    async with (
        Driver.connect("vhost-user:vm1.s") as one,
        Driver.connect("vhost-user:vm2.s") as two,
    ):
        await one.negotiate()
        await two.negotiate()
        with logs.about("vm1"):
            asyncio.get_running_loop().call_soon(fail)
        with pytest.raises(ConnectionError):
            await until_it_ends(one)
        assert (await two.read_config()).max_virtqueue_pairs == 1
    first, second = service.status(None)["devices"]
    assert first["failure"] == "internal error: ZeroDivisionError('a fault of ours')"
    assert "failure" not in second
    async with Driver.connect("vhost-user:vm1.s") as again:  # it may come back
        await again.negotiate()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await ended == 0
    assert any("this should not have happened" in line for line in caplog.messages)
    assert not Path("vm1.s").exists()  # noqa: ASYNC240
