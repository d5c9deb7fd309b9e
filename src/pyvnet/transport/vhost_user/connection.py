# SPDX-License-Identifier: MIT
"""The socket around a session: one device, one front-end at a time.

Everything runs on the event loop and nothing waits: a front-end that stalls half
way through a message keeps nobody but itself waiting, one that floods is read a
few messages at a time, and one that does not read its answers is not read from
either.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import select
import socket
from typing import TYPE_CHECKING, Any, Final, Literal

from pyvnet.errors import FrontendError, PyvnetError, UsageError
from pyvnet.spec.features import feature_names
from pyvnet.transport.vhost_user import actions, rarp
from pyvnet.transport.vhost_user.channel import BackendChannel
from pyvnet.transport.vhost_user.messages import PROTOCOL_FEATURES
from pyvnet.transport.vhost_user.session import RefusedError, Session
from pyvnet.transport.vhost_user.state import Offer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyvnet.transport.base import DeviceHost
    from pyvnet.transport.vhost_user.actions import Action

_log = logging.getLogger("pyvnet")

_BURST: Final = 16  # messages taken before other callbacks of the loop have their turn
_NOTED_REFUSALS: Final = 10
_FD_SIZE: Final = array.array("i").itemsize
# A memory table brings 8; what goes beyond this the kernel never installs in our process, so
# that a front-end cannot use up the files of the others.
MESSAGE_FDS: Final = 32
_ANCILLARY: Final = socket.CMSG_SPACE(MESSAGE_FDS * _FD_SIZE)

_GONE: Final = "it closed the connection"

MAX_PAIRS: Final = 127  # a vring's index has 8 bits in some messages


class Backend:
    """Serves vhost-user front-ends for one device, one at a time.

    Args:
        host: the device; not to be used otherwise while a front-end is connected.
        name: how log lines call it.
        queue_num_unit: what GET_QUEUE_NUM counts (U-47).

    Raises:
        UsageError: more queue pairs than the protocol can number.
    """

    def __init__(
        self,
        host: DeviceHost,
        *,
        name: str,
        queue_num_unit: Literal["pairs", "vrings"] = "pairs",
    ) -> None:
        if host.pairs > MAX_PAIRS:
            raise UsageError(f"{host.pairs} queue pairs; vhost-user can number {MAX_PAIRS}")
        self._host = host
        self._name = name
        offered = int(host.device.offered)
        vrings = host.device.queue_count
        self._offer = Offer(
            offered,
            PROTOCOL_FEATURES,
            host.pairs,
            host.pairs if queue_num_unit == "pairs" else vrings,
        )
        self._session: Session | None = None
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: asyncio.Future[str] | None = None
        self._channel: BackendChannel | None = None
        self._config_change_due = False
        self._unsent = bytearray()
        self.connections = 0

    # Life of a connection.

    @property
    def connected(self) -> bool:
        """Whether a front-end has the device."""
        return self._session is not None

    @property
    def hung_up(self) -> bool:
        """Whether the front-end has left and its last words are still to be read."""
        if self._socket is None:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def serve(self, sock: socket.socket) -> asyncio.Future[str]:
        """Take over a connected stream socket and serve its front-end.

        Returns a future that resolves with the reason once it is over.  Raises
        UsageError when another front-end, or a driver, has the device.
        """
        if self.connected:
            raise UsageError("the device has a front-end already")
        self._host.attach(self)
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        sock.settimeout(0)
        self._socket = sock
        self._session = Session(self._offer)
        self._loop.add_reader(sock, self._readable)
        self.connections += 1
        _log.info("%s: a front-end connected", self._name)
        return self._done

    def disconnect(self, reason: str) -> None:
        """End the conversation: rings stop, the device keeps its state (U-59); harmless twice."""
        session, sock = self._session, self._socket
        if session is None or sock is None or self._loop is None:
            return
        self._session = self._socket = None
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)
        self._unsent.clear()
        sock.close()
        try:
            session.close(self._perform)
        except PyvnetError as error:
            _log.error("%s: what the front-end left is not in order: %s", self._name, error)
        finally:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            self._config_change_due = False
            self._host.detach(reset=False)
            _log.warning("%s: front-end disconnected: %s", self._name, reason)
            if self._done is not None and not self._done.done():
                self._done.set_result(reason)

    def status(self) -> dict[str, Any]:
        """Plain JSON types: what this front-end agreed to and how it stands."""
        session = self._session
        if session is None:
            return {"connected": False, "connections": self.connections}
        state = session.state
        return {
            "connected": True,
            "connections": self.connections,
            "protocol_features": [
                bit.name.lower() for bit in state.protocol_features if bit.name is not None
            ],
            "features": None if state.features is None else feature_names(state.device_features),
            "messages": session.messages,
            "refused": session.refused,
            "memory_regions": len(state.regions),
            "vrings": [
                {
                    "index": ring.index,
                    "size": ring.size,
                    "started": ring.started,
                    "enabled": ring.enabled,
                    "running": ring.running,
                }
                for ring in state.in_order()
            ],
        }

    # What the device says (DeviceUser).

    def config_changed(self) -> None:
        """Pass a configuration change on; a suspended device keeps it until it goes on."""
        self._config_change_due = self._channel is not None
        self._pass_config_change()

    def memory_lost(self) -> None:
        """The front-end cut its memory off under us."""
        self.disconnect("its guest memory went away while it was mapped")

    def _pass_config_change(self) -> None:
        session = self._session
        if not self._config_change_due or session is None or session.state.suspended:
            return
        self._config_change_due = False
        if self._channel is not None:
            self._channel.config_changed()

    # The socket.

    def _readable(self) -> None:
        try:
            for _ in range(_BURST):
                if self._unsent or not self._read():
                    return
        except BlockingIOError:
            return
        except ConnectionError:
            self.disconnect(_GONE)
        except PyvnetError as error:
            self.disconnect(str(error))
        except Exception:  # noqa: BLE001 - a fault of ours costs this front-end, no other
            _log.exception("%s: this should not have happened", self._name)
            self.disconnect("internal error")

    def _read(self) -> bool:
        """Read towards one message, and handle it when whole; False when it is over."""
        session, sock = self._session, self._socket
        if session is None or sock is None:
            return False
        data, fds = _receive(sock, session.missing)
        if not data:
            _close(fds)
            self.disconnect(_GONE)
            return False
        message = session.receive(data, fds)
        if message is not None:
            try:
                self._send(session.handle(message, self._perform))
            except RefusedError as refusal:
                self._note(refusal)
                self._send(refusal.answer)
            self._pass_config_change()
        return True

    def _note(self, refusal: RefusedError) -> None:
        """One line for each refusal, up to a number: the log is not the front-end's to fill."""
        count = self._session.refused if self._session is not None else 0
        if count <= _NOTED_REFUSALS:
            _log.warning("%s: %s", self._name, refusal)
        if count == _NOTED_REFUSALS:
            _log.warning("%s: what else is refused on this connection is not logged", self._name)

    def _send(self, data: bytes) -> None:
        if not data or self._socket is None or self._loop is None:
            return
        if not self._unsent:
            try:
                sent = self._socket.send(data, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            data = data[sent:]
        if data:
            self._unsent += data
            self._loop.remove_reader(self._socket)
            self._loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        sock, loop = self._socket, self._loop
        if sock is None or loop is None:
            return
        try:
            sent = sock.send(self._unsent, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionError:
            self.disconnect(_GONE)
            return
        del self._unsent[:sent]
        if not self._unsent:
            loop.remove_writer(sock)
            loop.add_reader(sock, self._readable)

    # What a message asks for.

    def _perform(self, action: Action) -> Any:  # noqa: C901, PLR0912 - one arm per action
        host = self._host
        device = host.device
        match action:
            case actions.Negotiate(features):
                host.perform(device.negotiate(features))
            case actions.SetMemory(regions):
                host.set_memory(regions)
            case actions.StartRing(setup, enabled):
                host.start_queue(setup, enabled=enabled)
            case actions.StopRing(index):
                return host.stop_queue(index)
            case actions.EnableRing(index, enabled):
                host.enable_queue(index, enabled=enabled)
            case actions.MoveRing(index, desc_table, avail_ring, used_ring):
                host.move_queue(index, desc_table, avail_ring, used_ring)
            case actions.ReplaceKick(index, kick_fd):
                host.replace_kick(index, kick_fd)
            case actions.ReplaceCalls(index, call_fd, err_fd):
                host.replace_calls(index, call_fd, err_fd)
            case actions.BeginAnew():
                host.perform(device.begin_anew())
            case actions.ResetDevice():
                host.perform(device.reset())
            case actions.ReadConfig(offset, size):
                return device.read_config(offset, size)
            case actions.ReadStatus():
                return device.status
            case actions.SetMtu(mtu):
                host.perform(device.set_frontend_mtu(mtu))
            case actions.SendRarp(mac):
                host.send_to_port(rarp.frame(mac))
            case actions.OpenBackendChannel(fd):
                channel = BackendChannel(fd)
                if self._channel is not None:
                    self._channel.close()
                self._channel = channel
        return None


def _receive(sock: socket.socket, wanted: int) -> tuple[bytes, list[int]]:
    """Up to ``wanted`` bytes and the fds beside them; raises FrontendError for too many fds."""
    how = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT  # whoever gave us the socket has it too
    data, ancillary, flags, _ = sock.recvmsg(wanted, _ANCILLARY, how)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % _FD_SIZE])
    if flags & socket.MSG_CTRUNC:
        _close(fds)
        raise FrontendError("more file descriptors than fit, or than this process may hold")
    return data, list(fds)


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
