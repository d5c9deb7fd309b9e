# SPDX-License-Identifier: MIT
"""Guests to boot."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.uml import build
from tests.system.uml.machine import Machine
from tests.system.uml.nic import Nic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from pyvnet.netdev.netns import NetNamespace

    Boot = Callable[..., Awaitable[tuple[Machine, Nic]]]


@pytest.fixture(scope="session")
def built() -> build.Built:
    return build.build()


@pytest.fixture
async def boot(built: build.Built, netns: NetNamespace, tmp_path: Path) -> AsyncIterator[Boot]:
    """Boots a guest with one NIC, eth0 there and vnet0 here; takes settings of ``Device``."""
    async with AsyncExitStack() as stack:

        async def boot_now(**settings: Any) -> tuple[Machine, Nic]:
            nic = await stack.enter_async_context(Nic(netns, tmp_path / "nic0", **settings))
            machine = await stack.enter_async_context(Machine(built, tmp_path, [nic.path]))
            return machine, nic

        yield boot_now
