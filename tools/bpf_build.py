# SPDX-License-Identifier: MIT
"""Compile native/bpf and write the instructions down in the package, or compare.

    python tools/bpf_build.py            write src/pyvnet/offload/steer.bpf.txt anew
    python tools/bpf_build.py --check    fail unless it is what its sources make
    python tools/bpf_build.py --clang    print the major version of clang it was made by

Another compiler makes other instructions of the same source, so a comparison
takes the version that is written down; writing anew takes it too, or, where
nothing is written down yet, any.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from pyvnet.errors import UsageError
from pyvnet.offload import elf, image

ROOT: Final = Path(__file__).parent.parent
SOURCE: Final = ROOT / "native/bpf/steer.bpf.c"
TEXT: Final = ROOT / "src/pyvnet/offload/steer.bpf.txt"
HEADING: Final = f"# {SOURCE.relative_to(ROOT)}, compiled; `make bpf` writes this\n"
# -mcpu=v3 is what Linux 5.1 and newer run; -g brings the types that describe maps.
FLAGS: Final = (
    *("-target", "bpf", "-mcpu=v3", "-O2", "-g", "-std=gnu11", "-ffreestanding"),
    *("-Wall", "-Wextra", "-Wshadow", "-Werror", "-Inative/include", "-Inative/bpf"),
)


def recorded_clang() -> int | None:
    """Return the major version of the compiler that made the text."""
    found = re.search(r"^clang (\d+)$", TEXT.read_text(), re.MULTILINE) if TEXT.exists() else None
    return int(found[1]) if found else None


def major(clang: str) -> int | None:
    """Return a compiler's major version."""
    if shutil.which(clang) is None:
        return None
    said = subprocess.run([clang, "--version"], check=True, capture_output=True, text=True).stdout  # noqa: S603 a compiler
    found = re.search(r"clang version (\d+)", said)
    return int(found[1]) if found else None


def find_clang(wanted: int | None) -> tuple[str, int]:
    """Return the command and its major version."""
    for command in (f"clang-{wanted}", "clang"):
        version = major(command)
        if version is not None and wanted in {None, version}:
            return command, version
    package = f"clang-{wanted}" if wanted else "clang"
    sys.exit(f"missing Debian package: {package} (apt-get install {package})")


def system_headers() -> list[str]:
    """Say where asm/types.h is: clang does not look there for the target bpf."""
    folders = [path.parent.parent for path in Path("/usr/include").glob("*/asm/types.h")]
    native = [path for path in folders if path.name.startswith(f"{machine()}-")]
    return [word for path in (native or folders)[:1] for word in ("-idirafter", str(path))]


def machine() -> str:
    """Return this machine's name in Debian's paths."""
    import platform

    return platform.machine()


def compiled(clang: str) -> tuple[image.Image, str]:
    """Compile; returns the program, and the digest of all files of ours it was made of."""
    command = [clang, *FLAGS, *system_headers(), str(SOURCE.relative_to(ROOT))]
    with tempfile.TemporaryDirectory() as folder:
        made, needs = Path(folder) / "steer.o", Path(folder) / "steer.d"
        done = subprocess.run(  # noqa: S603 a compiler
            [*command, "-c", "-MMD", "-MF", str(needs), "-o", str(made)], cwd=ROOT, check=False
        )
        if done.returncode:
            sys.exit(f"{clang} refuses {SOURCE.relative_to(ROOT)}")
        words = needs.read_text().replace("\\\n", " ").partition(":")[2].split()
        found = elf.read_object(made.read_bytes())
    if len(found.programs) != 1:
        sys.exit(f"{len(found.programs)} programs in {SOURCE.relative_to(ROOT)}, not one")
    digest = hashlib.sha256()
    for name in sorted({word for word in words if word.startswith("native/")}):
        digest.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    return found.programs[0], digest.hexdigest()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--clang", action="store_true")
    parser.add_argument("--any-clang", action="store_true", help="write with any version")
    options = parser.parse_args()
    wanted = recorded_clang()
    if options.clang:
        print(wanted or 14)
        return
    clang, version = find_clang(None if options.any_clang else wanted)
    try:
        program, sources = compiled(clang)
    except UsageError as error:
        sys.exit(f"{SOURCE.relative_to(ROOT)}: {error}")
    text = HEADING + image.render(program, clang=version, sources=sources)
    if not options.check:
        TEXT.write_text(text)
        print(f"{TEXT.relative_to(ROOT)}: {program.count} instructions by clang {version}")
    elif not TEXT.exists() or TEXT.read_text() != text:
        sys.exit(f"{TEXT.relative_to(ROOT)} is not what its sources make: run make bpf")


if __name__ == "__main__":
    main()
