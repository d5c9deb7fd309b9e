# SPDX-License-Identifier: MIT
"""What a privileged process may load into the kernel for a peer it does not trust.

The kernel's verifier asks who loads, not who wrote: with CAP_PERFMON a program may
keep kernel pointers in its maps, return what lay on the stack, and read past a
mispredicted bounds check.  So a program of somebody else passes three gates here:

1. `review` goes through the instructions: nothing but plain arithmetic, loads,
   stores, jumps within and a few helpers; maps are named by their number among
   the peer's own, never by an fd or id, of which the peer could guess others'.
2. `load` loads it without CAP_PERFMON and CAP_SYS_ADMIN in force, so that the
   rules for the unprivileged hold.  CAP_BPF (Linux 5.8) stays: it allows the call.
3. How long the verifier may take, and how much it may have had to follow, is
   bounded; a program made of branches keeps it busy for seconds otherwise.

Nothing may jump back, so a program runs at most as many instructions as it has.
Loops would be of little use: without CAP_PERFMON the verifier follows what a
processor may do speculatively as well, and gives up on few turns.

What passes can be wrong, and can answer badly for the frames it sees; beyond them,
what the kernel notes of them, the clock and the peer's maps it reaches nothing.
"""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pyvnet.errors import HostError, UsageError
from pyvnet.offload import bpf
from pyvnet.offload.image import INSTRUCTION, LD_IMM64, PSEUDO_MAP_FD, instructions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyvnet.offload.image import MapSpec

INSTRUCTIONS_MAX: Final = 4096
VERIFIED_MAX: Final = 100_000
VERIFIER_SECONDS: Final = 0.5
LICENSE_MAX: Final = 128  # as the kernel has it
MAP_BYTES_MAX: Final = 4 << 20

# Their numbers are those of enum bpf_func_id; each is there since Linux 5.8 or before.
HELPERS: Final = {
    "map_lookup_elem": 1,
    "map_update_elem": 2,
    "map_delete_elem": 3,
    "ktime_get_ns": 5,
    "get_prandom_u32": 7,
    "get_smp_processor_id": 8,
    "skb_load_bytes": 26,
    "csum_diff": 28,
    "skb_load_bytes_relative": 68,
}
# Per type of map: the flags it may have (BPF_F_NO_PREALLOC, BPF_F_MMAPABLE).
_MAPS: Final = {1: 0x1, 2: 0x400, 5: 0, 6: 0, 9: 0, 10: 0, 11: 0x1}
_PER_CPU: Final = frozenset({5, 6, 10})
_KEY_MAX: Final = 256
_ENTRY_OVERHEAD: Final = 64

_LOADS: Final = frozenset({0x61, 0x69, 0x71, 0x79})  # LDX | MEM, of 4, 2, 1, 8 bytes
_STORES: Final = frozenset({0x62, 0x6A, 0x72, 0x7A, 0x63, 0x6B, 0x73, 0x7B})  # ST, STX | MEM
_ATOMIC: Final = frozenset({0xC3, 0xDB})  # of which only the addition that returns nothing
_CALL, _EXIT, _JUMP = 0x85, 0x95, 0x05
_PLAIN: Final = _LOADS | _STORES | {_EXIT, _JUMP}
_REGISTERS: Final = 11
_ALU, _ALU64, _JMP, _JMP32 = 0x04, 0x07, 0x05, 0x06  # classes
_OPERATIONS: Final = frozenset(range(0x00, 0xE0, 0x10))  # ADD … END
_NEGATE, _SWAP = 0x80, 0xD0
_CONDITIONS: Final = frozenset({*range(0x10, 0x80, 0x10), *range(0xA0, 0xE0, 0x10)})

_CAP_SYS_ADMIN: Final = 21
_CAP_PERFMON: Final = 38
_CAP_VERSION: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_CAP_SETS: Final = struct.Struct("=6I")  # effective, permitted, inheritable; the upper halves


def review(code: bytes, maps: int) -> None:
    """Judge a peer's instructions, which name the peer's maps 0 … ``maps`` - 1.

    Raises:
        UsageError: what it may not do, and where.
    """
    if not code or len(code) % INSTRUCTION.size:
        raise UsageError("not whole instructions of eight bytes")
    if len(code) > INSTRUCTIONS_MAX * INSTRUCTION.size:
        raise UsageError(f"more than {INSTRUCTIONS_MAX} instructions")
    program = list(instructions(code))
    halves = _second_halves(program)
    for number, instruction in enumerate(program):
        if number not in halves:
            reason = _wrong(instruction, maps) or _wrong_jump(number, instruction, program, halves)
            if reason:
                raise UsageError(f"instruction {number}: {reason}")
    if program[-1][0] not in {_EXIT, _JUMP}:
        raise UsageError("it runs off its end")


def load(
    code: bytes,
    maps: Sequence[int],
    *,
    name: str,
    license_: str,
    verified_max: int = VERIFIED_MAX,
) -> int:
    """Load a peer's socket filter; returns its fd, the caller's to close.

    To be called by the main thread, which alone can end the verifier in time.

    Args:
        code: names maps by their place in ``maps``.
        maps: fds of those that were made for this peer.
        name: letters, digits and underscores; others are replaced.
        license_: as the kernel is told it.
        verified_max: how many instructions the verifier may have followed.

    Raises:
        UsageError: `review` refuses it, or there was too much to follow.
        HostError: no CAP_BPF, or the verifier refuses.
    """
    review(code, len(maps))
    if "\0" in license_ or len(license_.encode()) >= LICENSE_MAX:
        raise UsageError("the license is no text the kernel takes")
    with unprivileged():
        fd = bpf.prog_load(
            _with_fds(code, maps), name=name, license_=license_, seconds=VERIFIER_SECONDS
        )
    try:
        _bound(bpf.program_info(fd).verified_instructions, verified_max)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _bound(verified: int, most: int) -> None:
    """Zero where the kernel does not say (before Linux 5.16)."""
    if verified > most:
        raise UsageError(
            f"there was too much to follow: {verified} instructions, {most} are allowed"
        )


def review_map(spec: MapSpec) -> int:
    """Judge a map a peer asks for; returns about how many bytes of kernel memory it takes.

    Raises:
        UsageError: of a type that is not offered, or too large.
    """
    if spec.type not in _MAPS:
        raise UsageError(f"maps of type {spec.type} are not made for others")
    if spec.flags & ~_MAPS[spec.type]:
        raise UsageError(f"a map of type {spec.type} may not have the flags {spec.flags:#x}")
    sizes = (spec.key_size, spec.value_size, spec.max_entries)
    if min(sizes) < 1 or spec.key_size > _KEY_MAX or max(sizes) > MAP_BYTES_MAX:
        raise UsageError("a map of such sizes is not made")
    copies = (os.cpu_count() or 1) if spec.type in _PER_CPU else 1
    entry = spec.key_size + spec.value_size * copies + _ENTRY_OVERHEAD
    if entry * spec.max_entries > MAP_BYTES_MAX:
        raise UsageError(f"a map of more than {MAP_BYTES_MAX >> 20} MiB is not made")
    return entry * spec.max_entries


@contextmanager
def unprivileged() -> Iterator[None]:
    """Have this thread do without CAP_PERFMON and CAP_SYS_ADMIN meanwhile.

    Raises:
        HostError: the kernel does not let go of them.
    """
    before = _capabilities()
    low, *between, high, permitted, inheritable = before
    bare = (low & ~(1 << _CAP_SYS_ADMIN), *between, high & ~(1 << _CAP_PERFMON - 32))
    _set_capabilities((*bare, permitted, inheritable))
    try:
        yield
    finally:
        _set_capabilities(before)


# --- instructions -------------------------------------------------------------------

_Instruction = tuple[int, int, int, int, int]


def _second_halves(program: Sequence[_Instruction]) -> frozenset[int]:
    """Numbers that are the rest of an ``LD_IMM64``."""
    found: set[int] = set()
    for number, (opcode, *_) in enumerate(program):
        if opcode == LD_IMM64 and number not in found:
            if program[number + 1 : number + 2] and program[number + 1][:4] == (0, 0, 0, 0):
                found.add(number + 1)
            else:
                raise UsageError(f"instruction {number}: a load of 64 bits lacks its second half")
    return frozenset(found)


def _wrong(instruction: _Instruction, maps: int) -> str:
    opcode, to, source, offset, value = instruction
    reason = ""
    if to >= _REGISTERS or source >= _REGISTERS:
        reason = "no such register"
    elif opcode == LD_IMM64:
        reason = _wrong_constant(source, offset, value, maps)
    elif opcode == _CALL:
        reason = _wrong_call(to, source, offset, value)
    elif opcode in _ATOMIC:
        reason = "of atomic operations only the addition is allowed" if value else ""
    elif _is(opcode, _OPERATIONS, _ALU, _ALU64):
        reason = _wrong_arithmetic(opcode, source, offset)
    elif opcode not in _PLAIN and not _is(opcode, _CONDITIONS, _JMP, _JMP32):
        reason = f"the opcode {opcode:#04x} is not allowed"
    return reason


def _is(opcode: int, operations: frozenset[int], *classes: int) -> bool:
    return opcode & 0x07 in classes and opcode & 0xF0 in operations


def _wrong_constant(source: int, offset: int, value: int, maps: int) -> str:
    if source not in {0, PSEUDO_MAP_FD} or offset:
        return "only constants and maps can be loaded"
    if source == PSEUDO_MAP_FD and not 0 <= value < maps:
        return f"there is no map {value}"
    return ""


def _wrong_call(to: int, source: int, offset: int, value: int) -> str:
    if to or source or offset:
        return "only helpers can be called, no functions of the kernel or of its own"
    if value not in HELPERS.values():
        return f"the helper {value} is not allowed; {', '.join(HELPERS)} are"
    return ""


def _wrong_arithmetic(opcode: int, source: int, offset: int) -> str:
    """Newer instructions hide in fields that were zero: signed division, sign extension, bswap."""
    kind, operation = opcode & 0x07, opcode & 0xF0
    if offset or (operation == _SWAP and kind == _ALU64):
        return f"this form of the opcode {opcode:#04x} is newer than Linux 5.8"
    immediate = not opcode & 0x08
    if source and (immediate or operation in {_NEGATE, _SWAP}):
        return f"the opcode {opcode:#04x} takes no second register"
    return ""


def _wrong_jump(
    number: int,
    instruction: _Instruction,
    program: Sequence[_Instruction],
    halves: frozenset[int],
) -> str:
    opcode, offset = instruction[0], instruction[3]
    if opcode & 0x07 not in {_JMP, _JMP32} or opcode in {_CALL, _EXIT}:
        return ""
    target = number + 1 + offset
    if offset < 0:
        return "it jumps back"
    return "" if target < len(program) and target not in halves else "it jumps outside"


def _with_fds(code: bytes, maps: Sequence[int]) -> bytes:
    placed = bytearray(code)
    halves = _second_halves(list(instructions(code)))
    for number, (opcode, to, source, offset, value) in enumerate(instructions(code)):
        if opcode == LD_IMM64 and source == PSEUDO_MAP_FD and number not in halves:
            at = number * INSTRUCTION.size
            INSTRUCTION.pack_into(placed, at, opcode, to | source << 4, offset, maps[value])
    return bytes(placed)


# --- capabilities -------------------------------------------------------------------


def _capabilities() -> tuple[int, ...]:
    sets = ctypes.create_string_buffer(_CAP_SETS.size)
    _capability_call("capget", sets)
    return _CAP_SETS.unpack(sets.raw)


def _set_capabilities(values: tuple[int, ...]) -> None:
    _capability_call("capset", ctypes.create_string_buffer(_CAP_SETS.pack(*values), _CAP_SETS.size))


def _capability_call(name: str, sets: ctypes.Array[ctypes.c_char]) -> None:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAP_VERSION, 0), 8)
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(header, sets):
        raise HostError("cannot do without privileges for a moment", ctypes.get_errno())
