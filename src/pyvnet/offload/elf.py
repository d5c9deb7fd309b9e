# SPDX-License-Identifier: MIT
"""Objects of ``clang -target bpf``: their programs and maps.

An object is an ELF64 file to be linked (``ET_REL``).  Code lies in executable
sections, a program for each function of them; the section's name says what it
is for.  Where a program names a map there is a relocation with the map's symbol.
Maps are described by types (section ``.maps``, see `btf`) or, in older sources,
by ``struct bpf_map_def`` (section ``maps``).

What an object may contain beyond that, and this does not do: global data,
functions that are called, symbols of the kernel or of other objects.  Each is
refused with what to do instead.

Whatever the bytes, what comes out is an Object or a UsageError.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from pyvnet.errors import UsageError
from pyvnet.offload.btf import Btf
from pyvnet.offload.image import (
    INSTRUCTION,
    LD_IMM64,
    Image,
    MapSpec,
    Relocation,
    check_relocations,
    instructions,
)

FILE_MAX: Final = 1 << 20
_SECTIONS_MAX: Final = 256
_PROGRAMS_MAX: Final = 64  # these bounds keep a crafted file from costing memory and time

_IDENT: Final = b"\x7fELF"
_HEADER: Final = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QII")
_MAP_DEF: Final = struct.Struct("<IIIII")

_RELOCATABLE: Final = 1  # ET_REL
_MACHINE: Final = 247  # EM_BPF
_PROGBITS, _SYMTAB, _RELA, _NOBITS, _REL = 1, 2, 4, 8, 9
_EXECUTABLE: Final = 4  # SHF_EXECINSTR
_FUNCTION: Final = 2  # STT_FUNC
_CALL: Final = 0x85  # BPF_JMP | BPF_CALL
_CALL_BPF, _CALL_KERNEL = 1, 2  # its source register: a function of ours, a kfunc


@dataclass(frozen=True, slots=True)
class Object:
    """What an object file holds; each program has the maps it names, and the license."""

    programs: tuple[Image, ...]
    maps: tuple[MapSpec, ...]
    license: str


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    type: int
    flags: int
    data: bytes
    link: int
    info: int


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    type: int
    section: int
    value: int
    size: int


def read_object(data: bytes) -> Object:
    """Take an object file apart.

    Raises:
        UsageError: not ELF, not for BPF, for another byte order, malformed, or
            it needs what is not supported; the message says which.
    """
    sections = _sections(data)
    symbols = _symbols(sections)
    maps = _maps(sections, symbols)
    license_ = next((s.data for s in sections if s.name == "license"), b"")
    text = license_.split(b"\0", 1)[0].decode(errors="replace")
    programs: list[Image] = []
    for number, section in enumerate(sections):
        if section.type == _PROGBITS and section.flags & _EXECUTABLE and section.data:
            places = _relocations(number, sections, symbols, maps)
            for symbol in symbols:
                if symbol.section == number and symbol.type == _FUNCTION:
                    if len(programs) == _PROGRAMS_MAX:
                        raise UsageError(f"there are more than {_PROGRAMS_MAX} programs")
                    programs.append(_program(section, symbol, places, maps, text))
    return Object(tuple(programs), tuple(maps.values()), text)


# --- the file -----------------------------------------------------------------------


def _check_ident(data: bytes) -> None:
    if data[:4] != _IDENT or len(data) < _HEADER.size:
        raise UsageError("not an ELF object: give what `clang -target bpf -c` makes")
    if data[4] != 2:
        raise UsageError("an ELF object of 32 bits: make it with `clang -target bpf`")
    if data[5] != 1:
        raise UsageError("an object for big-endian machines: make it with `clang -target bpfel`")


def _sections(data: bytes) -> list[_Section]:
    _check_ident(data)
    if len(data) > FILE_MAX:
        raise UsageError(f"larger than {FILE_MAX >> 20} MiB, which no object of a program is")
    kind, machine, _, _, _, at, _, _, _, _, size, count, names = _HEADER.unpack_from(data)
    if machine != _MACHINE:
        raise UsageError("an ELF object of another machine: make it with `clang -target bpf`")
    if kind != _RELOCATABLE:
        raise UsageError("linked already: give the object as the compiler made it")
    if size != _SECTION.size or not 0 < count <= _SECTIONS_MAX or names >= count:
        raise _malformed("its section headers")
    headers = [_unpack(_SECTION, data, at + size * i, "its section headers") for i in range(count)]
    if sum(header[5] for header in headers if header[1] != _NOBITS) > len(data):
        raise _malformed("a section beyond its end")
    contents = [_content(data, *header[1:6]) for header in headers]
    return [
        _Section(_string(contents[names], header[0]), header[1], header[2], content, *header[6:8])
        for header, content in zip(headers, contents, strict=True)
    ]


def _content(data: bytes, kind: int, _flags: int, _address: int, at: int, size: int) -> bytes:
    if kind == _NOBITS:
        return b""
    if at + size > len(data):
        raise _malformed("a section beyond its end")
    return data[at : at + size]


def _symbols(sections: list[_Section]) -> list[_Symbol]:
    table = next((section for section in sections if section.type == _SYMTAB), None)
    if table is None:
        return []
    if table.link >= len(sections):
        raise _malformed("its symbol table")
    names = sections[table.link].data
    whole = len(table.data) - len(table.data) % _SYMBOL.size
    return [
        _Symbol(_string(names, name), info & 0xF, section, value, size)
        for name, info, _, section, value, size in _SYMBOL.iter_unpack(table.data[:whole])
    ]


def _unpack(layout: struct.Struct, data: bytes, at: int, what: str) -> tuple[int, ...]:
    if at + layout.size > len(data):
        raise _malformed(what)
    return layout.unpack_from(data, at)


def _string(table: bytes, at: int) -> str:
    end = table.find(b"\0", at)
    if end < 0:
        raise _malformed("a name")
    return table[at:end].decode(errors="replace")


def _malformed(what: str) -> UsageError:
    return UsageError(f"a malformed object: {what} cannot be read; compile it again")


# --- maps ---------------------------------------------------------------------------


def _maps(sections: list[_Section], symbols: list[_Symbol]) -> dict[tuple[int, int], MapSpec]:
    """Where each map is (section, offset) → the map."""
    found: dict[tuple[int, int], MapSpec] = {}
    for number, section in enumerate(sections):
        if section.name not in {".maps", "maps"} or section.type != _PROGBITS:
            continue
        own = [symbol for symbol in symbols if symbol.section == number and symbol.name]
        types = _map_types(sections) if section.name == ".maps" else {}
        for symbol in own:
            if section.name == "maps":
                spec = _map_def(section, symbol)
            elif symbol.name in types:
                spec = types[symbol.name]
            else:
                raise UsageError(f"the map {symbol.name} has no type; compile with clang -g")
            found[number, symbol.value] = spec
    return found


def _map_types(sections: list[_Section]) -> dict[str, MapSpec]:
    types = next((section.data for section in sections if section.name == ".BTF"), None)
    if types is None:
        raise UsageError("the section .maps comes without .BTF; compile with clang -g")
    return {spec.name: spec for spec in Btf(types).maps()}


def _map_def(section: _Section, symbol: _Symbol) -> MapSpec:
    numbers = _unpack(_MAP_DEF, section.data, symbol.value, f"the map {symbol.name}")
    beyond = section.data[symbol.value : symbol.value + symbol.size][_MAP_DEF.size :]
    if any(beyond):  # pinning and inner maps of other loaders
        raise UsageError(f"the map {symbol.name} says more than struct bpf_map_def has")
    return MapSpec(symbol.name, *numbers)


# --- programs -----------------------------------------------------------------------


def _relocations(
    number: int,
    sections: list[_Section],
    symbols: list[_Symbol],
    maps: dict[tuple[int, int], MapSpec],
) -> dict[int, str]:
    """Offset in the section → name of the map that belongs there."""
    places: dict[int, str] = {}
    for section in sections:
        if section.info != number or section.type not in {_REL, _RELA}:
            continue
        if section.type == _RELA or len(section.data) % _RELOCATION.size:
            raise _malformed("its relocations")
        for at, _, index in _RELOCATION.iter_unpack(section.data):
            if index >= len(symbols):
                raise _malformed("its relocations")
            symbol = symbols[index]
            spec = maps.get((symbol.section, symbol.value))
            if spec is None:
                raise _unsupported(sections, symbol)
            places[at] = spec.name
    return places


def _unsupported(sections: list[_Section], symbol: _Symbol) -> UsageError:
    if symbol.section == 0:
        return UsageError(
            f"{symbol.name} is defined nowhere: functions of the kernel or of other objects "
            "cannot be called"
        )
    name = sections[symbol.section].name if symbol.section < len(sections) else ""
    if symbol.type == _FUNCTION or name == ".text":
        return _calls(symbol.name or "another function")
    return UsageError(
        f"global data ({symbol.name or name}) is not supported: keep it in a map or on the stack"
    )


def _calls(what: str) -> UsageError:
    return UsageError(f"{what} is called: mark functions `static __always_inline`")


def _program(
    section: _Section,
    symbol: _Symbol,
    places: dict[int, str],
    maps: dict[tuple[int, int], MapSpec],
    license_: str,
) -> Image:
    begin, end = symbol.value, symbol.value + symbol.size
    if begin % INSTRUCTION.size or symbol.size % INSTRUCTION.size or end > len(section.data):
        raise _malformed(f"the function {symbol.name}")
    code = bytearray(section.data[begin:end])
    for opcode, _, source, _, _ in instructions(bytes(code)):
        if opcode == _CALL and source in {_CALL_BPF, _CALL_KERNEL}:
            raise _calls("a function")
    relocations = []
    for at, name in sorted(places.items()):
        if begin <= at < end:
            relocations.append(_place(code, at - begin, name))
    named = {place.map for place in relocations}
    image = Image(
        symbol.name,
        section.name,
        bytes(code),
        tuple(relocations),
        tuple({spec.name: spec for spec in maps.values() if spec.name in named}.values()),
        license_,
    )
    check_relocations(image)
    return image


def _place(code: bytearray, at: int, name: str) -> Relocation:
    """The relocation; the instruction's addend has to be zero, as one map is one thing."""
    whole = at + 2 * INSTRUCTION.size <= len(code)
    if at % INSTRUCTION.size or not whole or code[at] != LD_IMM64:
        raise UsageError(f"the map {name} is used as something else than a map")
    _, registers, offset, addend = INSTRUCTION.unpack_from(code, at)
    if addend or offset or registers >> 4:
        raise UsageError(f"the map {name} is pointed into")
    return Relocation(at // INSTRUCTION.size, name)
