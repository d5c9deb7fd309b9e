# SPDX-License-Identifier: MIT
"""The device's side of the broker: what it may not make itself, it asks for.

The broker is trusted no further than a host is: what it answers is checked,
and it gets a limited time.  Once a device has what it asked for it needs the
broker no more; the connection is kept so that the broker keeps what it holds
for this device, and lets go of it when the device goes.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import TYPE_CHECKING, Any, Final, Self

from pyvnet.daemon.helper import protocol
from pyvnet.errors import FrontendError, HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE: Final = 10.0  # seconds for an answer
_CURES: Final = {
    errno.ENOENT: "start `pyvnet helper --serve PATH --user USER` first",
    errno.ECONNREFUSED: "start `pyvnet helper --serve PATH --user USER` first",
    errno.EACCES: "the broker is for another user",
    errno.EPROTOTYPE: "it is not a broker's socket",
}


class Session:
    """A connection to the broker at ``path``.

    Raises:
        HostError: nobody listens there, or it is no broker of our version.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_PATIENCE)
        try:
            self._connect()
            self._ask(0, "hello", version=protocol.VERSION)
        except BaseException:
            self._socket.close()
            raise

    def make_tap(
        self, queues: int, name: str | None, mtu: int | None, bridge: str | None
    ) -> tuple[int, ...]:
        """A new tap: an fd per queue, the caller's to close; raises HostError."""
        wished = {"name": name, "mtu": mtu, "bridge": bridge}
        said = {key: value for key, value in wished.items() if value is not None}
        return self._ask(queues, "make-tap", queues=queues, **said)

    def load_steering(self) -> tuple[int, int]:
        """The built-in steering program and its map, the caller's to close; raises HostError."""
        program, map_ = self._ask(2, "load-steering")
        return program, map_

    def close(self) -> None:
        """Have the broker let go of what it holds; harmless to repeat."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> None:
        try:
            self._socket.connect(self._path)
        except OSError as error:
            cure = _CURES.get(error.errno or 0, "")
            raise HostError(f"no helper at {self._path}", error.errno, cure) from error

    def _ask(self, count: int, operation: str, **values: Any) -> tuple[int, ...]:
        """Ask; returns the ``count`` fds beside the answer."""
        with self._explained():
            protocol.send(self._socket, {"op": operation} | values)
            data, fds = protocol.receive(self._socket)
        try:
            with self._explained():
                answer = protocol.read_answer(data)
            self._check(answer, len(fds), count)
        except BaseException:
            protocol.close_all(fds)
            raise
        return fds

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FrontendError as error:
            raise HostError(f"the helper at {self._path} is none we know: {error}") from error
        except TimeoutError:
            raise HostError(f"the helper at {self._path} does not answer") from None
        except OSError as error:
            raise HostError(f"the helper at {self._path} is gone", error.errno) from error

    @staticmethod
    def _check(answer: dict[str, Any], found: int, wanted: int) -> None:
        if answer["ok"]:
            if found != wanted:
                raise HostError(f"the helper sent {found} descriptors, not {wanted}")
            return
        number, cure = answer.get("errno"), answer.get("cure")
        if type(number) is not int or not 0 < number < 4096:  # MAX_ERRNO
            number = None
        raise HostError(f"the helper refused: {answer.get('error')}", number, cure or "")
