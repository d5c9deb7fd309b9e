# SPDX-License-Identifier: MIT
"""The other side of `pyvnet helper --fdstore`."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from tests.daemon.serving import DEADLINE

if TYPE_CHECKING:
    import subprocess


class Store:
    """What systemd does with messages at NOTIFY_SOCKET, as far as its fd store goes."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(DEADLINE)
        self.socket.bind(path)
        self.stored: list[tuple[str, int]] = []

    def serve(self, helper: subprocess.Popen[str]) -> None:
        """Take what a helper sends, first to be forgotten, then to be kept, and let it end."""
        for _ in ("forget", "keep"):
            while self._take() != {"BARRIER": "1"}:
                pass
        assert helper.communicate(timeout=DEADLINE) == ("", "")
        assert helper.returncode == 0

    def _take(self) -> dict[str, str]:
        data, fds, _, _ = socket.recv_fds(self.socket, 4096, 253)
        values = dict(line.split("=", 1) for line in data.decode().splitlines())
        if "FDSTORE" in values:
            assert values["FDPOLL"] == "0"
            self.stored += [(values["FDNAME"], fd) for fd in fds]
        elif "FDSTOREREMOVE" in values:
            self.remove(values["FDNAME"])
        else:
            os.close(*fds)  # it waits for this one
        return values

    def remove(self, name: str) -> None:
        for stored in [entry for entry in self.stored if entry[0] == name]:
            os.close(stored[1])
            self.stored.remove(stored)

    def close(self) -> None:
        self.socket.close()
        for _, fd in self.stored:
            os.close(fd)
