# SPDX-License-Identifier: MIT
"""Small BPF programs of the tests', in instructions, and where they are attached."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from pyvnet.netdev import rtnl, tun_uapi
from pyvnet.offload import bpf
from pyvnet.offload.image import MapSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.netdev.netns import NetNamespace

# Where in a frame `by_a_byte` looks: the last byte of its source address.
WISH: Final = 11

_XDP, _DEVMAP, _LINK_CREATE, _ATTACH_XDP = 6, 14, 28, 37
_REDIRECT_MAP: Final = 51
_SYSCALL: Final = {"x86_64": 321, "aarch64": 280}


def _code(*instructions: tuple[int, int, int]) -> bytes:
    """Operation, registers (source in the high half), immediate."""
    return b"".join(struct.pack("<BBhi", op, regs, 0, imm) for op, regs, imm in instructions)


@contextmanager
def by_a_byte(queue_fd: int) -> Iterator[None]:
    """Have a tap steer each frame to the queue its byte ``WISH`` names, by the kernel's numbers."""
    code = _code(  # r6 = context; r0 = byte of the frame; return r0
        (0xBF, 0x16, 0), (0x30, 0, WISH), (0x95, 0, 0)
    )
    program = bpf.prog_load(code, name="by_a_byte", license_="MIT")
    try:
        tun_uapi.set_steering_program(queue_fd, program)
    finally:
        os.close(program)
    try:
        yield
    finally:
        tun_uapi.set_steering_program(queue_fd, -1)


@contextmanager
def redirecting(netns: NetNamespace, source: str, target: str) -> Iterator[None]:
    """Have every frame that comes in on ``source`` leave on ``target``, past its steering."""
    with ExitStack() as undo:

        def begin() -> int:
            devmap = bpf.map_create(MapSpec("ports", _DEVMAP, 4, 4, 1, 0))
            undo.callback(os.close, devmap)
            index = rtnl.existing(target).index
            bpf.map_update(devmap, bytes(4), index.to_bytes(4, "little"))
            code = _code(  # r1 = devmap; r2 = r3 = 0; return redirect_map(r1, r2, r3)
                (0x18, 0x11, devmap),
                (0, 0, 0),
                (0xB7, 2, 0),
                (0xB7, 3, 0),
                (0x85, 0, _REDIRECT_MAP),
                (0x95, 0, 0),
            )
            program = bpf.prog_load(code, name="redirecting", license_="MIT", kind=_XDP)
            undo.callback(os.close, program)
            return _link_xdp(program, rtnl.existing(source).index)

        undo.callback(os.close, netns.call(begin))
        yield


def _link_xdp(program: int, index: int) -> int:
    """Attach until the fd returned is closed."""
    attributes = ctypes.create_string_buffer(struct.pack("=IIII", program, index, _ATTACH_XDP, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_SYSCALL[platform.machine()])
    link: int = libc.syscall(number, _LINK_CREATE, attributes, ctypes.c_uint(16))
    if link < 0:
        raise OSError(ctypes.get_errno(), "cannot attach an XDP program")
    return link
