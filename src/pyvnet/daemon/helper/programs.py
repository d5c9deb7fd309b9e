# SPDX-License-Identifier: MIT
"""Programs and maps for somebody else: the built-in steering program, and what passes the check.

Never does: load a program with more privilege than its kind needs; give a map
that was made elsewhere to a program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def load_steering() -> tuple[int, int]:
    """Load the built-in program; returns its fd and its map's, the caller's to close.

    Raises:
        HostError: this kernel or its owner does not let us; a device steers in software then.
    """
    from pyvnet.offload import program

    loaded = program.load()
    return loaded.program, loaded.map


def make_map(kind: int, key_size: int, value_size: int, entries: int, flags: int) -> int:
    """Make a map a client asked for; returns its fd, the caller's to close.

    Raises:
        HostError: the kernel makes no such map.
        UsageError: it is of a kind we do not make, or too large.
    """
    from pyvnet.offload import bpf, check
    from pyvnet.offload.image import MapSpec

    spec = MapSpec("asked_for", kind, key_size, value_size, entries, flags)
    check.review_map(spec)
    return bpf.map_create(spec)


def load_checked(code: bytes, maps: Sequence[int], license_: str) -> int:
    """Load a program a client brought, if it passes our own check; returns its fd.

    Raises:
        HostError: the kernel refuses it.
        UsageError: it does not pass.
    """
    from pyvnet.offload import check

    return check.load(code, maps, name="asked_for", license_=license_)
