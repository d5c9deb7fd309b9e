# SPDX-License-Identifier: MIT
"""A tap of the test's own, in a network namespace of its own."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from pyvnet.netdev import netns, rtnl
from pyvnet.offload import kernel_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.offload.kernel_hash import Scene


@pytest.fixture
def private_tap() -> Iterator[Scene]:
    """Four queues that give headers of 20 bytes; use with needs_root, needs_netns, needs_tap."""
    rtnl.get_link("lo")  # pyroute2's late import, and what it keeps
    with netns.NetNamespace.current() as before:
        assert netns.enter_private_netns() is None
        with ExitStack() as undo:
            yield kernel_hash._PrivateTap(undo)
        netns._enter(before.fileno())
