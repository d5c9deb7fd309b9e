# SPDX-License-Identifier: MIT
"""A user-mode Linux guest: started, asked to run commands, and ended without remains.

The guest's first process (tests/system/guest/agent.c) listens on a serial line
that is a socket pair here; the kernel's own messages go to a file, which is
shown when something went wrong.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from tests.system.uml.build import ENVIRONMENT, IPV6_MODULES, NET_MODULES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.system.uml.build import Built

TIMEOUT: Final = 30.0  # a hang guard
_LOG_LINES: Final = 40


class GuestError(Exception):
    """The guest did not boot, is gone, or a command in it failed."""


class Result(NamedTuple):
    """Exit status, and what was written to standard output and standard error."""

    status: int
    output: str


class Command:
    """A command that runs in a guest."""

    def __init__(self, machine: Machine, number: int, text: str) -> None:
        self._machine = machine
        self._number = number
        self.text = text
        self.output = asyncio.StreamReader()
        self._ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def line(self) -> str:
        """The next line of its output.  Raises GuestError at its end."""
        async with asyncio.timeout(TIMEOUT):
            line = await self.output.readline()
        if not line:
            raise GuestError(f"`{self.text}` ended")
        return line.decode(errors="replace").rstrip("\n")

    async def wait(self) -> Result:
        """Wait for its end; the output is what no line() took.

        Raises GuestError if the guest ends first.
        """
        async with asyncio.timeout(TIMEOUT):
            output = await self.output.read()
            status = await self._ended
        if status is None:
            raise GuestError(f"the guest ended during `{self.text}`:\n{self._machine.log()}")
        return Result(status, output.decode(errors="replace"))

    async def kill(self) -> Result:
        """End it, and everything that it started."""
        self._machine.send(f"KILL {self._number}\n".encode())
        return await self.wait()

    def end(self, status: int | None) -> None:
        """What the agent says of its end; None: it is not there to say."""
        self.output.feed_eof()
        self._ended.set_result(status)


class Machine:
    """One guest, for ``async with``; raises GuestError if it does not boot.

    ``sockets`` are vhost-user sockets, a NIC each; ``folder`` gets the kernel's
    messages and is the guest's /share, where it may write.
    """

    def __init__(
        self, built: Built, folder: Path, sockets: Sequence[Path] = (), attempts: int = 3
    ) -> None:
        self._built = built
        self._folder = folder
        self._sockets = sockets
        self._attempts = attempts  # now and then the guest's kernel cannot fork at first
        self._log = folder / "console.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._commands: dict[int, Command] = {}
        self._started = 0
        self.booted_in = 0.0

    async def __aenter__(self) -> Self:
        for attempt in range(1, self._attempts + 1):
            before = asyncio.get_running_loop().time()
            try:
                await self._boot()
            except (GuestError, TimeoutError):
                await self.end()
                if attempt == self._attempts:
                    raise
            else:
                self.booted_in = asyncio.get_running_loop().time() - before
                break
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    # Commands.

    async def sh(self, command: str) -> str:
        """Run a shell command; returns what it wrote.  Raises GuestError if it fails."""
        result = await self.run(command)
        if result.status:
            raise GuestError(f"`{command}` returned {result.status}: {result.output}")
        return result.output

    async def run(self, command: str) -> Result:
        """Run a shell command, which may fail."""
        return await self.start(command).wait()

    def start(self, command: str) -> Command:
        """Start a shell command beside others."""
        self._started += 1
        started = Command(self, self._started, command)
        self._commands[self._started] = started
        text = command.encode()
        self.send(b"RUN %d %d\n%b" % (self._started, len(text), text))
        return started

    async def until(self, condition: str) -> None:
        """Wait until a shell command succeeds."""
        await self.sh(f"until {condition}; do :; done >/dev/null 2>&1")

    def send(self, data: bytes) -> None:
        """Write to the agent."""
        if self._writer is None:
            raise GuestError("the guest is not running")
        self._writer.write(data)

    def log(self) -> str:
        """The kernel's last messages."""
        with self._log.open(errors="replace") as lines:
            return "".join(deque(lines, _LOG_LINES))

    # Life.

    async def _boot(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = self._spawn(theirs.fileno())
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._listening = asyncio.create_task(self._listen(reader))
        ready = self._commands[0] = Command(self, 0, "boot")
        watched = os.pidfd_open(self._process.pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(watched, self._all_ended)
        try:
            await ready.line()
        except (GuestError, TimeoutError) as error:
            raise GuestError(f"the guest did not boot:\n{self.log()}") from error
        finally:
            loop.remove_reader(watched)
            os.close(watched)
        await self.sh(
            f"for m in {' '.join((*NET_MODULES, *IPV6_MODULES))}; do insmod /modules/$m.ko; done;"
            f" mount -t hostfs -o {self._folder} share /share && ip link set lo up"
        )

    def _spawn(self, line: int) -> subprocess.Popen[bytes]:
        # A guest's processes can outlive its kernel; those of a process namespace end with its
        # first one, which cannot be the guest's kernel, as that could not abort then.
        command = [
            *("unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@" & wait $!', "sh"),
            *("linux.uml", "mem=96M", "quiet", "lpj=32000000", f"uml_dir={self._folder}"),
            *("root=/dev/root", "rootfstype=hostfs", f"rootflags={self._built.root}", "ro"),
            *("init=/init", "con=null", "con0=null,fd:1", "ssl=null", f"ssl0=fd:{line}"),
            *(f"virtio_uml.device={path}:1" for path in self._sockets),
        ]
        environment = ENVIRONMENT | {
            "HOME": str(self._folder),
            "TMPDIR": "/dev/shm",  # noqa: S108 - where guest memory can be mapped executable
            "LD_PRELOAD": str(self._built.shim),
        }
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[line],
                start_new_session=True,
            )

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while words := (await reader.readline()).split():
                match words:
                    case [b"READY"]:
                        self._commands[0].output.feed_data(b"ready\n")
                    case [b"OUT", number, length]:
                        data = await reader.readexactly(int(length))
                        self._commands[int(number)].output.feed_data(data)
                    case [b"END", number, status]:
                        self._commands.pop(int(number)).end(int(status))
                    case _:
                        raise GuestError(f"the agent says {words}")
        finally:
            self._all_ended()

    def _all_ended(self) -> None:
        """The guest is gone: nobody need wait for its commands any more."""
        while self._commands:
            self._commands.popitem()[1].end(None)

    def processes(self) -> list[int]:
        """The guest's processes, by this machine's numbers."""
        if self._process is None:
            return []
        (first,) = _children(self._process.pid)
        (kernel,) = _children(first)
        return [first, kernel, *_children(kernel)]

    async def end(self) -> None:
        """Kill the guest with all its processes; harmless twice."""
        process, self._process = self._process, None
        if process is None:
            return
        for first in _children(process.pid):
            os.kill(first, signal.SIGKILL)
        process.wait(TIMEOUT)
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
            await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)
            self._writer = None


def _children(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in children.read_text().split()]
