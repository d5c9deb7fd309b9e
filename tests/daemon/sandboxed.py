# SPDX-License-Identifier: MIT
"""Execute a command under what a unit says of system calls, as systemd would.

python sandboxed.py UNIT COMMAND …

Of the unit's directives these are carried out: SystemCallFilter=,
SystemCallErrorNumber=EPERM, RestrictAddressFamilies=AF_UNIX,
MemoryDenyWriteExecute= (where the kernel has PR_SET_MDWE) and NoNewPrivileges=.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

# linux/prctl.h, linux/seccomp.h, linux/filter.h
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 22, 38, 65
_SECCOMP_MODE_FILTER = 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_FIRST_ARGUMENT = 16  # offset in struct seccomp_data; the number itself is at 0


def main() -> None:
    """Read the unit, enter the sandbox, execute."""
    unit = Path(sys.argv[1]).read_text()
    for line in ("RestrictAddressFamilies=AF_UNIX\n", "SystemCallErrorNumber=EPERM\n"):
        assert line in unit
    allowed = {"execve"}
    for sign, names in re.findall(r"^SystemCallFilter=(~?)(.*)$", unit, re.MULTILINE):
        for name in names.split():
            calls = _expanded(name)
            # What systemd itself cannot do without stays, whatever a list takes away.
            allowed = allowed - (calls - _expanded("@default")) if sign else allowed | calls
    text = subprocess.run(
        ["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    numbers = {name: int(n) for name, n in re.findall(r"__NR_(\w+) (\d+)$", text, re.MULTILINE)}
    _enter(numbers, allowed, mdwe="MemoryDenyWriteExecute=yes\n" in unit)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606


def _expanded(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", "--no-pager", name]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    words = [line.split("#")[0].strip() for line in text.splitlines()[1:]]
    return {call for word in words if word for call in _expanded(word)}


def _enter(numbers: dict[str, int], allowed: set[str], *, mdwe: bool) -> None:
    code = [
        (_LOAD, 0, 0, 0),
        (_EQUAL, 0, 4, numbers["socket"]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 1, 0, 1),  # AF_UNIX
        (_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT),
        (_RETURN, 0, 0, _ALLOW),
    ]
    for name in sorted(allowed & numbers.keys()):
        code += [(_EQUAL, 0, 1, numbers[name]), (_RETURN, 0, 0, _ALLOW)]
    code.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in code)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    program = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(buffer))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if mdwe:
        try:
            _prctl(_PR_SET_MDWE, 1)
        except OSError as error:
            if error.errno != errno.EINVAL:  # before Linux 6.3
                raise
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(program))


def _prctl(option: int, value: int, pointer: ctypes.c_char_p | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(value), pointer or zero, zero, zero):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


if __name__ == "__main__":
    main()
