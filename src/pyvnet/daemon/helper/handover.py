# SPDX-License-Identifier: MIT
"""Handing descriptors over, and being gone.

To a program that is executed in this process, as systemd passes them
(sd_listen_fds(3)): from 3 on, LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES.  Or to
whoever listens at NOTIFY_SOCKET, as to systemd's fd store (sd_notify(3)): a
datagram per name, ``FDSTORE=1`` and ``FDNAME=``, with the descriptors beside it.

Never does: pass on a descriptor that was not made here, standard input and
output apart; execute anything with a privilege left.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, Self

from pyvnet.daemon.helper import paths, privileges
from pyvnet.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyvnet.daemon.helper.made import Named

FIRST: Final = 3  # SD_LISTEN_FDS_START
_FDS_PER_MESSAGE: Final = 253  # SCM_MAX_FD
_PATIENCE: Final = 10.0  # seconds for the other side to take everything
_OF_LISTENERS: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def reserve(count: int) -> None:
    """Close all but standard input and output, and keep ``count`` places behind them free.

    To be called first: what is made later stands out of the way of what is handed over.
    """
    close_inherited()
    for place in range(FIRST + count):
        try:
            os.fstat(place)
        except OSError:  # closed standard output too: or something of ours would become it
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), place < FIRST)


def close_inherited() -> None:
    """Close all but standard input and output: the others are nobody's here."""
    # Those there are, not all there may be: the limit may be a thousand million.
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd >= FIRST:
            with contextlib.suppress(OSError):  # the listing's own
                os.close(fd)


def execute(
    command: Sequence[str],
    who: privileges.User,
    named: Named,
    environment: Mapping[str, str],
) -> NoReturn:
    """Become ``who`` without privileges and execute ``command`` with these descriptors.

    Raises:
        HostError: privileges could not be given away, or there is no such program.
    """
    for place, fd in enumerate(named.fds, FIRST):
        os.dup2(fd, place, inheritable=True)
    privileges.become(who)
    inherited = {k: v for k, v in environment.items() if k not in _OF_LISTENERS}
    inherited |= {"USER": who.name, "LOGNAME": who.name, "HOME": who.home or "/"}
    inherited |= {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(len(named.fds)),
        "LISTEN_FDNAMES": ":".join(named.names),
    }
    try:
        os.execvpe(command[0], list(command), inherited)  # noqa: S606 - no shell is the point
    except OSError as error:
        denied = error.errno == errno.EACCES
        cure = "it must be a program that this user may reach" if denied else ""
        raise HostError(f"cannot execute {command[0]} as {who.name}", error.errno, cure) from error


class Store:
    """The fd store at ``address``, as NOTIFY_SOCKET has it: a path, or ``@`` and an abstract name.

    Raises:
        HostError: nobody is there; also from its methods.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._held = -1
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_PATIENCE)
        with ExitStack() as undo:
            undo.callback(self.close)
            if address.startswith("@"):
                target = "\0" + address[1:]
            else:
                target, self._held = paths.socket_address(address)
            with self._explained():
                self._socket.connect(target)
            undo.pop_all()

    def forget(self, names: Sequence[str]) -> None:
        """Have it let go of what it holds under these names, from an earlier start."""
        with self._explained():
            for name in names:
                _send(self._socket, f"FDSTOREREMOVE=1\nFDNAME={name}", [])
            _wait_until_read(self._socket)

    def keep(self, named: Named) -> None:
        """Hand them over; at most 253 of a name.  It has them when this returns."""
        with self._explained():
            for name in dict.fromkeys(named.names):
                fds = [fd for fd, its in zip(named.fds, named.names, strict=True) if its == name]
                # Not to be watched: a tap queue may report an error while it is detached.
                _send(self._socket, f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fds)
            _wait_until_read(self._socket)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
        if self._held >= 0:
            os.close(self._held)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            cure = "NotifyAccess=exec lets a helper in ExecStartPre= reach it"
            raise HostError(f"cannot hand over by {self._address}", error.errno, cure) from error


def _send(sender: socket.socket, text: str, fds: list[int]) -> None:
    if len(fds) > _FDS_PER_MESSAGE:
        raise HostError(f"{len(fds)} descriptors of one name; a message takes {_FDS_PER_MESSAGE}")
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sender.sendmsg([text.encode()], beside)


def _wait_until_read(sender: socket.socket) -> None:
    """sd_notify_barrier(3): who closes the pipe's other end has read all that came before."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            _send(sender, "BARRIER=1", [theirs])
        finally:
            os.close(theirs)
        poll = select.poll()
        poll.register(ours, 0)
        if not poll.poll(int(_PATIENCE * 1000)):
            raise TimeoutError(errno.ETIMEDOUT, "barrier")
    finally:
        os.close(ours)
