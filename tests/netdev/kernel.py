# SPDX-License-Identifier: MIT
"""The kernel's view, taken without the code under test where that is possible."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
import subprocess
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING

from pyvnet.netdev import rtnl

if TYPE_CHECKING:
    from collections.abc import Iterator

TUNSETIFF = 0x400454CA
TUNGETVNETHDRSZ = 0x800454D7
TUNSETVNETHDRSZ = 0x400454D8
TUNSETOFFLOAD = 0x400454D0
TUNSETSTEERINGEBPF = 0x800454E0
IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x100, 0x1000, 0x4000
BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}


def ip(*words: str) -> str:
    """Return what it printed."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def interfaces() -> set[str]:
    """Names of all interfaces of the calling thread's namespace."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    return {line.partition(":")[0].strip() for line in lines}


def open_fds() -> set[str]:
    """Open descriptors and what they are, without the one that lists them."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{entry.name} {entry.readlink()}")
    return found


def attach(name: str, flags: int) -> int:
    """Attach a queue of our own; returns its fd."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    try:
        ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError:
        os.close(fd)
        raise
    return fd


@dataclass(frozen=True)
class TapState:
    """Everything a program could have set up on a tap before we came."""

    link: rtnl.Link
    offloads: frozenset[str]
    header_size: int

    @classmethod
    def take(cls, name: str) -> TapState:
        link = rtnl.get_link(name)
        assert link is not None
        assert link.tun is not None
        offloads = rtnl.offload_names(name)
        # Attached with the flags it has, so that looking changes nothing.
        flags = IFF_TAP
        flags |= IFF_MULTI_QUEUE if link.tun.multi_queue else 0
        flags |= IFF_VNET_HDR if link.tun.vnet_header else 0
        flags |= 0 if link.tun.packet_info else IFF_NO_PI
        fd = attach(name, flags)
        (size,) = struct.unpack("i", ioctl(fd, TUNGETVNETHDRSZ, bytes(4)))
        os.close(fd)
        still = rtnl.get_link(name)
        assert still is not None
        assert still.tun == link.tun
        return cls(link, offloads, size)


@contextlib.contextmanager
def room_for_fds(count: int) -> Iterator[None]:
    """Let the process open ``count`` descriptors more, and no further one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
    limit = 0
    while count >= 0:
        count -= limit not in used
        limit += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit - 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def steer_all_to(tap_fd: int, queue: int) -> None:
    """Attach a steering program that says ``queue`` of every frame."""
    program = struct.pack("<BBHiBBHi", 0xB7, 0, 0, queue, 0x95, 0, 0, 0)  # r0 = queue; exit
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIQQ", 1, 2, ctypes.addressof(code), ctypes.addressof(licence)), 128
    )
    libc = ctypes.CDLL(None, use_errno=True)
    number = BPF_SYSCALL[os.uname().machine]
    fd = libc.syscall(number, 5, ctypes.byref(attributes), len(attributes))
    assert fd >= 0, os.strerror(ctypes.get_errno())
    ioctl(tap_fd, TUNSETSTEERINGEBPF, struct.pack("i", fd))
    os.close(fd)


def drain(fd: int) -> list[bytes]:
    """Every frame waiting on a nonblocking tap queue, with its header."""
    frames = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frames.append(os.read(fd, 70_000))
    return frames
