# SPDX-License-Identifier: MIT
"""A table of guest memory, mapped from the fds of its regions."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Self

from pyvnet.datapath.native import DEFAULT, Native
from pyvnet.errors import FrontendError, HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.spec.transport import MemoryRegion


class GuestMemory:
    """Handle on a ``struct vnet_mem``; engine and workers keep references of their own.

    Raises FrontendError when the regions are empty, wrap, overlap or reach
    beyond their file, HostError when they cannot be mapped.
    """

    def __init__(self, regions: Sequence[MemoryRegion], native: Native = DEFAULT) -> None:
        self._native = native
        self._cdata: Any = None
        ffi, lib = native
        array = ffi.new("struct vnet_region[]", len(regions))
        for entry, region in zip(array, regions, strict=True):
            entry.gpa, entry.size = region.gpa, region.size
            entry.mmap_offset, entry.fd = region.mmap_offset, region.fd
        out = ffi.new("struct vnet_mem **")
        result = lib.vnet_mem_create(array, len(regions), out)
        if result == -errno.EINVAL:
            raise FrontendError(f"memory regions refused: {describe(regions)}")
        if result < 0:
            raise HostError("cannot map guest memory", -result)
        self._cdata = out[0]

    @property
    def cdata(self) -> Any:
        """For the engine's verbs."""
        return self._cdata

    def close(self) -> None:
        """Give the reference back; the last one to let go unmaps.  Harmless twice."""
        if self._cdata is not None:
            self._native.lib.vnet_mem_put(self._cdata)
            self._cdata = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def describe(regions: Sequence[MemoryRegion]) -> str:
    """One line for an error message."""
    return ", ".join(f"[{r.gpa:#x}, +{r.size:#x}) at {r.mmap_offset:#x}" for r in regions) or "none"
