# SPDX-License-Identifier: MIT
"""The broker's messages: JSON objects over a SOCK_SEQPACKET socket, one per message, fds beside.

A client asks, the broker answers, in order.  The first request is ``hello``.

::

    {"op": "hello", "version": 1}
        → {"ok": true, "version": 1, "release": "0.1.0"}
    {"op": "make-tap", "queues": N, "name": NAME?, "mtu": N?, "bridge": NAME?}
        → {"ok": true, "object": ID, "name": NAME}                 fds: one per queue
    {"op": "load-steering"}
        → {"ok": true, "program": ID, "map": ID}                   fds: program, map
    {"op": "make-map", "type": N, "key-size": N, "value-size": N, "entries": N, "flags": N?}
        → {"ok": true, "object": ID}                               fds: the map
    {"op": "load-program", "code": BASE64, "maps": [ID, …], "license": TEXT}
        → {"ok": true, "object": ID}                               fds: the program
    {"op": "attach", "tap": ID, "program": ID or null}
        → {"ok": true}
    {"op": "status"}
        → {"ok": true, "objects": [{"object": ID, "kind": …}, …]}
    {"op": "close", "object": ID}
        → {"ok": true}

``code`` names the maps by their place in ``maps`` (``offload/check.py``), and is a
socket filter.  What cannot be done changes nothing and is answered
``{"ok": false, "error": …, "errno": N or null, "cure": …}``.  Who does not keep to
the protocol (no JSON object, an unknown operation or key, a value of the wrong
type, another version, a descriptor beside a request, nothing asked before
``hello``) is told so in the same form with ``"fatal": true``, and the connection
ends.  Requests never carry descriptors: what a client has made elsewhere is not
the broker's affair.

An ID is good on the connection it was given on.  When that ends the broker lets
go of all it held; the client's descriptors are the client's.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

from pyvnet.errors import FrontendError

VERSION: Final = 1
MESSAGE_MAX: Final = 65536  # bytes
FDS_MAX: Final = 253  # SCM_MAX_FD: more than a tap has queues here
_FD: Final = struct.Struct("i")


@dataclass(frozen=True, slots=True)
class Field:
    """A key of a request: its type and, of a number, what it may be."""

    type: type
    optional: bool = False
    low: int = 0
    high: int = 2**31 - 1


NUMBER: Final = Field(int)
ID: Final = Field(int, low=1)
NAME: Final = Field(str, optional=True)

# Operation → its keys.  The table is the check: nothing else reaches a handler.
OPERATIONS: Final[dict[str, dict[str, Field]]] = {
    "hello": {"version": NUMBER},
    "make-tap": {
        "queues": Field(int, low=1, high=FDS_MAX),
        "name": NAME,
        "mtu": Field(int, optional=True, low=1, high=65535),
        "bridge": NAME,
    },
    "load-steering": {},
    "make-map": {
        "type": NUMBER,
        "key-size": NUMBER,
        "value-size": NUMBER,
        "entries": NUMBER,
        "flags": Field(int, optional=True),
    },
    "load-program": {"code": Field(str), "maps": Field(list), "license": Field(str)},
    "attach": {"tap": ID, "program": Field(int, optional=True, low=1)},
    "status": {},
    "close": {"object": ID},
}


def read_request(data: bytes) -> tuple[str, dict[str, Any]]:
    """Check a message against the table.

    Returns:
        The operation, and all its keys, None for what was left out.

    Raises:
        FrontendError: it is none of the protocol's.
    """
    message = _object(data)
    operation = message.pop("op", None)
    fields = OPERATIONS.get(operation) if isinstance(operation, str) else None
    if fields is None:
        raise FrontendError(f"there is no operation {str(operation)[:40]!r}")
    for key in message:
        if key not in fields:
            raise FrontendError(f"{operation} takes no {key[:40]!r}")
    for key, field in fields.items():
        _check(f"{operation}: {key}", message.setdefault(key, None), field)
    return str(operation), message


def _check(what: str, value: object, field: Field) -> None:
    if value is None and field.optional:
        return
    if type(value) is not field.type:
        raise FrontendError(f"{what} is not {_TYPES[field.type]}")
    if isinstance(value, int) and not field.low <= value <= field.high:
        raise FrontendError(f"{what} is not from {field.low} to {field.high}")


_TYPES: Final = {int: "a number", str: "a string", list: "a list"}


def read_answer(data: bytes) -> dict[str, Any]:
    """A broker's answer; raises FrontendError for anything else."""
    if not data:
        raise FrontendError("it ended the connection")
    message = _object(data)
    if type(message.get("ok")) is not bool:
        raise FrontendError("the answer does not say whether it went well")
    return message


def _object(data: bytes) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise FrontendError("the message is not a JSON object")
    return message


def send(to: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send one message; the fds stay the caller's.  Raises OSError."""
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    to.sendmsg([json.dumps(message).encode()], beside, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """One message and the fds beside it, which are the caller's; no bytes: the other side is gone.

    Raises:
        FrontendError: it is too long, or carries more fds than any message.
        OSError: of the socket.
    """
    space = socket.CMSG_SPACE(FDS_MAX * _FD.size)
    data, beside, flags, _ = sock.recvmsg(MESSAGE_MAX + 1, space, socket.MSG_CMSG_CLOEXEC)
    fds = tuple(
        fd
        for level, kind, content in beside
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (fd,) in _FD.iter_unpack(content[: len(content) // _FD.size * _FD.size])
    )
    if len(data) > MESSAGE_MAX or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(fds)
        raise FrontendError(f"the message is longer than {MESSAGE_MAX} bytes, or has too many fds")
    return data, fds


def close_all(fds: tuple[int, ...]) -> None:
    """Close them."""
    for fd in fds:
        os.close(fd)
