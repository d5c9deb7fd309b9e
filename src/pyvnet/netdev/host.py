# SPDX-License-Identifier: MIT
"""What this machine and this process may do, tap aside: CPU, BPF, privileges, limits.

Whatever can be tried without trace is tried, because sysctls, capabilities and
security modules together decide, and only the kernel knows the sum of them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import resource
import struct
from pathlib import Path
from typing import Any, Final

from pyvnet.netdev.finding import YES, Finding, no, refused

# linux/capability.h: what a backend, its helper or its eBPF programs may need.
CAPABILITIES: Final = {
    "cap_net_admin": 12,
    "cap_net_raw": 13,
    "cap_ipc_lock": 14,
    "cap_sys_admin": 21,
    "cap_perfmon": 38,
    "cap_bpf": 39,
}
_CPU_FLAGS: Final = frozenset(
    # x86-64 carry-less multiplication and the vector widths around it; aarch64's counterparts
    {
        *("pclmulqdq", "gfni", "vpclmulqdq", "avx2"),
        *("avx512f", "avx512bw", "avx512vl", "avx512vbmi"),
        *("pmull", "asimd", "sve", "sve2", "svepmull"),
    }
)

# Older than the table of system calls that all architectures share.
_SYS_BPF: Final = {"x86_64": 321, "aarch64": 280}
_BPF_PROG_LOAD: Final = 5
_BPF_PROG_TYPE_SOCKET_FILTER: Final = 1
# Two instructions: return 0.
_TRIVIAL_PROGRAM: Final = struct.pack("<QQ", 0x00000000_000000B7, 0x00000000_00000095)


def cpu_flags() -> list[str]:
    """Flags of the first CPU that matter for hashing, sorted."""
    text = Path("/proc/cpuinfo").read_text(errors="replace")
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return sorted(_CPU_FLAGS.intersection(found[1].split() if found else ()))


def capabilities() -> dict[str, Finding]:
    """Capabilities in force for this process."""
    text = Path("/proc/self/status").read_text()
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", text, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    return {
        name: YES
        if effective >> bit & 1
        else no("not in the effective set", f"run as root or grant it (AmbientCapabilities={name})")
        for name, bit in CAPABILITIES.items()
    }


def limits() -> dict[str, dict[str, int | None]]:
    """Soft and hard limit of open files and of locked bytes; None is unlimited."""
    names = {"nofile": resource.RLIMIT_NOFILE, "memlock": resource.RLIMIT_MEMLOCK}
    return {
        name: {
            key: None if value == resource.RLIM_INFINITY else value
            for key, value in zip(("soft", "hard"), resource.getrlimit(number), strict=True)
        }
        for name, number in names.items()
    }


def bpf() -> Finding:
    """Whether this process may load a program of the type that steers a tap."""
    number = _SYS_BPF.get(os.uname().machine)
    if number is None:
        return no(f"unknown architecture {os.uname().machine}", "use x86-64 or aarch64")
    program = ctypes.create_string_buffer(_TRIVIAL_PROGRAM, len(_TRIVIAL_PROGRAM))
    licence = ctypes.create_string_buffer(b"GPL")
    # union bpf_attr of BPF_PROG_LOAD: prog_type, insn_cnt, insns, license; the rest is 0.
    attributes = ctypes.create_string_buffer(
        struct.pack(
            "=IIQQ",
            _BPF_PROG_TYPE_SOCKET_FILTER,
            len(_TRIVIAL_PROGRAM) // 8,
            ctypes.addressof(program),
            ctypes.addressof(licence),
        ),
        128,
    )
    fd, error = _syscall(number, _BPF_PROG_LOAD, ctypes.byref(attributes), len(attributes))
    if fd >= 0:
        os.close(fd)
        return YES
    if error == errno.ENOSYS:
        return no("not in this kernel", "run a kernel with CONFIG_BPF_SYSCALL")
    return refused(OSError(error, ""), "run as root or with CAP_BPF and CAP_PERFMON")


def _syscall(number: int, *args: Any) -> tuple[int, int]:
    """Return the result and, if it is negative, errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = int(libc.syscall(ctypes.c_long(number), *args))
    return result, ctypes.get_errno() if result < 0 else 0
