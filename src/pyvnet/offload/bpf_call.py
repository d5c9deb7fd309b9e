# SPDX-License-Identifier: MIT
"""bpf(2), the system call itself.  Its numbers: ``syscall(2)``."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import sys
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280}


def bpf_call(command: int, attributes: bytes) -> tuple[int, bytes]:
    """Issue a command; returns its result, and the attributes, which some commands write into.

    Raises OSError; ENOSYS also on machines whose number or byte order is another.
    """
    try:
        return _issue(command, attributes)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
    # Before Linux 5.11 this may also say that RLIMIT_MEMLOCK, often 64 kB, is used up.
    with _all_memory_lockable():
        return _issue(command, attributes)


@contextmanager
def _all_memory_lockable() -> Iterator[None]:
    """Have as much as we may; what is made meanwhile stays charged, and stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for most in (resource.RLIM_INFINITY, hard):
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))
            break
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))


def _issue(command: int, attributes: bytes) -> tuple[int, bytes]:
    number = _NUMBERS.get(platform.machine())
    if number is None or sys.byteorder != "little":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result: int = _libc().syscall(
        ctypes.c_long(number),
        ctypes.c_int(command),
        ctypes.byref(buffer),
        ctypes.c_uint(len(attributes)),
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result, buffer.raw


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
