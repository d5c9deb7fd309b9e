# SPDX-License-Identifier: MIT
"""The part of BTF that describes maps.

A map in the section ``.maps`` is a variable of an anonymous struct that exists
only as a type: a member ``int (*max_entries)[64]`` says 64 by the length of the
array it points to, a member ``struct key *key`` says a size by the type it points
to.  Format: ``Documentation/bpf/btf.rst``.

Whatever the bytes, what comes out is maps or a UsageError.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from pyvnet.errors import UsageError
from pyvnet.offload.image import MapSpec

_HEADER: Final = struct.Struct("<HBBIIIII")
_TYPE: Final = struct.Struct("<III")
_MEMBER: Final = struct.Struct("<III")
_MAGIC: Final = 0xEB9F
_NESTING: Final = 32
_MAPS_MAX: Final = 64
_MEMBERS_MAX: Final = 64
_POINTER_SIZE: Final = 8

INT, POINTER, ARRAY, STRUCT, UNION, ENUM, FORWARD, TYPEDEF = range(1, 9)
VOLATILE, CONST, RESTRICT, FUNCTION, PROTOTYPE, VARIABLE, SECTION, FLOAT = range(9, 17)
DECLARATION_TAG, TYPE_TAG, ENUM64 = range(17, 20)

_SIZED: Final = frozenset({INT, STRUCT, UNION, ENUM, FLOAT, ENUM64})
_ALIASES: Final = frozenset({TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG})
# Bytes that follow a type: (fixed, for each of its vlen elements).
_FOLLOWS: Final = {
    INT: (4, 0),
    ARRAY: (12, 0),
    STRUCT: (0, 12),
    UNION: (0, 12),
    ENUM: (0, 8),
    PROTOTYPE: (0, 8),
    VARIABLE: (4, 0),
    SECTION: (0, 12),
    DECLARATION_TAG: (4, 0),
    ENUM64: (0, 12),
}
_NUMBERS: Final = {
    "type": "type",
    "key_size": "key_size",
    "value_size": "value_size",
    "max_entries": "max_entries",
    "map_flags": "flags",
}
_SIZES: Final = {"key": "key_size", "value": "value_size"}


@dataclass(frozen=True, slots=True)
class _Type:
    """One type; ``reference`` is its size or the number of another type."""

    kind: int
    name: str
    reference: int
    elements: tuple[tuple[int, int, int], ...]


class Btf:
    """The types of one object.

    Raises:
        UsageError: the bytes are not BTF.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise _malformed("too short")
        magic, version, _, length, types, types_size, names, names_size = _HEADER.unpack_from(data)
        if magic != _MAGIC or version != 1:
            raise _malformed("unknown version")
        self._names = data[length + names :][:names_size]
        # Type 0 is void.
        self._types = [_Type(0, "", 0, ()), *self._read(data[length + types :][:types_size])]

    def maps(self) -> list[MapSpec]:
        """The maps of the section ``.maps``.

        Raises:
            UsageError: one that is described in a way we do not know.
        """
        specs: list[MapSpec] = []
        for section in self._types:
            if section.kind == SECTION and section.name == ".maps":
                if len(specs) + len(section.elements) > _MAPS_MAX:
                    raise UsageError(f"there are more than {_MAPS_MAX} maps")
                for number, _, _ in section.elements:
                    variable = self._type(number)
                    specs.append(self._map(variable.name, self._plain(variable.reference)))
        return specs

    def _read(self, data: bytes) -> list[_Type]:
        found = []
        at = 0
        while at < len(data):
            name, info, reference = _unpack(_TYPE, data, at)
            kind, elements = info >> 24 & 0x1F, info & 0xFFFF
            fixed, each = _FOLLOWS.get(kind, (0, 0))
            at += _TYPE.size
            members: list[tuple[int, int, int]] = []
            if kind == ARRAY:
                members.append(_unpack(_MEMBER, data, at))
            elif kind in {STRUCT, SECTION}:
                members += (_unpack(_MEMBER, data, at + each * i) for i in range(elements))
            at += fixed + each * elements
            found.append(_Type(kind, self._name(name), reference, tuple(members)))
        return found

    def _name(self, offset: int) -> str:
        if offset >= len(self._names):
            return ""
        return self._names[offset:].split(b"\0", 1)[0].decode(errors="replace")

    def _type(self, number: int) -> _Type:
        if number >= len(self._types):
            raise _malformed(f"no type {number}")
        return self._types[number]

    def _plain(self, number: int) -> _Type:
        """What is behind typedefs and qualifiers."""
        found = self._type(number)
        for _ in range(_NESTING):
            if found.kind not in _ALIASES:
                return found
            found = self._type(found.reference)
        raise _malformed("types go round in circles")

    def _size(self, number: int, depth: int = 0) -> int:
        found = self._plain(number)
        if found.kind in _SIZED:
            return found.reference
        if found.kind == POINTER:
            return _POINTER_SIZE
        if found.kind == ARRAY and depth < _NESTING:
            element, _, count = found.elements[0]
            return self._size(element, depth + 1) * count
        raise _malformed(f"type {number} has no size")

    def _map(self, name: str, described: _Type) -> MapSpec:
        if described.kind != STRUCT or len(described.elements) > _MEMBERS_MAX:
            raise UsageError(f"the map {name} is not described by a struct")
        numbers: dict[str, int] = {}
        for member_name, member, _ in described.elements:
            self._describe(name, self._name(member_name), member, numbers)
        if missing := {"type", "key_size", "value_size", "max_entries"} - set(numbers):
            raise UsageError(f"the map {name} does not say its {', '.join(sorted(missing))}")
        return MapSpec(name, **numbers)

    def _describe(self, name: str, attribute: str, member: int, numbers: dict[str, int]) -> None:
        pointer = self._plain(member)
        if attribute in _SIZES and pointer.kind == POINTER:
            number = self._size(pointer.reference)
        elif pointer.kind == POINTER and self._plain(pointer.reference).kind == ARRAY:
            number = self._plain(pointer.reference).elements[0][2]
        else:
            raise UsageError(f"the map {name} has {attribute!r}, which cannot be had here")
        known = _SIZES.get(attribute) or _NUMBERS.get(attribute)
        if known is not None and number < 1 << 32:
            numbers[known] = number
        elif number:  # pinning, say; to say 0 asks for nothing
            raise UsageError(f"the map {name} has {attribute!r}, which cannot be had here")


def _unpack(layout: struct.Struct, data: bytes, at: int) -> tuple[int, int, int]:
    if at + layout.size > len(data):
        raise _malformed("a type is cut off")
    first, second, third = layout.unpack_from(data, at)
    return first, second, third


def _malformed(why: str) -> UsageError:
    return UsageError(f"the section .BTF cannot be read: {why}; compile with clang -g")
