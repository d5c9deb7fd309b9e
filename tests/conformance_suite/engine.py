# SPDX-License-Identifier: MIT
"""Faults that are compiled into the build with test hooks: `native/src/mutants.h`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyvnet.datapath import native

if TYPE_CHECKING:
    from pyvnet.datapath.native import Native

ROOT: Final = Path(__file__).parent.parent.parent


def hooks() -> Native:
    """The build with test hooks."""
    return native.load(os.environ.get("PYVNET_NATIVE_HOOKS", f"{ROOT}/build/hooks/_ffi.abi3.so"))


def names(build: Native) -> list[str]:
    """Of the mutants in it, by number."""
    there: list[str] = []
    while name := build.lib.vnet_test_mutant_name(len(there)):
        there.append(build.ffi.string(name).decode().lower().replace("_", "-"))
    return there


def switch(build: Native, name: str) -> None:
    """Let this one be on and no other; "": none.  Raises ValueError for one it has not."""
    compiled = name.upper().replace("-", "_").encode()
    if build.lib.vnet_test_mutant(compiled):
        raise ValueError(f"the engine has no mutant {name}")


def met(build: Native) -> set[str]:
    """Those that anything came by since this was asked last."""
    return {name for at, name in enumerate(names(build)) if build.lib.vnet_test_mutant_met(at)}
