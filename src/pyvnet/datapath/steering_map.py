# SPDX-License-Identifier: MIT
"""The steering program's map, shared with the kernel by memory: no bpf(2) is needed to write it."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final, Self

from pyvnet.datapath.native import DEFAULT, Native, check
from pyvnet.errors import HostError

if TYPE_CHECKING:
    from pyvnet.datapath.policy import Policy

CURE: Final = "a map made by another version of pyvnet does not do: make it anew"


class SteeringMap:
    """Snapshots for the steering program; one object per map writes it.

    ``fd`` is that of the map and stays the caller's; ``fresh`` says that no frame was ever
    steered by it, so that nothing has to be waited for at first.  Raises HostError for an fd that
    cannot be mapped, or whose map is not of this layout.
    """

    def __init__(self, fd: int, native: Native = DEFAULT, *, fresh: bool = False) -> None:
        ffi, lib = native
        self._native = native
        # Who wrote the map before may have done so a moment ago: nothing is known to be free.
        self._free_slots = lib.VNET_STEERING_SLOTS - 1 if fresh else 0
        try:
            self._memory = mmap.mmap(fd, _pages(ffi.sizeof("struct vnet_steering_map")))
        except OSError as error:
            raise HostError("cannot map the steering map", error.errno, CURE) from error
        except ValueError as error:
            raise HostError(f"cannot map the steering map: {error}", cure=CURE) from error
        self._buffer = ffi.from_buffer(self._memory)
        header = ffi.cast("struct vnet_steering_map *", self._buffer)
        if (header.magic, header.layout) != (
            lib.VNET_STEERING_MAP_MAGIC,
            lib.VNET_STEERING_MAP_LAYOUT,
        ):
            found = f"magic {header.magic:#x}, layout {header.layout}"
            self.close()
            raise HostError(f"not a steering map of this version ({found})", cure=CURE)

    def publish(self, policy: Policy) -> None:
        """Let the program decide by ``policy`` from the next frame on.

        A frame that is being steered keeps the snapshot it began with; ``settle`` waits for
        those.  Raises HostError if the kernel cannot be waited for.
        """
        if not self._free_slots:
            self.settle()
        check(
            self._native.lib.vnet_steering_map_publish(
                self._buffer, len(self._memory), policy.cdata
            ),
            "cannot publish a steering snapshot",
        )
        self._free_slots -= 1

    def settle(self) -> None:
        """Wait, some 10 ms, until no frame is steered by an older snapshot than the last.

        What an older one steered is in its host port queue by then, or held by a queueing
        discipline in front of it.  Raises HostError where the kernel does not offer it.
        """
        settle(self._native)
        self._free_slots = self._native.lib.VNET_STEERING_SLOTS - 1

    def close(self) -> None:
        """Unmap; harmless twice.  The program goes on with the last snapshot."""
        if not self._memory.closed:
            self._native.ffi.release(self._buffer)
            self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def settle(native: Native = DEFAULT) -> None:
    """Wait until the kernel steers no frame by what held before this call.

    Raises HostError where it does not offer to be waited for.
    """
    check(native.lib.vnet_steering_settle(), "cannot wait for the kernel to steer (membarrier)")


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
