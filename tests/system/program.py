# SPDX-License-Identifier: MIT
"""Programs of others under a test: started, talked to line by line, and gone afterwards.

A program leads a process group of its own, which ends with the test; the kernel
ends the leader too should the test run itself be killed.  It gets no variables of
the sanitizers, which are meant for our own extension (``ours=True`` keeps them).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pyvnet.netdev.netns import NetNamespace

TIMEOUT: Final = 30.0  # a hang guard
_SANITIZERS: Final = re.compile(r"LD_PRELOAD|[AUT][A-Z]*SAN_OPTIONS|PYTHONMALLOC|PYVNET_.*")


class ProgramError(AssertionError):
    """A program said or did something else than expected; the message ends with its output."""


class Program:
    """``async with Program(...)``: a process whose standard output (and error) is collected.

    Args:
        command: argv.
        netns: where it runs; None is the caller's namespace.
        ours: keep the environment as it is.
        env: more variables.
        log: another file the program writes, shown in failures behind its output.
        fds: of ours that it inherits, under the same numbers.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        netns: NetNamespace | None = None,
        ours: bool = False,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        self._command = list(command)
        self._fds = tuple(fds)
        self._netns = netns
        self._log = log
        kept = {k: v for k, v in os.environ.items() if ours or not _SANITIZERS.fullmatch(k)}
        self._env = kept | dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._output = ""
        self._seen = 0  # characters expect() is done with
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._pidfd = -1

    # Life.

    async def __aenter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it, and everything it started."""
        self.close()

    def start(self) -> None:
        """Start it; also again, after it ended."""
        self.close()
        # From this thread: a parent-death signal is tied to the thread that forked.
        prefix = ["setpriv", "--pdeathsig", "KILL", "--"]
        fds = self._fds
        if self._netns is not None:
            fds = (self._netns.fileno(), *fds)
            prefix = ["nsenter", f"--net=/proc/self/fd/{fds[0]}", "--", *prefix]
        self._process = subprocess.Popen(
            prefix + self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._env,
            pass_fds=fds,
            start_new_session=True,
        )
        assert self._process.stdout
        os.set_blocking(self._process.stdout.fileno(), False)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._ended.clear()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._process.stdout.fileno(), self._read)
        loop.add_reader(self._pidfd, self._on_end)

    def close(self) -> None:
        """Kill the process group; harmless to repeat."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        loop = asyncio.get_running_loop()
        loop.remove_reader(process.stdout.fileno())
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()

    @property
    def pid(self) -> int:
        """Of the program itself: what is in front of it in argv has become it by exec."""
        return self._running.pid

    @property
    def output(self) -> str:
        """All it wrote."""
        return self._output

    # Talk.

    def send(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._running.stdin
        try:
            self._running.stdin.write(line.encode() + b"\n")
            self._running.stdin.flush()
        except BrokenPipeError:
            raise self.error(f"does not take {line!r}: it ended") from None

    async def expect(self, pattern: str, timeout: float = TIMEOUT) -> re.Match[str]:  # noqa: ASYNC109
        """Wait until ``pattern`` comes behind what was expected before."""
        wanted = re.compile(pattern, re.MULTILINE)
        try:
            async with asyncio.timeout(timeout):
                while not (found := wanted.search(self._output, self._seen)):
                    if self._ended.is_set():
                        raise self.error(f"ended and did not say {pattern!r}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise self.error(f"did not say {pattern!r} in {timeout} s") from None
        self._seen = found.end()
        return found

    async def end(self, with_signal: signal.Signals | None = None) -> int:
        """Send a signal, if any, and wait for the end; returns its exit status as Popen does."""
        if with_signal is not None and not self._ended.is_set():
            self._running.send_signal(with_signal)
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._ended.wait()
        except TimeoutError:
            raise self.error(f"did not end in {TIMEOUT} s") from None
        return self._running.wait()

    def error(self, what: str) -> ProgramError:
        """An error with all the program wrote."""
        text = f"{self._command[0]} {what}; it wrote:\n{self._output}"
        if self._log is not None and self._log.exists():
            text += f"\n{self._log.name}:\n{self._log.read_text(errors='replace')}"
        return ProgramError(text)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process, "not started"
        return self._process

    def _read(self) -> bool:
        """Take some of what it wrote; False: there is no more for now."""
        assert self._running.stdout
        try:
            data = os.read(self._running.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return False
        if data:
            self._output += data.decode(errors="replace").replace("\r", "")
        else:
            asyncio.get_running_loop().remove_reader(self._running.stdout.fileno())
        self._changed.set()
        return bool(data)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        while self._read():  # what it said last
            pass
        self._ended.set()
        self._changed.set()
