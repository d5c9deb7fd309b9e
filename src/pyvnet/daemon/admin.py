# SPDX-License-Identifier: MIT
"""The admin socket: newline JSON, one request and one answer per line.

::

    ← {"version": "0.1.0", "pid": 4711, "schema": "pyvnet/1"}
    → status
    ← {"ok": true, "result": {…}}
    → link down vm1
    → {"command": "link", "device": "vm1", "state": "down"}
    ← {"ok": false, "error": "there is no device 'vm1'"}

Clients are not trusted to behave: a line has a longest length, a request is
read only when the answer before it has left, one who does not read is dropped,
and there is a largest number of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Protocol

from pyvnet.daemon.readers import nearest
from pyvnet.errors import PyvnetError, UsageError

if TYPE_CHECKING:
    from pyvnet.daemon.sockets import SocketFile

_log = logging.getLogger("pyvnet")

SCHEMA: Final = "pyvnet/1"
LINE_MAX: Final = 4096
CLIENTS_MAX: Final = 16
_PATIENCE: Final = 5.0  # seconds a client may leave an answer unread

COMMANDS: Final = {
    "status": "status [DEVICE]",
    "link": "link up|down [DEVICE]",
    "announce": "announce [DEVICE]",
    "steering-program": "steering-program OBJ|none [DEVICE]",
    "capture": "capture FILE|none [DEVICE]",
    "help": "help",
}

# What comes before DEVICE.
_ARGUMENTS: Final = {"link": "state", "steering-program": "program", "capture": "file"}
NONE: Final = "none"
PATHS: Final = ("program", "file")


class Service(Protocol):
    """Who carries the commands out; ``device`` None is the only one there is."""

    def status(self, device: str | None) -> dict[str, Any]:
        """All devices, or one."""

    def set_link(self, device: str | None, *, up: bool) -> dict[str, Any]:
        """Plug the cable in or out."""

    def announce(self, device: str | None) -> dict[str, Any]:
        """Let the guest announce itself."""

    def set_steering_program(self, device: str | None, program: str | None) -> dict[str, Any]:
        """Attach a program of the operator's, or detach it."""

    def set_capture(self, device: str | None, path: str | None) -> dict[str, Any]:
        """Begin a capture, or end it."""


class AdminServer:
    """Answers on a listening socket."""

    def __init__(self, service: Service, file: SocketFile) -> None:
        self._service = service
        self._file = file
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to accept."""
        self._server = await asyncio.start_unix_server(
            self._welcome, sock=self._file.socket, limit=LINE_MAX
        )

    async def close(self) -> None:
        """Stop, drop every client, remove the socket file."""
        if self._server is not None:
            self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._file.close()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the streams server makes one
        full = len(self._clients) >= CLIENTS_MAX
        self._clients.add(task)
        writer.transport.set_write_buffer_limits(high=0)
        try:
            if full:
                await _send(writer, _refusal(f"{CLIENTS_MAX} clients are connected already"))
            else:
                await self._serve(reader, writer)
        except (ConnectionError, TimeoutError) as error:
            _log.info("admin: client dropped: %s", str(error) or "it does not read")
        finally:
            self._clients.discard(task)
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            else:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _send(writer, {"version": version("pyvnet"), "pid": os.getpid(), "schema": SCHEMA})
        while True:
            try:
                line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return  # it left; half a line is no request
            except asyncio.LimitOverrunError:
                await _send(writer, _refusal(f"a request has at most {LINE_MAX} bytes"))
                return
            await _send(writer, self.answer(line))

    def answer(self, line: bytes) -> dict[str, Any]:
        """Carry out one request; never raises for what the client sent."""
        try:
            return {"ok": True, "result": self._execute(parse(line))}
        except PyvnetError as error:
            return _refusal(str(error))

    def _execute(self, request: dict[str, str]) -> dict[str, Any]:
        device = request.get("device")
        match request["command"]:
            case "status":
                return self._service.status(device)
            case "link":
                state = request.get("state")
                if state not in {"up", "down"}:
                    raise UsageError(f"usage: {COMMANDS['link']}")
                return self._service.set_link(device, up=state == "up")
            case "announce":
                return self._service.announce(device)
            case "steering-program":
                return self._service.set_steering_program(device, _path_of(request))
            case "capture":
                return self._service.set_capture(device, _path_of(request))
            case "help":
                return {"commands": list(COMMANDS.values())}
            case other:
                raise UsageError(f"there is no command {other!r}{nearest(other, COMMANDS)}")


def _path_of(request: dict[str, str]) -> str | None:
    """The file a request names; None: it says none."""
    path = request.get(_ARGUMENTS[request["command"]])
    if not path:
        raise UsageError(f"usage: {COMMANDS[request['command']]}")
    return None if path == NONE else path


def parse(line: bytes) -> dict[str, str]:
    """Take a request apart: ``command``, its argument and ``device`` if given.

    Raises:
        UsageError: it is none.
    """
    try:
        text = line.decode().strip()
    except UnicodeDecodeError:
        raise UsageError("a request is a line of UTF-8") from None
    if text.startswith("{"):
        return _from_json(text)
    words = text.split()
    if not words:
        raise UsageError("an empty line is no request; help lists the commands")
    argument = _ARGUMENTS.get(words[0])
    keys = ("command", "device") if argument is None else ("command", argument, "device")
    if len(words) > len(keys):
        raise UsageError(f"usage: {COMMANDS.get(words[0], 'COMMAND [DEVICE]')}")
    return dict(zip(keys, words, strict=False))


def _from_json(text: str) -> dict[str, str]:
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("that is not JSON") from None
    for key, value in request.items():
        if key not in {"command", "device", *_ARGUMENTS.values()}:
            raise UsageError(f"unknown key {key!r} in a request")
        if not isinstance(value, str):
            raise UsageError(f"{key} must be a string")
    if "command" not in request:
        raise UsageError("a request names its command")
    return dict(request)


def _refusal(reason: str) -> dict[str, Any]:
    return {"ok": False, "error": reason}


async def _send(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await asyncio.wait_for(writer.drain(), _PATIENCE)
