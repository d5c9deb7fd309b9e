# SPDX-License-Identifier: MIT
"""bpf(2), the system call itself.  Its numbers: ``syscall(2)``."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from functools import cache
from typing import Final

_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280}


def bpf_call(command: int, attributes: bytes) -> tuple[int, bytes]:
    """Issue a command; returns its result, and the attributes, which some commands write into.

    Raises OSError; ENOSYS also on machines whose number or byte order is another.
    """
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
