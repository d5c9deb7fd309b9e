# SPDX-License-Identifier: MIT
"""Network namespaces: entering a private one, and working in another one.

The theory of threads and namespaces is in ``fresh_thread``.  Sources:
namespaces(7), network_namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from pyvnet.errors import HostError
from pyvnet.netdev import fresh_thread, rtnl

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_T = TypeVar("_T")

_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWNET: Final = 0x4000_0000
_CURRENT: Final = "/proc/thread-self/ns/net"
_NAMED: Final = Path("/run/netns")  # where iproute2 keeps the named ones


class NetNamespace:
    """A network namespace held by an fd; it lives at least until ``close()``.

    Args:
        path: an existing one, e.g. ``/proc/PID/ns/net``; None makes a private
            one with its loopback up, which needs CAP_SYS_ADMIN.

    Raises:
        HostError: it cannot be made or opened.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        if path is None:
            self._fd = fresh_thread.call(_make_private)
        else:
            self._fd = _open(path)

    @classmethod
    def current(cls) -> Self:
        """The one the calling thread is in."""
        return cls(_CURRENT)

    @classmethod
    def named(cls, name: str) -> Self:
        """One of ``ip netns add NAME``; a name with a slash is taken as a path."""
        return cls(name if "/" in name else _NAMED / name)

    def call(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in this namespace, in a thread of its own, and return its result.

        It runs outside any event loop, also when the caller is inside one.

        Raises:
            HostError: this namespace is not the caller's, and CAP_SYS_ADMIN is missing.
        """
        fd = self._fd

        def visit() -> _T:
            # setns() needs CAP_SYS_ADMIN even to stay where one is.
            if not os.path.samestat(os.fstat(fd), Path(_CURRENT).stat()):
                _enter(fd)
            return work()

        return fresh_thread.call(visit)

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """``subprocess.run()`` with the child in this namespace."""
        return self.call(lambda: subprocess.run(command, check=True, **options))  # noqa: S603

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """``subprocess.Popen()`` with the child in this namespace."""
        return self.call(lambda: subprocess.Popen(command, **options))  # noqa: S603

    def fileno(self) -> int:
        """The namespace's fd."""
        return self._fd

    def close(self) -> None:
        """Let go of it; harmless to repeat."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def enter_private_netns() -> str | None:
    """Move the calling thread, and the threads it starts from now on, to a new namespace.

    Without CAP_SYS_ADMIN a user namespace is made around it, in which the caller
    is root and may make taps; the kernel allows that to a process with one thread
    only.  The loopback comes up.  The namespace ends with its last thread and fd.

    Returns:
        None, or the reason why not.  The thread is then where it was, or, where the
        kernel grants a user namespace but no rights in it, in one that is of no use.
    """
    uid, gid = os.geteuid(), os.getegid()
    error = _unshare(_CLONE_NEWNET)
    if error == errno.EPERM:
        _let_ended_threads_go()
        error = _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        if error == errno.EINVAL:
            return "only a process with one thread may make a user namespace"
        if error:
            return f"neither CAP_SYS_ADMIN nor user namespaces: {os.strerror(error)}"
        try:
            _become_root_inside(uid, gid)
        except OSError as refusal:
            return f"user namespaces are restricted here: {refusal.strerror}"
    elif error:
        return f"no network namespace: {os.strerror(error)}"
    try:
        rtnl.set_up("lo")
    except HostError as refusal:
        return f"the new network namespace is of no use: {refusal}"
    return None


def _make_private() -> int:
    error = _unshare(_CLONE_NEWNET)
    if error:
        raise HostError(
            "cannot make a network namespace", error, "run as root or with CAP_SYS_ADMIN"
        )
    rtnl.set_up("lo")
    return _open(_CURRENT)


def _let_ended_threads_go() -> None:
    """A thread that was joined leaves the kernel a moment later, and would still count."""
    tasks = Path("/proc/self/task")
    for _ in range(1000):
        if threading.active_count() > 1 or len(list(tasks.iterdir())) == 1:
            return
        os.sched_yield()


def _become_root_inside(uid: int, gid: int) -> None:
    # user_namespaces(7): without privilege outside, setgroups() must be given up
    # before a group may be mapped.
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"0 {uid} 1")
    (own / "gid_map").write_text(f"0 {gid} 1")


def _open(path: str | os.PathLike[str]) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        missing = error.errno == errno.ENOENT
        cure = "`ip netns add NAME` makes one, `ip netns list` shows them" if missing else ""
        raise HostError(
            f"cannot open network namespace {os.fspath(path)}", error.errno, cure
        ) from error


def _enter(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET):
        raise HostError(
            "cannot enter the network namespace",
            ctypes.get_errno(),
            "run as root, or start the program inside it with `ip netns exec`",
        )


def _unshare(flags: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.unshare(flags) else 0
