# SPDX-License-Identifier: MIT
"""Listening sockets in the file system: made, taken over when stale, and removed.

A socket file outlives the program that was killed.  Whether somebody still
listens is asked by connecting: refused means stale, and only then is the file
removed.  From the look to the listen() the folder is locked (flock), so two
of us that start at once cannot both take the same stale file.

The file never has a wider mode than in the end, nor another group: a socket is
bound with the mode that its inode has already (unix_bind() of net/unix), the
owner's share of the mode asked for; group and the rest of the mode follow
through an O_PATH descriptor of the very file that was bound.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import select
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyvnet.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_BACKLOG: Final = 16
_PATH_MAX: Final = 107  # sun_path without its terminating zero
_OWNER: Final = 0o700
_LOCK_TRIES: Final = 40
_LOCK_PAUSE: Final = 0.05  # seconds; together two
_CONNECT_PATIENCE: Final = 1.0  # seconds; a local connect() only waits on a full backlog


@dataclass(frozen=True, slots=True)
class SocketFile:
    """A listening socket and the file it is bound to."""

    socket: socket.socket
    path: str
    inode: tuple[int, int]

    def close(self) -> None:
        """Stop listening, and remove the file unless it is somebody else's by now."""
        with contextlib.suppress(OSError):
            if _identity(os.lstat(self.path)) == self.inode:
                Path(self.path).unlink()
        self.socket.close()


def listen(
    path: str,
    *,
    mode: int | None = None,
    group: str | None = None,
    owner: int = -1,
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> SocketFile:
    """Listen at ``path``, nonblocking.

    Args:
        path: a stale socket file there is replaced, anything else is not.
        mode: of the file; None leaves it to the umask.
        group: name of the file's group, or its number.
        owner: uid the file is given to; -1: nobody else.
        kind: of the socket.

    Raises:
        HostError: somebody listens there, or the file is no socket, or the
            kernel refuses: with the cure.
        UsageError: a path too long, or a group that does not exist.
    """
    check_path(path)
    gid = None if group is None else _group(group)
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    with contextlib.ExitStack() as undo:
        undo.callback(listener.close)
        try:
            with _locked(Path(path).parent):
                _make_room(path, kind)
                if mode is not None or gid is not None:
                    os.fchmod(listener.fileno(), _OWNER if mode is None else mode & _OWNER)
                listener.bind(path)
                undo.callback(_forget, path)
                inode = _settle(path, mode, -1 if gid is None else gid, owner)
                listener.listen(_BACKLOG)
        except OSError as error:
            cure = _CURES.get(error.errno or 0, "")
            raise HostError(f"cannot listen at {path}", error.errno, cure) from error
        undo.pop_all()
    return SocketFile(listener, path, inode)


def check_path(path: str) -> None:
    """Refuse what no socket address can hold."""
    if len(os.fsencode(path)) > _PATH_MAX:
        raise UsageError(f"{path} is too long for a socket: {_PATH_MAX} bytes at most")


def inherited(fd: int) -> socket.socket:
    """The AF_UNIX stream socket open as ``fd``, nonblocking.

    Raises:
        HostError: it is none.
    """
    cure = "hand over a listening or a connected AF_UNIX stream socket"
    try:
        found = socket.socket(fileno=fd)
    except OSError as error:
        raise HostError(f"fd {fd} is no socket to serve on", error.errno, cure) from error
    if found.family != socket.AF_UNIX or found.type != socket.SOCK_STREAM:
        found.detach()
        raise HostError(f"fd {fd} is a socket of another kind", cure=cure)
    if not is_listening(found):
        try:
            found.getpeername()
        except OSError as error:
            found.detach()
            raise HostError(
                f"fd {fd} neither listens nor is connected", error.errno, cure
            ) from error
    found.settimeout(0)
    return found


def is_listening(sock: socket.socket) -> bool:
    """SO_ACCEPTCONN."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _make_room(path: str, kind: socket.SocketKind) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise HostError(
            f"{path} exists and is not a socket", cure="choose another path, or remove it"
        )
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.settimeout(_CONNECT_PATIENCE)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            if _identity(os.lstat(path)) == _identity(found):
                Path(path).unlink()
            return
        except FileNotFoundError:
            return
        except (BlockingIOError, TimeoutError):
            pass  # its backlog is full: somebody lives there
        except OSError as error:
            cure = "remove the file if nothing uses it, or choose another path"
            raise HostError(f"cannot tell whether {path} is in use", error.errno, cure) from error
    raise HostError(
        f"{path} is in use: a running program listens there",
        cure="stop that program, or choose another path",
    )


def _settle(path: str, mode: int | None, gid: int, uid: int) -> tuple[int, int]:
    """Give the file just bound its owner, group and mode; returns which file it is."""
    file = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        if not stat.S_ISSOCK(found.st_mode):
            raise OSError(errno.EEXIST, "replaced by another program")
        self_link = f"/proc/self/fd/{file}"
        if (uid, gid) != (-1, -1):
            os.chown(self_link, uid, gid)
        if mode is not None:
            Path(self_link).chmod(mode)
        elif gid != -1:
            Path(self_link).chmod(0o777 & ~_umask())
        return _identity(found)
    finally:
        os.close(file)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _forget(path: str) -> None:
    with contextlib.suppress(OSError):
        Path(path).unlink()


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, or go without it.

    A program of ours holds it for a moment only; whoever may read the folder
    could hold it for ever, and is not to keep us from starting.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        yield
        return
    try:
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                select.select([], [], [], _LOCK_PAUSE)
        yield
    finally:
        os.close(handle)


def _group(name: str) -> int:
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise UsageError(f"there is no group {name!r}") from None


_CURES: Final = {
    errno.ENOENT: "make the folder first",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "only root, or a member, may give a file to a group",
    errno.EROFS: "choose a folder you may write to",
    errno.EADDRINUSE: "another program came first: choose another path",
}
