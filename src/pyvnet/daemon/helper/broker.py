# SPDX-License-Identifier: MIT
"""The broker: a process that stays, to make on request what one user may not make himself.

Its socket belongs to that user (mode 0600), and whoever connects is asked for
his uid all the same (SO_PEERCRED).  It works in one network namespace, which it
enters before anybody may ask; then it gives away every capability but
CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON.

A client gets one message read per turn of the loop, and its answer sent at
once or never: who does not read his answers is let go.  So nobody can make the
broker wait, and what it keeps for anybody is bounded (``clients``).

Never does: anything for another uid; wait for a client; read a frame.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import struct
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from pyvnet.daemon import sockets
from pyvnet.daemon.helper import handover, paths, privileges, programs, protocol, taps
from pyvnet.daemon.helper.clients import OBJECTS_MAX, Client, Policy
from pyvnet.daemon.notify import notify
from pyvnet.errors import FrontendError, HostError, PyvnetError
from pyvnet.netdev.limits import raise_open_files

if TYPE_CHECKING:
    import argparse

CLIENTS_MAX: Final = 32
_UCRED: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid
_KEPT: Final = frozenset({privileges.CAP_NET_ADMIN, privileges.CAP_BPF, privileges.CAP_PERFMON})
_FDS_OF_PROCESS: Final = 16
_LINES_MAX: Final = 100  # in the log, of clients that were let go

_log = logging.getLogger("pyvnet.helper")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status.

    Raises:
        PyvnetError: it could not start; nothing is left behind.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="pyvnet helper: %(message)s")
    who = privileges.user(args.user)
    owner = taps.ROOT if args.owner is None else privileges.user(args.owner).uid
    policy = Policy(tuple(args.allow_tap), tuple(args.allow_bridge), args.queues, owner)
    handover.close_inherited()
    with ExitStack() as undo:
        stop = undo.enter_context(_Stop())
        name = paths.enter_folder_of(args.serve)
        file = sockets.listen(name, mode=0o600, owner=who.uid, kind=socket.SOCK_SEQPACKET)
        undo.callback(file.close)
        if args.netns is not None:
            paths.enter_netns(args.netns)
        _try_steering()
        privileges.keep_only(_KEPT)
        raise_open_files(_FDS_OF_PROCESS + CLIENTS_MAX * (1 + OBJECTS_MAX) + args.queues)
        with Broker(file.socket, who.uid, policy) as broker:
            _log.info("ready at %s for %s (uid %d)", args.serve, who.name, who.uid)
            notify("READY=1")
            broker.serve(stop.fd)
        notify("STOPPING=1")
    return 0


def _try_steering() -> None:
    """Say now what clients would be told later; and read what loading takes while we may."""
    try:
        program, map_ = programs.load_steering()
    except HostError as error:
        _log.warning("no steering program: %s", error)
    else:
        os.close(program)
        os.close(map_)


class Broker:
    """Clients of one uid at a listening socket, in turn."""

    def __init__(self, listener: socket.socket, uid: int, policy: Policy) -> None:
        self._listener = listener
        self._uid = uid
        self._policy = policy
        self._clients: dict[socket.socket, Client] = {}
        self._selector = selectors.DefaultSelector()
        self._lines = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in list(self._clients):
            self._let_go(sock, "")
        self._selector.close()

    def serve(self, stop: int) -> None:
        """Answer until ``stop`` is readable."""
        self._selector.register(stop, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in self._selector.select()}
            if stop in ready:
                return
            for sock in [sock for sock in self._clients if sock in ready]:
                self._turn(sock)
            if self._listener in ready:  # last: who left makes room for who comes
                self._accept()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it went away again, or we are out of something: it may come again
            return
        sock.settimeout(0)
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, _gid = _UCRED.unpack(credentials)
        reason = ""
        if uid != self._uid:
            reason = f"this broker is for uid {self._uid}, and you are {uid}"
        elif len(self._clients) >= CLIENTS_MAX:
            reason = f"{CLIENTS_MAX} clients are connected, which are the most"
        self._clients[sock] = Client(self._policy)
        if reason:
            self._refuse(sock, FrontendError(reason))
            self._let_go(sock, f"process {pid}: {reason}")
        else:
            self._selector.register(sock, selectors.EVENT_READ)

    def _turn(self, sock: socket.socket) -> None:
        """Read and answer one message."""
        try:
            data, fds = protocol.receive(sock)
            protocol.close_all(fds)
            if data or fds:
                self._answer(sock, data, len(fds))
            else:
                self._let_go(sock, "")
        except FrontendError as error:
            self._refuse(sock, error)
            self._let_go(sock, str(error))
        except OSError as error:
            self._let_go(sock, f"its answer could not be sent: {error.strerror}")
        except Exception:  # noqa: BLE001
            # A fault of ours, which is to cost this client its connection and the others nothing.
            _log.exception("a request could not be answered")
            self._let_go(sock, "")

    def _answer(self, sock: socket.socket, data: bytes, fds: int) -> None:
        if fds:
            raise FrontendError("a request carries no descriptors")
        try:
            answer = self._clients[sock].answer(data)
        except FrontendError:
            raise
        except PyvnetError as error:
            protocol.send(sock, _failure(error))
            return
        with answer.after:
            protocol.send(sock, {"ok": True} | answer.message, answer.fds)

    def _refuse(self, sock: socket.socket, error: PyvnetError) -> None:
        with contextlib.suppress(OSError):  # it did not wait to be told
            protocol.send(sock, _failure(error) | {"fatal": True})

    def _let_go(self, sock: socket.socket, reason: str) -> None:
        client = self._clients.pop(sock)
        if sock in self._selector.get_map():
            self._selector.unregister(sock)
        client.close()  # first: who sees the connection end finds all of it gone
        sock.close()
        if reason and self._lines < _LINES_MAX:
            self._lines += 1
            last = "; no more such lines" if self._lines == _LINES_MAX else ""
            _log.warning("a client was let go: %s%s", reason, last)


def _failure(error: PyvnetError) -> dict[str, Any]:
    if isinstance(error, HostError):
        return {"ok": False, "error": error.what, "errno": error.errno, "cure": error.cure}
    return {"ok": False, "error": str(error), "errno": None, "cure": ""}


class _Stop:
    """An fd that is readable once SIGTERM or SIGINT came."""

    def __enter__(self) -> Self:
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._write)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self.fd)
        os.close(self._write)
