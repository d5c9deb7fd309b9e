# SPDX-License-Identifier: MIT
"""How an engine runs: what can be asked of it, and what it made of that."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pyvnet.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

IO_METHODS: Final = ("auto", "plain", "uring")
DEFAULT_POLL_US: Final = 50
POLL_US_MAX: Final = 1_000_000_000
_ANY_CPU: Final = -1
_BUFFERS: Final = 4  # VNET_URING_BUFFERS: what is short is memory that may be locked

PINNING_REFUSED: Final = (
    "not available: it gained too little to trade for safety from memory whose owner punches holes"
    " into it (docs/decisions.md); long frames are spared the copy without"
)

_STEPS: Final = {
    1: "io_uring_setup() is refused",
    2: "its rings cannot be mapped",
    3: "the kernel lacks an operation",
    4: "bounce pages cannot be registered",
    5: "queues of the host port cannot be registered",
}


def _io() -> str:
    return os.environ.get("PYVNET_IO", "auto")


def _poll_us() -> int:
    text = os.environ.get("PYVNET_POLL_US", str(DEFAULT_POLL_US))
    return int(text) if text.isascii() and text.isdigit() else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How the workers of an engine go about their work.

    Args:
        io: ``plain`` reads and writes frames one by one, ``uring`` in batches by
            io_uring, ``auto`` takes what is best of what is allowed.
        poll_us: so many microseconds a worker without work looks on before it
            sleeps.  0: it sleeps at once.  More than there is between two frames:
            it never sleeps, which takes a core for itself.
        worker_cpus: CPUs the workers run on, in their order and round robin; none:
            wherever the kernel puts them.
        pin_guest_memory: let the kernel keep hold of guest memory, which spares
            a copy and must be safe: nobody may punch holes into it.  Refused so
            far, with the reason in `EngineInfo.pin_reason`; everything else goes on.

    ``PYVNET_IO`` and ``PYVNET_POLL_US`` are the defaults where they are set.
    """

    io: str = field(default_factory=_io)
    poll_us: int = field(default_factory=_poll_us)
    worker_cpus: tuple[int, ...] = ()
    pin_guest_memory: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for what no engine can do."""
        if self.io not in IO_METHODS:
            raise UsageError(f"io {self.io!r} is none of {', '.join(IO_METHODS)}")
        if not 0 <= self.poll_us <= POLL_US_MAX:
            raise UsageError(f"poll_us is a number from 0 to {POLL_US_MAX}")

    def cpus_of(self, workers: int) -> list[int]:
        """The CPU of each worker, -1 where any will do.

        Raises:
            UsageError: one that this process may not use.
        """
        if sentence := forbidden_cpus(self.worker_cpus):
            raise UsageError(sentence)
        cpus = self.worker_cpus or (_ANY_CPU,)
        return [cpus[i % len(cpus)] for i in range(workers)]


def forbidden_cpus(cpus: Iterable[int]) -> str:
    """Which of these CPUs this process may not use, as a sentence; empty: it may use all."""
    allowed = os.sched_getaffinity(0)
    wrong = sorted(set(cpus) - allowed)
    if not wrong:
        return ""
    named = ", ".join(map(str, wrong))
    ours = ", ".join(map(str, sorted(allowed)))
    return f"worker-cpus: CPU {named} is not there or not for this process, which may use {ours}"


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """``struct vnet_engine_info``: what an engine runs with.

    ``uring_workers`` is how many of its ``workers`` use io_uring: they may be
    refused it one by one, as when locked memory runs short.  ``io_reason`` says why
    the first of the others was, and is empty where nothing stood in the way;
    ``io_cure`` what would help.  ``pin_reason`` says why guest memory is not pinned
    though that was asked for.
    """

    workers: int
    uring_workers: int
    io_reason: str
    io_cure: str
    poll_us: int
    pinned: bool
    pin_reason: str
    hash_kernel: str

    @property
    def io(self) -> str:
        """What its workers use: ``plain``, ``uring``, or ``mixed``, some this and some that."""
        if self.uring_workers in (0, self.workers):
            return "uring" if self.uring_workers else "plain"
        return "mixed"

    def check_uring(self) -> None:
        """Raises HostError if io_uring was refused."""
        if self.io_reason:
            raise HostError(f"io_uring is not to be had: {self.io_reason}", cure=self.io_cure)

    @classmethod
    def of(cls, raw: Any, hash_kernel: str, *, pin: bool = False) -> EngineInfo:
        """Read the C struct."""
        reason = ""
        if raw.uring_errno or raw.uring_step:
            step = _STEPS.get(raw.uring_step, "io_uring is not to be had")
            reason = f"{step}: {os.strerror(raw.uring_errno)}" if raw.uring_errno else step
        return cls(
            workers=raw.workers,
            uring_workers=raw.uring_workers,
            io_reason=reason,
            io_cure=_cure(raw.uring_step, raw.uring_errno) if reason else "",
            poll_us=raw.poll_us,
            pinned=bool(raw.pinned),
            pin_reason=PINNING_REFUSED if pin and not raw.pinned else "",
            hash_kernel=hash_kernel,
        )


def _cure(step: int, error: int) -> str:
    if error == errno.ENOMEM:
        step = _BUFFERS
    match step:
        case 1 | 5:
            return "set kernel.io_uring_disabled=0 and allow io_uring in the seccomp profile"
        case 2 | 4:
            return "raise RLIMIT_MEMLOCK (LimitMEMLOCK= of a systemd unit)"
        case _:
            return "run Linux 6.0 or newer"
