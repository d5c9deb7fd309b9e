# SPDX-License-Identifier: MIT
"""The build of the C extension a handle belongs to, and the door for its error codes."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from pyvnet import _native
from pyvnet.errors import HostError


class Native(NamedTuple):
    """One loaded build of the extension; cdata of one must not meet functions of another."""

    ffi: Any
    lib: Any


DEFAULT: Final = Native(_native.ffi, _native.lib)


def load(path: str) -> Native:
    """Load another build of the extension (sanitizers, test hooks); raises ImportError."""
    return Native(*_native.load_native(path))


def check(result: int, what: str) -> int:
    """Pass a result through; a negative one is -errno and raises HostError."""
    if result < 0:
        raise HostError(what, -result)
    return result
