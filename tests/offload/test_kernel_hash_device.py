# SPDX-License-Identifier: MIT
"""A device on a kernel that hashes, were there one: a real tap, and a fake for what it lacks."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyvnet.netdev.netns import NetNamespace
from pyvnet.offload import kernel_hash
from tests.offload.fake_kernel import FakeKernel
from tests.steered import CONFIG, QUEUES, exchange, over, steered

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.one_loop("who steers is decided without an event loop"),
    pytest.mark.requirement("U-45"),
]


@pytest.fixture
def netns() -> Iterator[NetNamespace]:
    """A namespace whose kernel says nothing of its own."""
    with NetNamespace() as made:
        switch = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
        made.call(lambda: switch.write_text("1"))
        yield made


@pytest.fixture(params=["v11", "v12"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKernel]:
    """It answers for any tap, and is proved as a real one would be."""
    with FakeKernel(request.param) as fake:

        def ask(fd: int, number: int, argument: bytes) -> bytes:
            os.fstat(fd)  # a device has nothing to say to a queue that is closed
            return fake.ask(fake.queues[0], number, argument)

        make = partial(kernel_hash.make, ask=ask, proof=lambda: kernel_hash.prove(fake))
        monkeypatch.setattr(kernel_hash, "make", make)
        yield fake


def steers(kernel: FakeKernel) -> bool:
    return kernel.rss


async def test_it_is_preferred_and_told_what_the_driver_commands(
    netns: NetNamespace, kernel: FakeKernel
) -> None:
    async with steered(netns) as (device, driver):
        assert device.steering_owner == "kernel-auto"
        assert not steers(kernel)
        for config in (CONFIG, over(2, 0)):
            await driver.ctrl.rss_config(config)
            assert device.steering_owner == "kernel-hash"
            assert steers(kernel)
            assert not kernel.reports
            assert kernel.table == tuple(config.indirection_table)
            assert kernel.key[: len(config.key)] == bytes(config.key)
            assert kernel.hash_types == config.hash_types & kernel.types
            await exchange(netns, driver, config)  # the frame path's answers, whoever steers
        await driver.ctrl.vq_pairs_set(QUEUES)
        assert device.steering_owner == "kernel-auto"
        assert not steers(kernel)
        await driver.ctrl.rss_config(CONFIG)
    assert not steers(kernel)


async def test_software_takes_over_from_one_that_refuses_later(
    netns: NetNamespace, kernel: FakeKernel, caplog: pytest.LogCaptureFixture
) -> None:
    async with steered(netns, steering="kernel-hash") as (device, driver):
        kernel.series = ""
        await driver.ctrl.rss_config(CONFIG)
        assert device.steering_owner == "software"
        finding = device.status()["steering"]["owners"]["kernel-hash"]
        assert finding["reason"] == (
            f"cannot steer by the kernel's hash: {os.strerror(errno.EINVAL)}"
        )
        await exchange(netns, driver)
    assert "steering by software instead of kernel-hash" in caplog.text
