# SPDX-License-Identifier: MIT
"""A BPF program before it is loaded: instructions, the maps it wants, and where they go.

Instructions are ``struct bpf_insn`` of ``include/uapi/linux/bpf.h``, eight bytes
each, in the byte order they are loaded in::

    u8 opcode; u8 destination : 4, source : 4; s16 offset; s32 immediate

A map is named by a load of 64 bits (``LD_IMM64``, two instructions long) whose
source register says that its immediate is a map's fd: what a relocation fills in.

The text form keeps a program in a source repository: a header of one word and
its values a line, then one instruction a line as 16 hex digits.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pyvnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INSTRUCTION: Final = struct.Struct("<BBhi")
LD_IMM64: Final = 0x18  # BPF_LD | BPF_DW | BPF_IMM
PSEUDO_MAP_FD: Final = 1
_MAP_FIELDS: Final = ("type", "key_size", "value_size", "max_entries", "flags")


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A map to be made: numbers as ``BPF_MAP_CREATE`` takes them, sizes in bytes."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Relocation:
    """Instruction number ``instruction``, an ``LD_IMM64``, names ``map``."""

    instruction: int
    map: str


@dataclass(frozen=True, slots=True)
class Image:
    """One program.

    Attributes:
        name: of its C function.
        section: of the object it came from; says what it is for.
        instructions: where a map belongs they say zero.
        relocations: each lies within, at an ``LD_IMM64``.
        maps: those the relocations name, in the order they are first named.
        license: as the kernel is told it.
    """

    name: str
    section: str
    instructions: bytes
    relocations: tuple[Relocation, ...] = ()
    maps: tuple[MapSpec, ...] = ()
    license: str = ""

    @property
    def count(self) -> int:
        """Number of instructions."""
        return len(self.instructions) // INSTRUCTION.size

    def relocated(self, maps: Mapping[str, int]) -> bytes:
        """The instructions with each map's fd in its places."""
        code = bytearray(self.instructions)
        for place in self.relocations:
            _name_map(code, place.instruction, maps[place.map])
        return bytes(code)

    def tags(self) -> frozenset[str]:
        """What the kernel may call this program: its tag, as 16 hex digits.

        The digest of the instructions with map fds zeroed, cut to eight bytes
        (kernel/bpf/core.c, bpf_prog_calc_tag()): SHA-1, since 6.18 SHA-256.
        """
        code = self.relocated(dict.fromkeys((spec.name for spec in self.maps), 0))
        return frozenset(
            digest.hexdigest()[:16]
            for digest in (
                hashlib.sha1(code, usedforsecurity=False),
                hashlib.sha256(code, usedforsecurity=False),
            )
        )


def instructions(code: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (opcode, destination, source, offset, immediate) of each instruction."""
    for opcode, registers, offset, immediate in INSTRUCTION.iter_unpack(code):
        yield opcode, registers & 0xF, registers >> 4, offset, immediate


def _name_map(code: bytearray, number: int, fd: int) -> None:
    at = number * INSTRUCTION.size
    opcode, registers, offset, _ = INSTRUCTION.unpack_from(code, at)
    INSTRUCTION.pack_into(code, at, opcode, registers & 0xF | PSEUDO_MAP_FD << 4, offset, fd)


# --- the text form ------------------------------------------------------------------


def render(image: Image, *, clang: int, sources: str) -> str:
    """Write a program down.

    Args:
        image: the program.
        clang: major version of the compiler that made it.
        sources: digest of the files it was made from.
    """
    lines = [f"clang {clang}", f"sources {sources}", f"license {image.license}"]
    for spec in image.maps:
        numbers = (f"{name}={getattr(spec, name)}" for name in _MAP_FIELDS)
        lines.append(f"map {spec.name} {' '.join(numbers)}")
    lines.append(f"program {image.name} section={image.section}")
    lines += [f"relocation {place.instruction} {place.map}" for place in image.relocations]
    lines.append(f"instructions {image.count}")
    code, size = image.instructions, INSTRUCTION.size
    lines += [code[at : at + size].hex() for at in range(0, len(code), size)]
    return "\n".join(lines) + "\n"


@dataclass(slots=True)
class _Text:
    """What was read so far."""

    values: dict[str, str] = field(default_factory=dict)
    maps: list[MapSpec] = field(default_factory=list)
    relocations: list[Relocation] = field(default_factory=list)


def read_text(text: str) -> tuple[Image, dict[str, str]]:
    """Read what `render` wrote: the program, and the header's single values.

    Raises:
        UsageError: it is something else, or was cut off or changed by hand.
    """
    found = _Text()
    lines = iter(text.splitlines())
    try:
        for line in lines:
            if line.startswith("#"):
                continue
            word, _, rest = line.partition(" ")
            _read_header(found, word, rest)
            if word == "instructions":
                break
        code = bytes.fromhex("".join(lines))
        count = int(found.values["instructions"])
        name, _, section = found.values["program"].partition(" section=")
        license_ = found.values["license"]
    except (KeyError, ValueError) as error:
        raise UsageError(f"not the text of a program: {error}") from error
    image = Image(name, section, code, tuple(found.relocations), tuple(found.maps), license_)
    if not count or len(code) != count * INSTRUCTION.size:
        raise UsageError(f"the text of a program names {count} instructions and has others")
    check_relocations(image)
    return image, found.values


def _read_header(found: _Text, word: str, rest: str) -> None:
    if word == "map":
        name, *numbers = rest.split(" ")
        values = dict(number.split("=", 1) for number in numbers)
        found.maps.append(MapSpec(name, *(int(values[key]) for key in _MAP_FIELDS)))
    elif word == "relocation":
        number, _, name = rest.partition(" ")
        found.relocations.append(Relocation(int(number), name))
    elif re.fullmatch(r"clang|sources|license|program|instructions", word):
        found.values[word] = rest
    else:
        raise ValueError(f"the line {word!r} is unknown")


def check_relocations(image: Image) -> None:
    """Raise UsageError for one that is not at an ``LD_IMM64`` within, or names no map."""
    known = {spec.name for spec in image.maps}
    for place in image.relocations:
        at = place.instruction * INSTRUCTION.size
        whole = 0 <= at <= len(image.instructions) - 2 * INSTRUCTION.size
        if not whole or image.instructions[at] != LD_IMM64 or place.map not in known:
            raise UsageError(f"instruction {place.instruction} cannot name the map {place.map!r}")
