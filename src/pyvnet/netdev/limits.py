# SPDX-License-Identifier: MIT
"""RLIMIT_NOFILE: raised to the hard limit, checked against what is needed."""

from __future__ import annotations

import resource
from pathlib import Path

from pyvnet.errors import HostError


def raise_open_files(needed: int) -> int:
    """Raise the soft limit of open files to the hard one; returns it.

    Args:
        needed: fds about to be opened, on top of those open now.

    Raises:
        HostError: even the hard limit is too low for that.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    in_use = sum(1 for _ in Path("/proc/self/fd").iterdir())
    if hard < in_use + needed:
        raise HostError(
            f"{needed} more open files are needed, {in_use} are in use and {hard} are allowed",
            cure=f"raise the hard limit (LimitNOFILE=, `ulimit -Hn`) to {in_use + needed}",
        )
    return hard
