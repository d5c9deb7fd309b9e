# SPDX-License-Identifier: MIT
"""Children of tests that lost a right: what they lose cannot be given back, so it takes a process.

``run(script)`` runs a script in a network namespace of its own, with this module's names;
it imports what it needs first, since afterwards it may not be able to read it.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TUNSETSTEERINGEBPF = 0x800454E0
NUMBERS = {
    "x86_64": {"bpf": 321, "ioctl": 16, "membarrier": 324},
    "aarch64": {"bpf": 280, "ioctl": 29, "membarrier": 283},
}
_DEADLINE = 60

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER_AT, _SECOND_ARGUMENT_AT = 0, 24  # of struct seccomp_data


def run(script: str) -> list[str]:
    """Run a script to its end; returns its lines."""
    command = ["unshare", "--net", sys.executable, "-c", f"from tests.deprived import *\n{script}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_DEADLINE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def forbid(call: str, error: int = errno.ENOSYS, second: int | None = None) -> None:
    """Have a system call fail from now on; ``second``: only with that second argument."""
    checks = [(_LOAD, 0, 0, _NUMBER_AT)]
    match = (
        [(_LOAD, 0, 0, _SECOND_ARGUMENT_AT), (_EQUAL, 0, 1, second)] if second is not None else []
    )
    checks.append((_EQUAL, 0, len(match) + 1, NUMBERS[platform.machine()][call]))
    checks += [*match, (_RETURN, 0, 0, _ERRNO | error), (_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("=HBBI", *each) for each in checks)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("=HxxxxxxQ", len(checks), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")
