# SPDX-License-Identifier: MIT
"""The other direction: what the back-end asks of the front-end (SET_BACKEND_REQ_FD).

One request is obeyed, CONFIG_CHANGE_MSG.  Others are refused when they ask for
an answer, and counted.  A back-end that sends what is no message at all, or
does not read its answers, has broken the protocol.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from pyvnet.driver.errors import DeviceViolation
from pyvnet.driver.frontend_link import receive_with_fds
from pyvnet.spec import vhost_user as vu

if TYPE_CHECKING:
    from collections.abc import Callable

_HEADER: Final = vu.HEADER.size
# Taken in one go, so that a flood does not keep the loop from everything else.
_READ: Final = 4096

_OBEYED: Final = 0
_REFUSED: Final = 1


class BackendRequests:
    """A channel of its own for requests of the back-end.

    Args:
        on_config_change: called for each CONFIG_CHANGE_MSG, before it is answered.
        on_violation: called once, when the back-end breaks the protocol; the channel is closed.

    Attributes:
        refused: requests that were not obeyed, or not understood.
    """

    def __init__(
        self,
        on_config_change: Callable[[], None],
        on_violation: Callable[[Exception], None],
    ) -> None:
        self.refused = 0
        self._on_config_change = on_config_change
        self._on_violation = on_violation
        self._inbox = bytearray()
        self._loop = asyncio.get_running_loop()
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.settimeout(0)
        self._loop.add_reader(self._ours.fileno(), self._readable)

    @property
    def backend_fd(self) -> int:
        """What SET_BACKEND_REQ_FD carries; valid until `handed_over`."""
        return self._theirs.fileno()

    def handed_over(self) -> None:
        """Keep no copy of the back-end's end, so that its closing shows."""
        self._theirs.close()

    def close(self) -> None:
        """Take no more requests; harmless twice."""
        if self._ours.fileno() >= 0:
            self._loop.remove_reader(self._ours.fileno())
        self._ours.close()
        self._theirs.close()

    def _readable(self) -> None:
        try:
            data, fds = receive_with_fds(self._ours, _READ)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", 0
        if not data:  # it wants nothing any more; whether it is gone shows on the main socket
            self.close()
            return
        self.refused += bool(fds)
        self._inbox += data
        try:
            while self._take():
                pass
        except DeviceViolation as violation:
            self.close()
            self._on_violation(violation)

    def _take(self) -> bool:
        """Serve the next request, if it is whole."""
        if len(self._inbox) < _HEADER:
            return False
        header = vu.Header.unpack(bytes(self._inbox[:_HEADER]))
        if header.version != vu.VERSION or header.is_reply or header.size > vu.MAX_PAYLOAD:
            raise DeviceViolation(f"the back-end's request channel carries no request: {header}")
        end = _HEADER + header.size
        if len(self._inbox) < end:
            return False
        del self._inbox[:end]
        verdict = self._obey(header)
        if header.need_reply:
            self._answer(header.request, verdict)
        return True

    def _obey(self, header: vu.Header) -> int:
        if header.request == vu.BackendRequest.CONFIG_CHANGE_MSG and not header.size:
            self._on_config_change()
            return _OBEYED
        self.refused += 1
        return _REFUSED

    def _answer(self, request: int, verdict: int) -> None:
        message = vu.reply(request, vu.pack_u64(verdict))
        try:
            sent = self._ours.send(message, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it did not wait for the answer; the next read finds the channel closed
        if sent != len(message):
            raise DeviceViolation("the back-end does not read the answers to its requests")
