# SPDX-License-Identifier: MIT
"""What a variant needs, and how one gets it."""

from __future__ import annotations

import ctypes
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT: Final = Path(__file__).resolve().parents[2]
BUILT: Final = ROOT / "build/bench"

_SYSTEM: Final = ("/usr/sbin", "/sbin")
_NR_IO_URING_SETUP: Final = 425
_PARAMS_BYTES: Final = 120  # struct io_uring_params


@dataclass(frozen=True, slots=True)
class Need:
    """Something a variant cannot do without.

    Attributes:
        missing: None when it is there, else one line: what is not, and the cure.
        machine: no cure but another machine: leaving the variant out is no failure.
        hugepages: MiB of huge pages, which the run reserves for all variants.
    """

    missing: Callable[[], str | None]
    machine: bool = False
    hugepages: int = 0


def first_missing(needs: Iterable[Need]) -> tuple[Need, str] | None:
    """The first need that is not met, and its line."""
    for need in needs:
        if line := need.missing():
            return need, line
    return None


def _root() -> str | None:
    return None if os.geteuid() == 0 else "not root; run it as root (network namespaces, taps)"


def _tap() -> str | None:
    if Path("/dev/net/tun").exists():
        return _root()
    return "no /dev/net/tun; load it: modprobe tun"


ROOT_RIGHTS: Final = Need(_root)
TAP: Final = Need(_tap)


def program(name: str, package: str) -> Need:
    """A program of a Debian package."""

    def missing() -> str | None:
        if shutil.which(name) or any(Path(folder, name).exists() for folder in _SYSTEM):
            return None
        return f"no {name}; apt-get install {package}"

    return Need(missing)


def built(name: str) -> Need:
    """A program of bench/c."""

    def missing() -> str | None:
        if (BUILT / name).exists():
            return None
        return f"bench/c/{name}.c is not built; make bench-build says why"

    return Need(missing)


@cache
def cpu_flags() -> frozenset[str]:
    """As /proc/cpuinfo lists them."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def cpu(*flags: str) -> Need:
    """Instructions this CPU has."""

    def missing() -> str | None:
        lacking = [flag for flag in flags if flag not in cpu_flags()]
        if not lacking:
            return None
        return f"this CPU has no {', '.join(lacking)}; another CPU has"

    return Need(missing, machine=True)


def cpus(count: int) -> Need:
    """So many CPUs this process may run on."""

    def missing() -> str | None:
        have = len(os.sched_getaffinity(0))
        return None if have >= count else f"{have} CPU, {count} wanted; allow more with taskset"

    return Need(missing, machine=True)


def hugepages(mebibytes: int) -> Need:
    """Huge pages of 2 MiB; the run reserves what is not free and gives it back."""
    pages = (mebibytes + 1) // 2

    def missing() -> str | None:
        free = free_hugepages()
        if free >= pages:
            return None
        cure = f"echo {pages} > /proc/sys/vm/nr_hugepages"
        return f"{free} free huge pages of 2 MiB, {pages} wanted; as root: {cure}"

    return Need(missing, hugepages=mebibytes)


HUGEPAGES: Final = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


def free_hugepages() -> int:
    """Free huge pages of 2 MiB."""
    try:
        return int((HUGEPAGES / "free_hugepages").read_text())
    except (OSError, ValueError):
        return 0


def _io_uring() -> str | None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(_NR_IO_URING_SETUP, 1, ctypes.create_string_buffer(_PARAMS_BYTES))
    if fd >= 0:
        os.close(fd)
        return None
    reason = os.strerror(ctypes.get_errno())
    return f"io_uring is refused ({reason}); sysctl kernel.io_uring_disabled=0, or seccomp"


IO_URING: Final = Need(_io_uring)
