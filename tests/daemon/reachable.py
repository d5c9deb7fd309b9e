# SPDX-License-Identifier: MIT
"""Run a command where any user can reach the interpreter and this checkout.

python reachable.py COMMAND …

A test's child that gives root away must still be able to read Python and
pyvnet, which may lie below a folder that is root's alone.  In a mount namespace
of its own such a folder is covered by an empty one, through which these two are
bound where they were.  What is executed is the command, in this process.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18
_OTHERS_MAY_PASS = 0o001


def main() -> None:
    """Arrange the scene, then execute what was asked for."""
    needed = {Path(sys.base_prefix), Path(__file__).resolve().parents[2]}
    hidden = {path: cover for path in needed if (cover := _closed_ancestor(path))}
    if hidden:
        _checked(_libc().unshare(_CLONE_NEWNS))
        _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
        held = {path: os.open(path, os.O_PATH) for path in hidden}
        for cover in set(hidden.values()):
            _mount("tmpfs", str(cover), "tmpfs", 0, "mode=755")
        for path, fd in held.items():
            path.mkdir(parents=True)
            _mount(f"/proc/self/fd/{fd}", str(path), "", _MS_BIND | _MS_REC)
            os.close(fd)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606


def _closed_ancestor(path: Path) -> Path | None:
    for folder in [*reversed(path.parents), path]:
        if not folder.stat().st_mode & _OTHERS_MAY_PASS:
            return folder
    return None


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    words = (source.encode(), target.encode(), kind.encode() or None)
    _checked(_libc().mount(*words, ctypes.c_ulong(flags), data.encode() or None))


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "cannot arrange the scene")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    main()
