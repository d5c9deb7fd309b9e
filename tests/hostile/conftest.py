# SPDX-License-Identifier: MIT
"""The victim, one per test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.datapath.native import Native
from tests.hostile.rig import Rig, expect_held, held

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def hooked(native_hooks: tuple[Any, Any]) -> Native:
    """The build with test hooks."""
    return Native(*native_hooks)


@pytest.fixture
def rig(hooked: Native) -> Iterator[Rig]:
    """A victim of two pairs; at the end the process holds what it held before."""
    before = held()
    with Rig(hooked) as victim:
        during = held()
        yield victim
        expect_held(during)
    expect_held(before)
