# SPDX-License-Identifier: MIT
"""`make bpf-check`: the instructions in the package are what their source makes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pyvnet.offload import image
from tools import bpf_build

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tool's text, to be changed."""
    copy = tmp_path / "steer.bpf.txt"
    copy.write_text(bpf_build.TEXT.read_text())
    monkeypatch.setattr(bpf_build, "TEXT", copy)
    # Messages name files by their place in the tree.
    monkeypatch.setattr(bpf_build, "ROOT", tmp_path)
    return copy


def check(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["bpf_build.py", *words])
    try:
        bpf_build.main()
    except SystemExit as error:
        return str(error)
    return ""


def test_the_text_is_a_program_with_one_map() -> None:
    program, values = image.read_text(bpf_build.TEXT.read_text())
    assert (program.name, program.section) == ("pyvnet_steer", "socket")
    assert [spec.name for spec in program.maps] == ["steering"]
    assert int(values["clang"]) == bpf_build.recorded_clang()


def test_the_compiler_must_be_the_one_that_is_named(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text.write_text(text.read_text().replace(f"clang {bpf_build.recorded_clang()}", "clang 3"))
    said = check(monkeypatch, "--check")
    assert said == "missing Debian package: clang-3 (apt-get install clang-3)"


@pytest.mark.parametrize("place", ["sources ", "instructions ", "relocation "])
def test_a_text_that_is_not_what_the_sources_make(
    text: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """However little was changed by hand."""
    program, values = image.read_text(text.read_text())
    monkeypatch.setattr(bpf_build, "find_clang", lambda wanted: ("clang", wanted))
    monkeypatch.setattr(bpf_build, "compiled", lambda _clang: (program, values["sources"]))
    monkeypatch.setattr(bpf_build, "SOURCE", text.parent / "native/bpf/steer.bpf.c")
    assert check(monkeypatch, "--check") == ""
    head, _, tail = text.read_text().partition(place)
    digit = "1" if tail[0] != "1" else "2"
    text.write_text(head + place + digit + tail[1:])
    assert check(monkeypatch, "--check").endswith("is not what its sources make: run make bpf")
    check(monkeypatch)
    assert check(monkeypatch, "--check") == ""
