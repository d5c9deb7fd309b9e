# SPDX-License-Identifier: MIT
"""A conversation that is over when the test is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.vhost_user.support import Conversation

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def front() -> Iterator[Conversation]:
    with Conversation() as conversation:
        yield conversation
