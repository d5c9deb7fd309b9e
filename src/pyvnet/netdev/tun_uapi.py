# SPDX-License-Identifier: MIT
"""The tun driver's user interface: its constants and one function per ioctl.

Source: ``include/uapi/linux/if_tun.h``.  Every function raises the plain
``OSError`` of the ioctl; what it means depends on who asked, so the callers
explain it.  Numbers are the generic ones, shared by x86-64 and aarch64.
"""

from __future__ import annotations

import os
import struct
from enum import IntFlag
from fcntl import ioctl
from typing import Final

CLONE_DEVICE: Final = "/dev/net/tun"
MAX_QUEUES: Final = 256  # MAX_TAP_QUEUES, drivers/net/tun.c
IFNAME_MAX: Final = 15  # IFNAMSIZ without the terminating zero

_TUNSETIFF: Final = 0x400454CA
_TUNSETPERSIST: Final = 0x400454CB
_TUNSETOWNER: Final = 0x400454CC
_TUNGETFEATURES: Final = 0x800454CF
_TUNSETOFFLOAD: Final = 0x400454D0
_TUNGETVNETHDRSZ: Final = 0x800454D7
_TUNSETVNETHDRSZ: Final = 0x400454D8
_TUNSETQUEUE: Final = 0x400454D9
_TUNGETIFF: Final = 0x800454D2
_TUNGETDEVNETNS: Final = 0x54E3
_TUNSETSTEERINGEBPF: Final = 0x800454E0
_TUNSETCARRIER: Final = 0x400454E2

# What the two last series for hashing in the kernel ask with: TUNGETVNETHASHCAP of v11, which
# answers 8 bytes, and TUNGETVNETHASHTYPES of v12.  Neither is merged; the number meant other things
# in other series.
KERNEL_HASH_GET: Final = {"v11": (0x800854E4, 8), "v12": (0x800454E4, 4)}

# struct ifreq: a name of 16 bytes, then a union of 24; tun uses its first short.
_IFREQ: Final = struct.Struct("16sH22x")
_INT: Final = struct.Struct("i")


class Iff(IntFlag):
    """``IFF_*`` of TUNSETIFF and TUNGETFEATURES."""

    TUN = 0x0001
    TAP = 0x0002
    NAPI = 0x0010
    NAPI_FRAGS = 0x0020
    NO_CARRIER = 0x0040
    MULTI_QUEUE = 0x0100
    ATTACH_QUEUE = 0x0200
    DETACH_QUEUE = 0x0400
    PERSIST = 0x0800
    NO_PI = 0x1000
    ONE_QUEUE = 0x2000
    VNET_HDR = 0x4000
    TUN_EXCL = 0x8000


class Offload(IntFlag):
    """``TUN_F_*`` of TUNSETOFFLOAD: what the reader of the tap can digest."""

    NONE = 0
    CSUM = 0x001
    TSO4 = 0x002
    TSO6 = 0x004
    TSO_ECN = 0x008
    UFO = 0x010
    USO4 = 0x020
    USO6 = 0x040
    UDP_TUNNEL_GSO = 0x080
    UDP_TUNNEL_GSO_CSUM = 0x100


def open_clone_device() -> int:
    """Open a queue that belongs to no interface yet; nonblocking, closed on exec."""
    return os.open(CLONE_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def set_iff(fd: int, name: str, flags: Iff) -> str:
    """TUNSETIFF: create an interface or attach a queue; returns its real name."""
    request = _IFREQ.pack(name.encode(), flags)
    answer = _IFREQ.unpack(ioctl(fd, _TUNSETIFF, request))
    return bytes(answer[0]).rstrip(b"\0").decode()


def get_iff(fd: int) -> tuple[str, Iff]:
    """TUNGETIFF: name and flags of the interface an attached queue belongs to."""
    answer = _IFREQ.unpack(ioctl(fd, _TUNGETIFF, bytes(_IFREQ.size)))
    return bytes(answer[0]).rstrip(b"\0").decode(), Iff(answer[1])


def get_namespace(fd: int) -> int:
    """TUNGETDEVNETNS: a new fd of the interface's network namespace; wants CAP_NET_ADMIN there."""
    return ioctl(fd, _TUNGETDEVNETNS)


def set_queue(fd: int, *, attached: bool) -> None:
    """TUNSETQUEUE: whether the kernel steers to this queue; EINVAL when that is so already."""
    flag = Iff.ATTACH_QUEUE if attached else Iff.DETACH_QUEUE
    ioctl(fd, _TUNSETQUEUE, _IFREQ.pack(b"", flag))


def get_features(fd: int) -> Iff:
    """TUNGETFEATURES: flags this kernel knows; needs no interface."""
    return Iff(_get_int(fd, _TUNGETFEATURES))


def get_header_size(fd: int) -> int:
    """TUNGETVNETHDRSZ, in bytes."""
    return _get_int(fd, _TUNGETVNETHDRSZ)


def set_header_size(fd: int, size: int) -> None:
    """TUNSETVNETHDRSZ, in bytes."""
    ioctl(fd, _TUNSETVNETHDRSZ, _INT.pack(size))


def set_offload(fd: int, offload: int) -> None:
    """TUNSETOFFLOAD; EINVAL refuses the whole set when one bit is unknown."""
    ioctl(fd, _TUNSETOFFLOAD, int(offload))


def set_persist(fd: int, *, on: bool) -> None:
    """TUNSETPERSIST: the interface outlives its last queue."""
    ioctl(fd, _TUNSETPERSIST, int(on))


def set_owner(fd: int, uid: int) -> None:
    """TUNSETOWNER: who may attach queues without CAP_NET_ADMIN."""
    ioctl(fd, _TUNSETOWNER, uid)


def set_carrier(fd: int, *, on: bool) -> None:
    """TUNSETCARRIER: what the kernel sees as the cable; needs no privilege on an open queue."""
    ioctl(fd, _TUNSETCARRIER, _INT.pack(on))


def set_steering_program(fd: int, program: int) -> None:
    """TUNSETSTEERINGEBPF; ``program`` -1 detaches and is harmless to repeat."""
    ioctl(fd, _TUNSETSTEERINGEBPF, _INT.pack(program))


def probe_ioctl(fd: int, request: int, size: int) -> bytes:
    """Issue a read-only ioctl that may not exist; returns what it wrote."""
    return ioctl(fd, request, bytes(size))


def _get_int(fd: int, request: int) -> int:
    (value,) = _INT.unpack(ioctl(fd, request, bytes(_INT.size)))
    return int(value)
