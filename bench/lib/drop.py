# SPDX-License-Identifier: MIT
"""Drop every frame that comes out of a tap, as early as can be: in tc, or by XDP in the tap.

A two-instruction BPF program is attached by a link, which ends with its fd.  That
asks nothing of tc(8) and of the kernel's classifiers, which not every kernel has.
Sources: bpf(2), Documentation/bpf/standardization/instruction-set.rst, linux/bpf.h
(TCX came with Linux 6.6).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from bench.lib.process import BenchError
from pyvnet.netdev import rtnl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.lib.room import Room

_NR_BPF: Final = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD: Final = 5
_LINK_CREATE: Final = 28


class _Hook(NamedTuple):
    program_type: int
    attach_type: int
    verdict: int


_HOOKS: Final = {
    "tc": _Hook(3, 46, 2),  # SCHED_CLS, TCX_INGRESS, TC_ACT_SHOT
    "xdp": _Hook(6, 37, 1),  # XDP, XDP, XDP_DROP
}


def drop_behind(room: Room, taps: Sequence[str], where: Literal["tc", "xdp"] = "tc") -> None:
    """Drop what comes out of these taps of the room, until it is left.

    Raises:
        BenchError: the kernel refuses.
    """
    hook = _HOOKS[where]
    program = _load(hook)
    room.on_close(lambda: os.close(program))
    indexes = room.call(lambda: [rtnl.existing(tap).index for tap in taps])
    for tap, index in zip(taps, indexes, strict=True):
        attach = struct.pack("=IIII", program, index, hook.attach_type, 0)
        link = room.call(lambda attach=attach: _bpf(_LINK_CREATE, attach))  # type: ignore[misc]
        if link < 0:
            raise BenchError(f"no {where} program on {tap}: {os.strerror(-link)}; Linux 6.6 has it")
        room.on_close(lambda link=link: os.close(link))  # type: ignore[misc]


def _load(hook: _Hook) -> int:
    instructions = struct.pack("=BBhiBBhi", 0xB7, 0, 0, hook.verdict, 0x95, 0, 0, 0)
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"Dual MIT/GPL")
    attributes = struct.pack(
        "=IIQQ", hook.program_type, 2, ctypes.addressof(code), ctypes.addressof(licence)
    )
    fd = _bpf(_PROG_LOAD, attributes.ljust(128, b"\0"))
    if fd < 0:
        raise BenchError(f"cannot load a BPF program: {os.strerror(-fd)}; run it as root")
    return fd


def _bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    fd = libc.syscall(_NR_BPF[platform.machine()], command, buffer, len(attributes))
    return -ctypes.get_errno() if fd < 0 else int(fd)
