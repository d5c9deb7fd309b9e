# SPDX-License-Identifier: MIT
"""A process that may hold no more than so many file descriptors."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from itertools import count, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def room_for_fds(spare: int) -> Iterator[None]:
    """Inside, so many descriptors can be opened, and no more."""
    limit = next(islice(filter(_is_free, count()), spare, None))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _is_free(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False
