# SPDX-License-Identifier: MIT
"""Write _ffi.c, the cffi module's C text, from the declarations beside this file.

The result is committed: building pyvnet needs a C compiler and no generator.
`make gen` writes it, `make check` compares (`--check`) with the generator
version pinned in constraints.txt.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
MODULE = "pyvnet._native._ffi"


def generate() -> str:
    """Return the C text for native.cdef.txt over native.csrc.c."""
    ffi = FFI()
    ffi.cdef((HERE / "native.cdef.txt").read_text())
    ffi.set_source(MODULE, (HERE / "native.csrc.c").read_text())
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "_ffi.c")
        ffi.emit_c_code(str(target))
        text = target.read_text()
    # cffi names the file it wrote, which would differ from run to run.
    return re.sub(r'(#line \d+ |# \d+ )"[^"]*"', r'\1"_ffi.c"', text)


def main() -> int:
    """Write the file, or with --check say whether it is up to date (status 1: it is not)."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    target = HERE / "_ffi.c"
    text = generate()
    if target.exists() and target.read_text() == text:
        return 0
    if check:
        print(f"{target.name} is out of date: run make gen and commit it", file=sys.stderr)
        return 1
    target.write_text(text)
    print(f"wrote {target.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
