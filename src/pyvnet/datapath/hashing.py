# SPDX-License-Identifier: MIT
"""Toeplitz kernels: which there are, which this CPU can run, and which one is used.

Each gives the same hashes.  Policies keep the kernel they were made with.
``PYVNET_HASH`` in the environment names the one to use; without it, it is the fastest.
"""

from __future__ import annotations

import errno
import os
from typing import Final, NamedTuple

from pyvnet.datapath.native import DEFAULT, Native
from pyvnet.errors import UsageError

VARIABLE: Final = "PYVNET_HASH"


class HashKernel(NamedTuple):
    """``lacks`` says what this CPU has not got for it, and is empty if it can run."""

    name: str
    lacks: str


def kernels(native: Native = DEFAULT) -> tuple[HashKernel, ...]:
    """All of this build, the fastest first; the last one runs everywhere."""
    ffi, lib = native
    name, lacks = ffi.new("const char **"), ffi.new("const char **")
    found: list[HashKernel] = []
    while lib.vnet_hash_kernel_info(len(found), name, lacks):
        reason = ffi.string(lacks[0]).decode() if lacks[0] else ""
        found.append(HashKernel(ffi.string(name[0]).decode(), reason))
    return tuple(found)


def selected(native: Native = DEFAULT) -> str:
    """Name of the kernel that policies made from now on use."""
    ffi, lib = native
    name: str = ffi.string(lib.vnet_hash_kernel_name()).decode()
    return name


def select(name: str, native: Native = DEFAULT) -> None:
    """Use a kernel for policies made from now on; "" for the fastest.

    Raises UsageError for one that does not exist or cannot run here.
    """
    error = native.lib.vnet_hash_select(name.encode())
    if not error:
        return
    here = kernels(native)
    able = ", ".join(kernel.name for kernel in here if not kernel.lacks)
    if error == -errno.ENOTSUP:
        reason = next(kernel.lacks for kernel in here if kernel.name == name)
        raise UsageError(f"hash kernel {name!r} cannot run: {reason}; this CPU can run {able}")
    raise UsageError(f"there is no hash kernel {name!r}; this CPU can run {able}")


def follow_environment(native: Native = DEFAULT) -> None:
    """Select what ``PYVNET_HASH`` names, if it is set.  Raises UsageError as `select`."""
    if name := os.environ.get(VARIABLE, ""):
        select(name, native)
