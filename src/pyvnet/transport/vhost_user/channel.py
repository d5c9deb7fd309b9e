# SPDX-License-Identifier: MIT
"""Our own requests to the front-end, on the socket it gave us for them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pyvnet.errors import FrontendError
from pyvnet.spec.vhost_user import BackendRequest, message

if TYPE_CHECKING:
    from pyvnet.transport.vhost_user.fds import Fd


class BackendChannel:
    """The socket of SET_BACKEND_REQ_FD; raises FrontendError for an fd that is none.

    Nothing here waits for the front-end: some hand over a blocking socket, and
    none is asked for an acknowledgement.  One that does not take what it is told
    is told no more.
    """

    def __init__(self, fd: Fd) -> None:
        try:
            probe = socket.socket(fileno=fd.number)
        except OSError as error:
            raise FrontendError("the fd for back-end requests is not a socket") from error
        fd.take()
        self._socket = probe
        self._failed = False

    def config_changed(self) -> None:
        """Tell the front-end to read configuration space again."""
        if self._failed:
            return
        request = message(BackendRequest.CONFIG_CHANGE_MSG)
        try:
            sent = self._socket.send(request, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            sent = 0
        self._failed = sent != len(request)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
