# SPDX-License-Identifier: MIT
"""The steering program of this version: loading it, and judging fds somebody else loaded.

The program and its map belong together, and both belong to the device that
writes the map.  A *stamp*, a digest of the instructions and of the map's
description, names that unit: who makes the map writes it into the map's header
(``struct vnet_steering_map`` in ``native/include/pyvnet/steering_abi.h``), and who is
handed the fds compares it with its own.  A helper of another version is told
apart so, before anything is attached.

A device needs no bpf(2) for any of this: the kernel's tag of the program is in
``/proc/self/fdinfo``, the header in the map's memory.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pyvnet.errors import HostError, UsageError
from pyvnet.offload import bpf
from pyvnet.offload.image import read_text

if TYPE_CHECKING:
    from pyvnet.offload.image import Image, MapSpec

MAP_MAGIC: Final = 0x53747665  # VNET_STEERING_MAP_MAGIC
MAP_LAYOUT: Final = 1  # VNET_STEERING_MAP_LAYOUT
_HEADER: Final = struct.Struct("=IIQ")  # magic, layout, stamp
_TEXT: Final = Path(__file__).with_name("steer.bpf.txt")

_OTHER_VERSION: Final = "use the helper of this device's version of pyvnet"
_WRONG_FD: Final = "hand over the steering program's fd and its map's, in this order"


@dataclass(frozen=True, slots=True)
class SteeringFds:
    """A loaded program and its map; the fds are closed by `close` or by leaving a ``with``."""

    program: int
    map: int

    def close(self) -> None:
        """Close both; what is attached to a tap stays attached."""
        for fd in (self.program, self.map):
            with suppress(OSError):
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@cache
def image() -> Image:
    """The program as the package has it.

    Raises:
        HostError: the package lacks it.
    """
    try:
        return read_text(_TEXT.read_text())[0]
    except (OSError, UsageError) as error:
        what = f"the package's steering program cannot be read ({error})"
        raise HostError(what, cure="install pyvnet anew") from error


@cache
def stamp() -> int:
    """64 bits that name this version's program together with its map."""
    digest = hashlib.sha256(image().instructions)
    digest.update(repr((image().relocations, image().maps, MAP_MAGIC, MAP_LAYOUT)).encode())
    return int.from_bytes(digest.digest()[:8], "little")


def load() -> SteeringFds:
    """Make the map, write its header, load the program.

    Raises:
        HostError: no privilege, no bpf(2), or the verifier refuses: with the cure.
    """
    fd = bpf.map_create(_spec())
    try:
        with mmap.mmap(fd, mmap.PAGESIZE) as memory:
            _HEADER.pack_into(memory, 0, MAP_MAGIC, MAP_LAYOUT, stamp())
        code = image().relocated({_spec().name: fd})
        return SteeringFds(bpf.prog_load(code, name=image().name, license_=image().license), fd)
    except OSError as error:
        os.close(fd)
        cure = "Linux 5.5 or newer maps such a map"
        raise HostError("cannot map the steering map", error.errno, cure) from error
    except BaseException:
        os.close(fd)
        raise


def check(program_fd: int, map_fd: int) -> None:
    """See that two fds are this version's program and the map it reads.

    Raises:
        HostError: closed, another kind of fd, another program, a map of another
            shape, layout or stamp, or a map the program does not read.
    """
    _check_program(program_fd)
    _check_map(map_fd)
    _check_header(map_fd)
    _check_pair(program_fd, map_fd)


def _spec() -> MapSpec:
    (spec,) = image().maps
    return spec


def _check_program(fd: int) -> None:
    found = bpf.fd_info(fd)
    if found.kind != "program":
        raise HostError(f"file descriptor {fd} is no BPF program ({found.link})", cure=_WRONG_FD)
    if found.number("prog_type") != bpf.PROG_TYPE_SOCKET_FILTER:
        raise HostError(f"file descriptor {fd} is a BPF program that cannot steer", cure=_WRONG_FD)
    tag = found.values.get("prog_tag", "")
    if tag not in image().tags():
        raise HostError(
            f"the program of fd {fd} has the tag {tag}, which is not this version's steering "
            "program's",
            cure=_OTHER_VERSION,
        )


def _check_map(fd: int) -> None:
    found, spec = bpf.fd_info(fd), _spec()
    if found.kind != "map":
        raise HostError(f"file descriptor {fd} is no BPF map ({found.link})", cure=_WRONG_FD)
    wanted = {
        "map_type": spec.type,
        "key_size": spec.key_size,
        "value_size": spec.value_size,
        "max_entries": spec.max_entries,
        "map_flags": spec.flags,
        "frozen": 0,
    }
    for name, value in wanted.items():
        if found.number(name) not in {value, None if name == "frozen" else value}:
            raise HostError(
                f"the map of fd {fd} has the {name} {found.values.get(name)}, not {value}",
                cure=_OTHER_VERSION,
            )


def _check_header(fd: int) -> None:
    try:
        with mmap.mmap(fd, mmap.PAGESIZE) as memory:
            magic, layout, found = _HEADER.unpack_from(memory)
    except OSError as error:
        cure = "hand over a map that may be written"
        raise HostError(f"cannot map the map of fd {fd}", error.errno, cure) from error
    if (magic, layout) != (MAP_MAGIC, MAP_LAYOUT):
        raise HostError(
            f"the map of fd {fd} is no steering map of this version "
            f"(magic {magic:#x}, layout {layout})",
            cure=_OTHER_VERSION,
        )
    if found != stamp():
        raise HostError(
            f"the map of fd {fd} was made for another steering program "
            f"(stamp {found:016x}, this version's is {stamp():016x})",
            cure=_OTHER_VERSION,
        )


def _check_pair(program_fd: int, map_fd: int) -> None:
    """That the program reads that very map; only bpf(2) can tell, so where it may be asked."""
    try:
        known, asked = bpf.program_info(program_fd).map_ids, bpf.map_info(map_fd).id
    except HostError:
        return
    if asked not in known:
        raise HostError(
            f"the program of fd {program_fd} reads another map than that of fd {map_fd}",
            cure=_WRONG_FD,
        )
