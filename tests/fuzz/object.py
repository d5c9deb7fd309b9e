# SPDX-License-Identifier: MIT
"""Fuzz target: an object file that is to hold a steering program, and what it says.

Invariant: any bytes are an Object or a UsageError.  Programs of an Object are whole
instructions, their relocations lie within and at loads of maps the program
lists; they survive their text form; and the review of programs for peers
finds an answer about each.
"""

from __future__ import annotations

from contextlib import suppress

from pyvnet.errors import UsageError
from pyvnet.offload import check as review
from pyvnet.offload import elf, image


def check(data: bytes) -> None:
    """Run one input; raises AssertionError, or anything unforeseen, when the invariant fails."""
    try:
        found = elf.read_object(data)
    except UsageError:
        return
    for program in found.programs:
        assert len(program.instructions) == program.count * image.INSTRUCTION.size
        image.check_relocations(program)
        numbers = {spec.name: number for number, spec in enumerate(program.maps)}
        with suppress(UsageError):
            review.review(program.relocated(numbers), len(numbers))
        if program.count and _is_plain(program):
            again, _ = image.read_text(image.render(program, clang=14, sources=""))
            assert again == program


def _is_plain(program: image.Image) -> bool:
    """Whether its names are words, as a compiler's are; the text form takes no others."""
    names = [program.name, program.section, *(spec.name for spec in program.maps)]
    words = all(name.isascii() and name.isprintable() and " " not in name for name in names)
    return words and program.license.isascii() and (program.license or "x").isprintable()
