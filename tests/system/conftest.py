# SPDX-License-Identifier: MIT
"""Every test here makes a network namespace of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyvnet.netdev.netns import NetNamespace

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def netns() -> Iterator[NetNamespace]:
    """A private namespace; interfaces in it end with it."""
    with NetNamespace() as made:
        yield made


@pytest.fixture
def silent(netns: NetNamespace) -> NetNamespace:
    """A namespace whose kernel says nothing of its own on interfaces to come."""
    switch = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    netns.call(lambda: switch.write_text("1"))
    return netns
