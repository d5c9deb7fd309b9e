# SPDX-License-Identifier: MIT
"""Under what the figures were taken: figures of two machines are not comparable."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.lib.needs import HUGEPAGES, ROOT, cpu_flags, free_hugepages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.lib.room import Cpus

_PACKAGES: Final = ("dpdk", "openvswitch-switch-dpdk", "gcc", "libc6")
_TELLING_FLAGS: Final = ("avx2", "avx512f", "gfni", "pclmulqdq", "vpclmulqdq", "pmull")
_VULNERABILITIES: Final = Path("/sys/devices/system/cpu/vulnerabilities")


def describe(cpus: Cpus) -> dict[str, Any]:
    """The record that goes with every document."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "pyvnet": version("pyvnet"),
        "commit": _commit(),
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cpu_flags": [flag for flag in _TELLING_FLAGS if flag in cpu_flags()],
        "cpus": len(os.sched_getaffinity(0)),
        "backend_cpu": cpus.backend,
        "frontend_cpu": cpus.frontend,
        "load": round(os.getloadavg()[0], 2),
        "mitigations": _mitigations(),
        "packages": _packages(),
    }


def _output(*command: str) -> str:
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(  # noqa: S603 - the commands are ours
        command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=20
    )
    return done.stdout.strip()


def _commit() -> str:
    commit = _output("git", "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "status", "--porcelain", "--untracked-files=no")
    return f"{commit} with changes" if changed else commit


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _mitigations() -> list[str]:
    """What the kernel does about the CPU's faults and pays for: {name: what}, as text."""
    if not _VULNERABILITIES.is_dir():
        return []
    states = {path.name: path.read_text().strip() for path in sorted(_VULNERABILITIES.iterdir())}
    return [
        f"{name}: {state.removeprefix('Mitigation: ')}"
        for name, state in states.items()
        if state.startswith("Mitigation")
    ]


def _packages() -> dict[str, str]:
    lines = _output("dpkg-query", "-W", "-f", "${Package} ${Version}\n", *_PACKAGES).splitlines()
    found = (line.split() for line in lines)
    return {words[0]: words[1] for words in found if len(words) == 2}


@contextmanager
def reserved_hugepages(mebibytes: int) -> Iterator[None]:
    """Have so many MiB of huge pages free, if the kernel grants them; give back what was added."""
    pages = (mebibytes + 1) // 2
    file = HUGEPAGES / "nr_hugepages"
    lacking = pages - free_hugepages()
    if lacking <= 0 or os.geteuid() or not file.exists():
        yield
        return
    before = int(file.read_text())
    try:
        file.write_text(str(before + lacking))
        yield
    finally:
        file.write_text(str(before))
