# SPDX-License-Identifier: MIT
"""A fault put into the running process: a fragment of one function, and what it becomes.

The function is compiled anew from its file and its code object takes the place of the
old one, so whoever holds the function already gets it, tables of functions included.
"""

from __future__ import annotations

import ast
import importlib
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(__file__).parent.parent / "src/pyvnet"

_ANNOTATIONS: Final = 0x100_0000  # from __future__ import annotations


class Fragment(NamedTuple):
    """Part of a function; `file` is below src/pyvnet, `function` what stands in it."""

    file: str
    function: str
    fragment: str
    becomes: str


@contextmanager
def spoilt(fault: Fragment) -> Iterator[None]:
    """Inside, the fragment is what it becomes."""
    with _holding(found(fault), faulty(fault)):
        yield


@contextmanager
def replaced(file: str, name: str, tree: ast.Module) -> Iterator[None]:
    """Inside, one function of a file is as it stands in another tree."""
    function = _function(file, name)
    with _holding(function, _compiled(function, file, name, tree)):
        yield


def found(fault: Fragment) -> FunctionType:
    """The function."""
    return _function(fault.file, fault.function)


def faulty(fault: Fragment) -> CodeType:
    """What its code becomes."""
    lines = (PACKAGE / fault.file).read_text().splitlines(keepends=True)
    first, last = _place("".join(lines), fault.function)
    text = "".join(lines[first:last])
    assert text.count(fault.fragment) == 1, f"it has moved: bring the table up to date: {fault}"
    lines[first:last] = [text.replace(fault.fragment, fault.becomes)]
    tree = ast.parse("".join(lines))
    return _compiled(found(fault), fault.file, fault.function, tree)


@contextmanager
def _holding(function: FunctionType, code: CodeType) -> Iterator[None]:
    whole = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = whole


def _compiled(function: FunctionType, file: str, name: str, tree: ast.Module) -> CodeType:
    flags = function.__code__.co_flags & _ANNOTATIONS
    return _code(compile(tree, file, "exec", flags=flags, dont_inherit=True), name)


def _place(source: str, name: str) -> tuple[int, int]:
    """Lines of a function, from and to."""
    within: ast.AST = ast.parse(source)
    for part in name.split("."):
        (within,) = [
            node
            for node in ast.iter_child_nodes(within)
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == part
        ]
    assert isinstance(within, ast.FunctionDef)
    assert within.end_lineno is not None
    return within.lineno - 1, within.end_lineno


def _code(within: CodeType, name: str) -> CodeType:
    for constant in within.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_qualname == name:
                return constant
            if name.startswith(constant.co_qualname + "."):
                return _code(constant, name)
    raise AssertionError(f"{name} is not in {within.co_filename}")


def _function(file: str, name: str) -> FunctionType:
    module = file.removesuffix(".py").replace("/", ".")
    found: Any = importlib.import_module(f"pyvnet.{module}")
    for part in name.split("."):
        found = found.__dict__[part]
    match found:
        case classmethod():
            found = found.__func__
        case property():
            found = found.fget
    assert isinstance(found, FunctionType)
    return found
