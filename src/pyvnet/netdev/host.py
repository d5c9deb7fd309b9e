# SPDX-License-Identifier: MIT
"""What this machine and this process may do, tap and BPF aside: CPU, privileges, limits."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Final

from pyvnet.netdev.finding import YES, Finding, no

# linux/capability.h: what a backend, its helper or its eBPF programs may need.
CAPABILITIES: Final = {
    "cap_net_admin": 12,
    "cap_net_raw": 13,
    "cap_ipc_lock": 14,
    "cap_sys_admin": 21,
    "cap_perfmon": 38,
    "cap_bpf": 39,
}
_CPU_FLAGS: Final = frozenset(
    # x86-64 carry-less multiplication and the vector widths around it; aarch64's counterparts
    {
        *("pclmulqdq", "gfni", "vpclmulqdq", "avx2"),
        *("avx512f", "avx512bw", "avx512vl", "avx512vbmi"),
        *("pmull", "asimd", "sve", "sve2", "svepmull"),
    }
)


def cpu_flags() -> list[str]:
    """Flags of the first CPU that matter for hashing, sorted."""
    text = Path("/proc/cpuinfo").read_text(errors="replace")
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return sorted(_CPU_FLAGS.intersection(found[1].split() if found else ()))


def capabilities() -> dict[str, Finding]:
    """Capabilities in force for this process."""
    text = Path("/proc/self/status").read_text()
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", text, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    return {
        name: YES
        if effective >> bit & 1
        else no("not in the effective set", f"run as root or grant it (AmbientCapabilities={name})")
        for name, bit in CAPABILITIES.items()
    }


def limits() -> dict[str, dict[str, int | None]]:
    """Soft and hard limit of open files and of locked bytes; None is unlimited."""
    names = {"nofile": resource.RLIMIT_NOFILE, "memlock": resource.RLIMIT_MEMLOCK}
    return {
        name: {
            key: None if value == resource.RLIM_INFINITY else value
            for key, value in zip(("soft", "hard"), resource.getrlimit(number), strict=True)
        }
        for name, number in names.items()
    }
