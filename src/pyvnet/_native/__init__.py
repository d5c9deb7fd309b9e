# SPDX-License-Identifier: MIT
"""The one import door to the C data plane: `ffi` and `lib`.

`PYVNET_NATIVE=/path/_ffi.abi3.so` in the environment loads another build of
the same module instead (sanitizers, test hooks: `make native-asan`,
`native-tsan`, `native-hooks`); `load_native()` does so for one caller.
Only `pyvnet.datapath` imports from here.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

_NAME = f"{__name__}._ffi"


def load_native(path: str | os.PathLike[str]) -> tuple[Any, Any]:
    """Load the build of the extension at `path`; return its own (ffi, lib).

    Each path is a separate copy with separate C state: cdata of one must not
    be passed to functions of another.

    Raises:
        ImportError: no such file, or not a build of this extension.
    """
    spec = importlib.util.spec_from_file_location(_NAME, Path(path).resolve())
    if spec is None or spec.loader is None:
        raise ImportError(f"{os.fspath(path)} is not an extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ffi, module.lib


if _other := os.environ.get("PYVNET_NATIVE"):
    ffi, lib = load_native(_other)
else:
    from pyvnet._native._ffi import ffi, lib

__all__ = ["ffi", "lib", "load_native"]
