# SPDX-License-Identifier: MIT
"""Processes of a variant: pinned, watched, and gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TIMEOUT: Final = 30.0
_GRACE: Final = 5.0  # seconds between SIGTERM and SIGKILL
_SHOWN: Final = 600  # characters of output in an error


class BenchError(Exception):
    """A variant could not be measured; the message says why in one line or a few."""


class Process:
    """A program that leads a process group of its own; the group ends with ``close()``.

    Args:
        command: argv.
        cpu: the one CPU it may use; None: any.
        netns: fd of the network namespace it runs in; None: ours.
        env: more variables.
        cwd: where it runs.
        asked: it reads lines, see `ask`; else its input is empty.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        cpu: int | None = None,
        netns: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        asked: bool = False,
    ) -> None:
        self.name = os.path.basename(str(command[0]))  # noqa: PTH119 - a word, not a file
        # What is in front becomes the program by exec: its pid is ours to watch.  The
        # kernel ends it should this process be killed.
        prefix: list[str] = []
        if netns is not None:
            prefix += ["nsenter", f"--net=/proc/self/fd/{netns}", "--"]
        if cpu is not None:
            prefix += ["taskset", "-c", str(cpu)]
        prefix += ["setpriv", "--pdeathsig", "KILL", "--"]
        self._popen = subprocess.Popen(  # noqa: S603 - the commands are ours
            [*prefix, *map(str, command)],
            stdin=subprocess.PIPE if asked else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | dict(env or {}),
            cwd=cwd,
            pass_fds=() if netns is None else (netns,),
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self._changed = threading.Condition()
        self._text = {"out": "", "err": ""}
        self._answered = 0
        self._open = 2
        self._readers = [
            threading.Thread(target=self._read, args=(which, stream), daemon=True)
            for which, stream in (("out", self._popen.stdout), ("err", self._popen.stderr))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def output(self) -> str:
        """All it wrote: standard output, then standard error."""
        with self._changed:
            return self._text["out"] + self._text["err"]

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    def until(self, pattern: str, timeout: float = TIMEOUT) -> re.Match[str]:
        """Wait until it has written ``pattern``.

        Raises:
            BenchError: it ended or took too long.
        """
        wanted = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for text in self._text.values():
                    if found := wanted.search(text):
                        return found
                if not self._open:
                    raise self.error(f"ended without saying {pattern!r}")
                if not self._changed.wait(deadline - time.monotonic()):
                    raise self.error(f"did not say {pattern!r} in {timeout:g} s")

    def wait(self, timeout: float = TIMEOUT) -> str:
        """Wait until it ends by itself with status 0; returns its standard output.

        Raises:
            BenchError: it failed or took too long.
        """
        try:
            status = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.error(f"did not end in {timeout:g} s") from None
        for reader in self._readers:
            reader.join(_GRACE)
        if status:
            raise self.error(f"failed with status {status}")
        with self._changed:
            return self._text["out"]

    def result(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        """Wait for the end of a program of bench/c; its one JSON object.

        Raises:
            BenchError: it failed, took too long or printed something else.
        """
        return json_object(self, self.wait(timeout))

    def line(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        """The JSON object of a program of bench/c that stays after it has printed it.

        Raises:
            BenchError: it ended or took too long.
        """
        return json_object(self, self.until(r"^\{.*\}$", timeout)[0])

    def ask(self, word: str, timeout: float = TIMEOUT) -> dict[str, Any]:
        """The JSON object that a program of bench/c with ``--turns`` prints when told a word.

        Raises:
            BenchError: it ended, took too long or printed something else.
        """
        stdin = self._popen.stdin
        if stdin is None:
            raise TypeError("started to be asked nothing")
        with contextlib.suppress(BrokenPipeError):
            stdin.write(f"{word}\n".encode())
            stdin.flush()
        seen = self._answered
        found = self.until(rf"\A(?:.*\n){{{seen}}}(\{{.*\}})\n", timeout)
        self._answered += 1
        return json_object(self, found[1])

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def pause(self) -> None:
        """Stop its group until `resume`: it takes no CPU meanwhile, whatever it does."""
        if self.alive():
            self._kill(signal.SIGSTOP)
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on; harmless on one that does."""
        self._kill(signal.SIGCONT)

    def error(self, what: str) -> BenchError:
        """An error that ends with what the program wrote last."""
        with self._changed:
            said = (self._text["err"].strip() or self._text["out"].strip())[-_SHOWN:]
        return BenchError(f"{self.name} {what}" + (f": {said}" if said else ""))

    def close(self) -> None:
        """SIGTERM, then SIGKILL to the group; harmless to repeat."""
        if self.alive():
            self._kill(signal.SIGTERM)
            self.resume()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_GRACE)
        self._kill(signal.SIGKILL)  # whoever of its group is left
        self._popen.wait()
        for reader in self._readers:
            reader.join(_GRACE)
        if self._popen.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.close()

    def _kill(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _read(self, which: str, stream: IO[bytes]) -> None:
        with stream:
            while data := stream.read1(1 << 16):  # type: ignore[attr-defined]  # a BufferedReader
                with self._changed:
                    self._text[which] += data.decode(errors="replace")
                    self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def json_object(process: Process, text: str) -> dict[str, Any]:
    """Raises BenchError where ``text`` is anything else."""
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise process.error("did not print one JSON object")
    return document
