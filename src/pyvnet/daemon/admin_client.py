# SPDX-License-Identifier: MIT
"""The other end of the admin socket."""

from __future__ import annotations

import json
import socket
from typing import Any, Final

from pyvnet.errors import HostError, UsageError

_PATIENCE: Final = 10.0  # seconds
_ANSWER_MAX: Final = 64 << 20


def ask(path: str, request: dict[str, str]) -> dict[str, Any]:
    """Ask a running service.

    Raises:
        HostError: nobody answers there, or not as this program does.
        UsageError: the service refused, and says why.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(path)
            with connection.makefile("rb") as answers:
                banner = _read(answers.readline(_ANSWER_MAX), path)
                if banner.get("ok") is False:
                    raise HostError(f"{path}: {banner.get('error')}")
                connection.sendall(json.dumps(request).encode() + b"\n")
                answer = _read(answers.readline(_ANSWER_MAX), path)
    except OSError as error:
        reason = f": {error}" if error.errno is None else ""
        cure = "name the socket that `pyvnet serve --admin PATH` listens at"
        raise HostError(f"nobody answers at {path}{reason}", error.errno, cure) from error
    if answer.get("ok") is not True:
        raise UsageError(str(answer.get("error", "no reason given")))
    result = answer.get("result")
    return result if isinstance(result, dict) else {}


def _read(line: bytes, path: str) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise HostError(
            f"{path} does not answer as an admin socket does",
            cure="name the socket that `pyvnet serve --admin PATH` listens at",
        )
    return answer
