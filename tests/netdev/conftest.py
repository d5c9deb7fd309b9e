# SPDX-License-Identifier: MIT
"""A network namespace per test: the test's own thread moves into it and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyvnet.netdev import netns, rtnl

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def private_netns() -> Iterator[None]:
    """Run the test in an empty network namespace; use with the mark needs_netns."""
    with netns.NetNamespace.current() as before:
        assert netns.enter_private_netns() is None
        yield
        netns._enter(before.fileno())


@pytest.fixture(scope="session", autouse=True)
def _imported() -> None:
    """Get pyroute2's late import, and what it keeps, over with before fds run out."""
    assert rtnl.get_link("lo") is not None
