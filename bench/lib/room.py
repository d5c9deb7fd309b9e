# SPDX-License-Identifier: MIT
"""Where one variant is measured: a network namespace, a folder, two CPUs, and its processes.

What a room gave out ends with it, last first, also on Ctrl-C.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from bench.lib.needs import BUILT
from bench.lib.process import TIMEOUT, BenchError, Process
from pyvnet.daemon.admin_client import ask
from pyvnet.errors import PyvnetError
from pyvnet.netdev import rtnl
from pyvnet.netdev.netns import NetNamespace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_T = TypeVar("_T")

_POLL: Final = 0.005  # seconds, where there is nothing to wait on


@dataclass(frozen=True, slots=True)
class Cpus:
    """The back-end's CPU and the one of front-end and generator."""

    backend: int
    frontend: int

    @classmethod
    def choose(cls) -> Self:
        """The first two this process may use; one alone has to do for both."""
        allowed = sorted(os.sched_getaffinity(0))
        return cls(allowed[0], allowed[min(1, len(allowed) - 1)])


class Room:
    """``with Room(cpus, seconds) as room``: for one variant and one setup.

    Attributes:
        cpus: where to run what.
        seconds: how long a measurement should take.
        tmp: an empty folder; sockets go here.
    """

    def __init__(self, cpus: Cpus, seconds: float) -> None:
        self.cpus = cpus
        self.seconds = seconds
        self._stack = ExitStack()
        self._sockets = 0
        self._processes: list[Process] = []

    @cached_property
    def tmp(self) -> Path:
        """An empty folder, made when first asked for."""
        folder = tempfile.TemporaryDirectory(prefix="pyvnet-bench-")
        return Path(self._stack.enter_context(folder))

    @cached_property
    def netns(self) -> NetNamespace:
        """The network namespace its processes run in, made when first asked for (needs root)."""
        return self._stack.enter_context(NetNamespace())

    def socket(self) -> Path:
        """A name for a socket that is not there yet."""
        self._sockets += 1
        return self.tmp / f"{self._sockets}.sock"

    def on_close(self, undo: Callable[[], object]) -> None:
        """Have ``undo`` called when the room is left."""
        self._stack.callback(undo)

    # Programs.

    def start(
        self,
        command: Sequence[str | Path],
        *,
        cpu: int | None = None,
        private: bool = True,
        env: Mapping[str, str] | None = None,
        asked: bool = False,
    ) -> Process:
        """Start a program.

        ``private``: in the room's network namespace; ``asked``: to have `Process.ask`.
        """
        netns = self.netns.fileno() if private else None
        process = Process(command, cpu=cpu, netns=netns, env=env, cwd=self.tmp, asked=asked)
        self._processes = [other for other in self._processes if other.alive()]
        self._processes.append(process)
        return self._stack.enter_context(process)

    def program(
        self, name: str, *args: object, cpu: int | None = None, asked: bool = False
    ) -> Process:
        """Start a program of bench/c, on the front-end's CPU unless said otherwise."""
        command: list[str | Path] = [BUILT / name, *map(str, args)]
        return self.start(command, cpu=self.cpus.frontend if cpu is None else cpu, asked=asked)

    def run(
        self, name: str, *args: object, cpu: int | None = None, timeout: float = TIMEOUT
    ) -> dict[str, Any]:
        """Run a program of bench/c to its end; its JSON object."""
        with self.program(name, *args, cpu=cpu) as process:
            return process.result(timeout)

    def command(self, *command: str, timeout: float = TIMEOUT) -> str:
        """Run a command such as ip(8) in the namespace to its end; its standard output."""
        with Process(command, netns=self.netns.fileno(), cwd=self.tmp) as process:
            return process.wait(timeout)

    def serve(self, *options: str, cpu: int | None = None, sockets: int = 1) -> Serving:
        """``pyvnet serve`` as a user starts it, on the back-end's CPU; returns when it listens.

        ``--socket-path`` and ``--admin`` are added unless ``sockets`` is 0, which is for
        ``--config`` files.
        """
        return Serving(self, options, self.cpus.backend if cpu is None else cpu, sockets=sockets)

    def pause(self) -> None:
        """Stop what runs here until `resume`: it takes no CPU, even if it never sleeps."""
        for process in self._processes:
            process.pause()

    def resume(self) -> None:
        """Let it go on."""
        for process in self._processes:
            process.resume()

    # The namespace.

    def call(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in the room's network namespace."""
        return self.netns.call(work)

    def counters(self, interface: str) -> rtnl.LinkStatistics:
        """The kernel's counters of an interface: rx_packets are those a tap's program wrote."""
        return self.call(lambda: rtnl.statistics(interface))

    def until(self, condition: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
        """Wait for something that announces itself in no way; first see whether it does.

        Raises:
            BenchError: it took too long.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise BenchError(f"{what}: not in {timeout:g} s")
            time.sleep(_POLL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class Serving:
    """A running ``pyvnet serve``.

    Attributes:
        socket: where front-ends find it.
        admin: where `pyvnet status` finds it.
        process: it.
    """

    def __init__(self, room: Room, options: Sequence[str], cpu: int, *, sockets: int) -> None:
        self.socket = room.socket()
        self.admin = room.socket()
        words = ["--socket-path", str(self.socket), "--admin", str(self.admin)] if sockets else []
        command = [sys.executable, "-m", "pyvnet", "serve", *words, *options]
        # It says when it is ready as it does under systemd: sd_notify(3).
        address = str(room.socket())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(address)
            self.process = room.start(command, cpu=cpu, env={"NOTIFY_SOCKET": address})
            self._wait(notified)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def status(self) -> dict[str, Any]:
        """As ``pyvnet status --json``."""
        try:
            return ask(str(self.admin), {"command": "status"})
        except PyvnetError as error:
            raise BenchError(str(error)) from error

    def cpu_seconds(self) -> float:
        """CPU time of the process so far, all threads."""
        # In nanoseconds, unlike /proc/PID/stat: Documentation/scheduler/sched-stats.rst.
        files = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(file.read_text().split()[0]) for file in files) / 1e9

    def memory(self) -> dict[str, int]:
        """Bytes of the process as /proc/PID/smaps_rollup has them: Rss, Pss, Private_Dirty, …."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]
        words = (line.split() for line in lines)
        return {word[0].rstrip(":"): int(word[1]) << 10 for word in words}

    def threads(self) -> int:
        """Of the process."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def _wait(self, notified: socket.socket) -> None:
        deadline = time.monotonic() + TIMEOUT
        notified.settimeout(0.2)  # how soon an early end is noticed
        while True:
            try:
                if b"READY=1" in notified.recv(4096).splitlines():
                    return
            except TimeoutError:
                if not self.process.alive():
                    raise self.process.error("serve ended at once") from None
                if time.monotonic() > deadline:
                    raise self.process.error("serve was not ready in time") from None
