# SPDX-License-Identifier: MIT
"""Paths that root opens for somebody else: no symbolic link in any part of them is followed.

Whoever may write to a folder on the way could otherwise point root at a file of
his choice.  openat2(2) with RESOLVE_NO_SYMLINKS refuses a link wherever it
stands, in one step: there is no moment between a look and the opening.

Never does: create, remove or write a file; follow a link; open for writing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
import struct
from fcntl import ioctl
from typing import Final

from pyvnet.errors import HostError, UsageError

_SYS_OPENAT2: Final = 437  # of the table that all architectures share
_AT_FDCWD: Final = -100
_RESOLVE_NO_SYMLINKS: Final = 0x04
_OPEN_HOW: Final = struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve

_CLONE_NEWNET: Final = 0x4000_0000
_NS_GET_NSTYPE: Final = 0xB703
_NAMED: Final = "/run/netns/"  # where iproute2 keeps the named ones
# The kernel's own link to the namespace of a process: its target cannot be chosen by anybody.
_OF_A_PROCESS: Final = re.compile(r"(/proc/[1-9][0-9]*/ns)/net")

_CURES: Final = {
    errno.ELOOP: "a symbolic link on the way is not followed: name what it points to",
    errno.ENOENT: "a part of the path is missing",
    errno.ENOSYS: "openat2() came with Linux 5.6",
}


def open_plain(path: str, flags: int) -> int:
    """Open ``path`` with no symbolic link on the way, closed on exec.

    Raises:
        HostError: there is one, or the kernel refuses.
    """
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(
        *(ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(_AT_FDCWD), os.fsencode(path)),
        *(how, ctypes.c_size_t(len(how))),
    )
    if fd < 0:
        error = ctypes.get_errno()
        raise HostError(f"cannot open {path}", error, _CURES.get(error, ""))
    return int(fd)


def enter_netns(name: str) -> None:
    """Move this thread to a network namespace.

    Args:
        name: of ``ip netns add NAME``, a path to such a file, or ``/proc/PID/ns/net``.

    Raises:
        HostError: it cannot be opened, or is no network namespace.
    """
    fd = _open_netns(name)
    try:
        enter(fd, name)
    finally:
        os.close(fd)


def enter(fd: int, label: str) -> None:
    """Move this thread to the network namespace ``fd`` is of."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET):
        cure = "run as root or with CAP_SYS_ADMIN"
        raise HostError(f"cannot enter {label}", ctypes.get_errno(), cure)


def _open_netns(name: str) -> int:
    process = _OF_A_PROCESS.fullmatch(name)
    if process:
        folder = open_plain(process[1], os.O_PATH | os.O_DIRECTORY)
        try:
            fd = os.open("net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            raise HostError(f"cannot open {name}", error.errno) from error
        finally:
            os.close(folder)
    else:
        fd = open_plain(name if "/" in name else _NAMED + name, os.O_RDONLY | os.O_NONBLOCK)
    try:
        kind = ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != _CLONE_NEWNET:
        os.close(fd)
        raise HostError(
            f"{name} is not a network namespace",
            cure="`ip netns list` shows those with a name; /proc/PID/ns/net is a process's",
        )
    return fd


def enter_folder_of(path: str) -> str:
    """Make the folder of ``path`` the working directory, so that it cannot be swapped.

    Returns:
        What is left: the name in it.
    """
    folder, _, name = path.rpartition("/")
    if name in {"", ".", ".."}:
        raise UsageError(f"{path!r} does not name a file")
    fd = open_plain(folder + "/" if folder or path.startswith("/") else ".", os.O_PATH)
    try:
        os.fchdir(fd)
    except OSError as error:
        raise HostError(f"cannot work in {folder}", error.errno) from error
    finally:
        os.close(fd)
    return name


def socket_address(path: str) -> tuple[str, int]:
    """The address of the socket file ``path``, and the fd that keeps it that of this very file.

    Raises:
        HostError: there is a link on the way, or it is no socket.
    """
    fd = open_plain(path, os.O_PATH)
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        os.close(fd)
        raise HostError(f"{path} is not a socket")
    return f"/proc/self/fd/{fd}", fd
