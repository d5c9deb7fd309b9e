# SPDX-License-Identifier: MIT
"""What a guest needs, built once and kept under build/uml until something of it changes.

The guest's root is a directory of this machine (hostfs), read only, so any
number of guests can have the same one: busybox, ethtool and ip with their
libraries, kernel modules, and the programs of tests/system/guest.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[3]
SOURCES: Final = Path(__file__).parents[1] / "guest"
CACHE: Final = REPOSITORY / "build/uml"
MODULES: Final = Path("/usr/lib/uml/modules")

# Nothing of the caller's: a preloaded sanitizer must get neither into the guest nor its tools.
ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}

_TOOLS: Final = ("dash", "ethtool", "ip")
_PROGRAMS: Final = ("agent", "rxhash", "steer_load", "stream", "xdp")
# In the order they can be loaded in.
NET_MODULES: Final = ("failover", "net_failover", "virtio_net")
IPV6_MODULES: Final = ("crc-ccitt", "ipv6")
VLAN_MODULES: Final = ("llc", "stp", "garp", "mrp", "8021q")
MACVLAN_MODULES: Final = ("macvlan",)
_FOLDERS: Final = ("bin", "dev", "proc", "sys", "tmp", "share", "modules")
_GCC: Final = (
    "gcc",
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Werror",
)


@dataclass(frozen=True, slots=True)
class Built:
    """``root`` for hostfs, ``shim`` to preload, ``short_xstate`` to try the shim with."""

    root: Path
    shim: Path
    short_xstate: Path


def build() -> Built:
    """Return what is there already, or build it; safe to call from several processes."""
    folder = CACHE / _digest()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for outdated in CACHE.glob("guest-*"):
                shutil.rmtree(outdated)
            unfinished = CACHE / "guest-unfinished"
            _build(unfinished)
            unfinished.rename(folder)
    return Built(folder / "root", folder / "ptrace_shim.so", folder / "short_xstate")


def _digest() -> str:
    """Name a folder after all that goes into it."""
    hashed = hashlib.sha256()
    for path in (Path(__file__), *sorted(SOURCES.iterdir())):
        hashed.update(path.read_bytes())
    for path in (*map(_which, ("busybox", *_TOOLS)), *sorted(MODULES.iterdir())):
        state = path.stat()
        hashed.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
    return f"guest-{hashed.hexdigest()[:16]}"


def _build(folder: Path) -> None:
    root = folder / "root"
    for name in _FOLDERS:
        (root / name).mkdir(parents=True)
    for program in _PROGRAMS:
        _compile(program, root / "bin" / program, "-static")
    _compile("ptrace_shim", folder / "ptrace_shim.so", "-shared", "-fPIC")
    _compile("short_xstate", folder / "short_xstate")
    (root / "init").symlink_to("bin/agent")
    _add_busybox(root / "bin")
    # Busybox's own shell would run its own ip.
    (root / "bin/sh").symlink_to("dash")
    for tool in _TOOLS:
        _add_dynamic(root, tool)
    _add_modules(root / "modules")


def _compile(source: str, target: Path, *options: str) -> None:
    _output(*_GCC, *options, "-o", str(target), str(SOURCES / f"{source}.c"))


def _add_busybox(folder: Path) -> None:
    busybox = _which("busybox")
    shutil.copy(busybox, folder / "busybox")
    for applet in _output(str(busybox), "--list").split():
        if applet not in {"busybox", "sh", *_TOOLS}:
            (folder / applet).symlink_to("busybox")


def _add_dynamic(root: Path, tool: str) -> None:
    """Copy a program, and its libraries to where it looks for them."""
    found = _which(tool)
    shutil.copy(found, root / "bin" / tool)
    for library in re.findall(r"(/\S+) \(0x", _output("ldd", str(found))):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


def _add_modules(folder: Path) -> None:
    release = max(MODULES.iterdir())
    for module in (*NET_MODULES, *IPV6_MODULES, *VLAN_MODULES, *MACVLAN_MODULES):
        (found,) = release.rglob(f"{module}.ko")
        shutil.copy(found, folder)


def _which(program: str) -> Path:
    found = shutil.which(program, path=ENVIRONMENT["PATH"])
    if found is None:
        raise FileNotFoundError(f"{program} is missing: make test-needs")
    return Path(found)


def _output(*command: str) -> str:
    done = subprocess.run(
        command, env=ENVIRONMENT, check=False, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout
