# SPDX-License-Identifier: MIT
"""`pyvnet serve` as users run it: a process, its log, its end."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvnet.netdev.netns import NetNamespace

DEADLINE = 30.0
PROGRAM = [sys.executable, "-m", "pyvnet"]


def environment(**values: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in {"PYVNET_DEBUG", "NOTIFY_SOCKET"}}
    return kept | values


def _loop_of_the_test() -> str:
    try:
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]
    except RuntimeError:
        return "uvloop"


def run(*words: str, timeout: float = DEADLINE, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of the program to its end."""
    return subprocess.run(
        [*PROGRAM, *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        **{"env": environment()} | options,
    )


class Serving:
    """A running `pyvnet serve`, on the test's kind of loop; ended by SIGTERM at the latest."""

    def __init__(
        self,
        *words: str,
        netns: NetNamespace | None = None,
        pass_fds: Sequence[int] = (),
        ready: bool = True,
        prefix: Sequence[str] = (),
        **env: str,
    ) -> None:
        command = [*prefix, *PROGRAM, "serve", *words]
        options: dict[str, Any] = {
            "stderr": subprocess.PIPE,
            "pass_fds": tuple(pass_fds),
            "env": environment(**{"PYVNET_LOOP": _loop_of_the_test()} | env),
        }
        start = subprocess.Popen if netns is None else netns.popen
        self.process: subprocess.Popen[bytes] = start(command, **options)
        self.log = ""
        if ready:
            try:
                self.until("ready")
            except BaseException:
                self.__exit__()
                raise

    def until(self, text: str, count: int = 1) -> str:
        """Read the log until ``text`` was seen ``count`` times; returns all of it."""
        deadline = time.monotonic() + DEADLINE
        assert self.process.stderr is not None
        while self.log.count(text) < count:
            left = deadline - time.monotonic()
            readable, _, _ = select.select([self.process.stderr], [], [], max(left, 0))
            assert readable, f"no {text!r} in time:\n{self.log}"
            data = os.read(self.process.stderr.fileno(), 65536)
            assert data, f"ended without {text!r}:\n{self.log}"
            self.log += data.decode()
        return self.log

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; returns the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait until it ends by itself; the rest of the log is read."""
        assert self.process.stderr is not None
        while data := os.read(self.process.stderr.fileno(), 65536):
            self.log += data.decode()
        return self.process.wait(DEADLINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            if self.process.stderr is not None:
                self.process.stderr.close()
