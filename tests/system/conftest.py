# SPDX-License-Identifier: MIT
"""Every test here makes a network namespace of its own."""

from __future__ import annotations

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
