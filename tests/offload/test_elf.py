# SPDX-License-Identifier: MIT
"""What the object reader finds in what clang makes, and what it says of everything else."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvnet.errors import UsageError
from pyvnet.offload import elf, image
from pyvnet.offload.image import MapSpec, Relocation
from tests.offload.sources import (
    CONSTANT,
    LEGACY_MAP,
    LICENSE,
    READ_MAP,
    TYPED_MAP,
    UNSUPPORTED,
    compiled,
)

pytestmark = pytest.mark.needs_program("clang")

NUMBERS = MapSpec("numbers", type=2, key_size=4, value_size=24, max_entries=4, flags=0x400)


@pytest.mark.parametrize("described", [TYPED_MAP, LEGACY_MAP])
@pytest.mark.parametrize("flags", [("-mcpu=v1",), ("-mcpu=v3",), ("-O1",)])
def test_a_program_with_its_map(described: str, flags: tuple[str, ...]) -> None:
    found = elf.read_object(compiled(described + READ_MAP + LICENSE, *flags))
    (program,) = found.programs
    assert (program.name, program.section) == ("choose", "socket/first")
    assert found.license == program.license == "Dual MIT/GPL"
    assert found.maps == program.maps == (NUMBERS,)
    (place,) = program.relocations
    opcodes = [opcode for opcode, *_ in image.instructions(program.instructions)]
    assert [i for i, opcode in enumerate(opcodes) if opcode == image.LD_IMM64] == [
        place.instruction
    ]
    named = list(image.instructions(program.relocated({"numbers": 77})))[place.instruction]
    assert named[2:] == (image.PSEUDO_MAP_FD, 0, 77)


def test_several_programs_of_one_section_are_told_apart() -> None:
    other = 'SEC("socket") int other(struct __sk_buff *skb) { return skb->len; }\n'
    found = elf.read_object(
        compiled(CONSTANT + other + TYPED_MAP + READ_MAP.replace("choose", "third"))
    )
    by_name = {program.name: program for program in found.programs}
    assert set(by_name) == {"choose", "other", "third"}
    assert by_name["choose"].instructions != by_name["other"].instructions
    assert [bool(by_name[name].maps) for name in ("choose", "other", "third")] == [
        False,
        False,
        True,
    ]


def test_maps_nobody_uses_are_listed_and_not_asked_for() -> None:
    found = elf.read_object(compiled(TYPED_MAP + CONSTANT + LICENSE))
    assert found.maps == (NUMBERS,)
    assert found.programs[0].maps == ()


@pytest.mark.parametrize(("source", "says"), UNSUPPORTED.items())
def test_what_is_not_supported_is_named(source: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        elf.read_object(compiled(source + LICENSE))


def test_maps_by_type_take_types() -> None:
    with pytest.raises(UsageError, match=r"without \.BTF; compile with clang -g"):
        elf.read_object(compiled(TYPED_MAP + READ_MAP, "-g0"))


def test_other_machines_and_byte_orders() -> None:
    with pytest.raises(UsageError, match="big-endian"):
        elf.read_object(compiled(CONSTANT, target="bpfeb"))
    with pytest.raises(UsageError, match="another machine"):
        elf.read_object(compiled("int f(void) { return 3; }", target="x86_64-linux-gnu"))
    with pytest.raises(UsageError, match="32 bits"):
        elf.read_object(compiled("int f(void) { return 3; }", target="i386-linux-gnu"))
    for text in (b"", b"\x7fELF", b"#!/bin/sh\n" * 9):
        with pytest.raises(UsageError, match="not an ELF object"):
            elf.read_object(text)


def test_a_linked_object_and_a_huge_file() -> None:
    data = bytearray(compiled(CONSTANT))
    struct.pack_into("<H", data, 16, 2)  # ET_EXEC
    with pytest.raises(UsageError, match="linked already"):
        elf.read_object(bytes(data))
    with pytest.raises(UsageError, match="larger than"):
        elf.read_object(compiled(CONSTANT) + bytes(elf.FILE_MAX))


# --- hostile bytes ------------------------------------------------------------------


def only_usage_errors(data: bytes) -> None:
    """An Object whose programs hold together, or a UsageError."""
    with contextlib.suppress(UsageError):
        for program in elf.read_object(data).programs:
            image.check_relocations(program)
            assert len(program.instructions) == program.count * image.INSTRUCTION.size
            program.relocated({spec.name: 3 for spec in program.maps})


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(tail: bytes) -> None:
    only_usage_errors(tail)
    only_usage_errors(compiled(CONSTANT)[:64] + tail)


def test_an_object_cut_off_anywhere() -> None:
    data = compiled(TYPED_MAP + READ_MAP + LICENSE)
    for length in range(0, len(data), 7):
        only_usage_errors(data[:length])


CHANGES = st.tuples(
    st.sampled_from(("anywhere", "header", "sections")),
    st.integers(0, 0xFFFF),
    st.integers(0, 255) | st.sampled_from((2**32 - 1, 2**63, 2**64 - 8)),
)


@settings(max_examples=250, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=6))
def test_an_object_with_some_bytes_changed(changes: list[tuple[str, int, int]]) -> None:
    """Words that matter are in the headers at both ends; bytes anywhere are changed too."""
    original = compiled(TYPED_MAP + READ_MAP + LICENSE)
    changed = bytearray(original)
    (headers,) = struct.unpack_from("<Q", original, 40)
    places = {
        "anywhere": range(len(original) - 8),
        "header": range(16, 60),
        "sections": range(headers, len(original) - 8),
    }
    for where, at, value in changes:
        place = places[where][at % len(places[where])]
        size = 1 if value < 256 else 8
        changed[place : place + size] = value.to_bytes(size, "little")
    only_usage_errors(bytes(changed))


# --- the text form ------------------------------------------------------------------


def test_a_program_survives_its_text() -> None:
    (program,) = elf.read_object(compiled(TYPED_MAP + READ_MAP + LICENSE)).programs
    again, values = image.read_text("# a comment\n" + image.render(program, clang=14, sources="ab"))
    assert again == program
    assert values["clang"] == "14"
    assert values["sources"] == "ab"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.rpartition("\n")[0][:-17],
        lambda text: text.replace("license", "licence"),
        lambda text: text.replace("relocation ", "relocation 1"),
        lambda text: text.replace("max_entries=4", "max_entries=many"),
        lambda text: text.replace("max_entries=4", ""),
        lambda text: text.replace("map numbers", "map letters"),
        lambda text: text + "zz\n",
    ],
)
def test_a_text_that_was_changed_is_refused(spoil: object) -> None:
    (program,) = elf.read_object(compiled(TYPED_MAP + READ_MAP + LICENSE)).programs
    text = image.render(program, clang=14, sources="ab")
    with pytest.raises(UsageError):
        image.read_text(spoil(text))  # type: ignore[operator]  # a function of the table above


def test_a_map_goes_only_where_one_can_be_named() -> None:
    (program,) = elf.read_object(compiled(TYPED_MAP + READ_MAP)).programs
    for number in (-1, 0, program.count - 1, program.count, 1 << 40):
        with pytest.raises(UsageError, match="cannot name the map"):
            image.check_relocations(replace(program, relocations=(Relocation(number, "numbers"),)))
