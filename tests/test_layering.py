# SPDX-License-Identifier: MIT
"""The house rules a machine can check: who imports whom, how long things are, what stays out."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src/pyvnet"

pytestmark = pytest.mark.plain_build("files are read; a helper is imported in a process of its own")

DEVICE_SIDE = frozenset({"spec", "device"})
RUNTIME = frozenset(
    {"spec", "device", "transport", "datapath", "offload", "netdev", "driver", "capture"}
)
USERS = frozenset({"spec", "driver", "reference", "capture", "runtime"})

# Part of the package → the other parts it may import.  `errors` is open to all.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "spec": frozenset(),
    "_native": frozenset(),
    "netdev": frozenset(),
    "reference": frozenset({"spec"}),
    "driver": frozenset({"spec"}),
    "capture": frozenset({"spec"}),
    "device": frozenset({"spec"}),
    "transport": DEVICE_SIDE,
    "offload": frozenset({"spec", "netdev", "datapath"}),
    "datapath": DEVICE_SIDE | {"_native"},
    "runtime": RUNTIME,
    "testing": USERS | {"netdev"},
    "conformance": USERS | {"testing", "netdev", "transport", "datapath"},
    "daemon": RUNTIME | USERS | {"testing", "conformance", "__init__"},
    "__main__": frozenset({"daemon"}),
    "__init__": RUNTIME | USERS | {"testing"},
}

# Modules a privileged helper uses without our C: of their own package only one another.
WITHOUT_C = frozenset(
    {"image", "bpf", "bpf_call", "btf", "elf", "program", "check", "user_program"}
)

# Of the conformance suite, who may know our own device; and what its cases may know at all.
OWN_DEVICE = frozenset({"runtime", "netdev", "transport", "datapath"})
CASES = frozenset({"conformance", "driver", "spec", "reference", "testing", "errors"})

C_FUNCTION_LINES = 60
C_FILE_LINES = 500
MODULE_LINES = 400
TEST_LINES = 600

# A file that must be longer says why.
EXCEPTION = re.compile(r"budget: \S+")


@cache
def parsed(path: Path) -> ast.Module:
    """Return a file's syntax tree, made once."""
    return ast.parse(path.read_text())


@cache
def tree() -> tuple[Path, ...]:
    """Return the files of the repository: what git tracks or would."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = (ROOT / name for name in names.split("\0") if name)
    return tuple(sorted(path for path in files if path.is_file()))


def files(folder: str, *suffixes: str) -> list[Path]:
    """Return the files below a folder of the repository, at any depth."""
    return [
        path
        for path in tree()
        if path.is_relative_to(ROOT / folder) and (not suffixes or path.suffix in suffixes)
    ]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- imports ------------------------------------------------------------------------


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, part) for each import of ours, also under TYPE_CHECKING and in functions."""
    package = ("pyvnet", *path.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(ast.parse(text)):
        targets: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            targets = [(*base, alias.name) for alias in node.names]
        for target in targets:
            if target[0] == "pyvnet":
                known = target[1] if len(target) > 1 and target[1] in MAY_IMPORT else "__init__"
                yield node.lineno, known  # type: ignore[attr-defined]  # both kinds have one


def forbidden(path: Path, text: str) -> list[str]:
    part = part_of(path)
    allowed = MAY_IMPORT[part] | {part, "errors"}
    return [
        f"{name(path)}:{line} imports {other}"
        for line, other in imported(path, text)
        if other not in allowed
    ]


def modules() -> list[Path]:
    return files("src/pyvnet", ".py")


def benchmark() -> list[Path]:
    return files("bench", ".py")


def suite() -> list[Path]:
    return files("tests", ".py")


def c_files() -> list[Path]:
    return [*files("native", ".c", ".h"), *files("bench", ".c", ".h")]


def test_every_part_has_a_place_in_the_import_rule() -> None:
    assert {part_of(path) for path in modules()} <= set(MAY_IMPORT)


def test_imports_point_one_way() -> None:
    assert [line for path in modules() for line in forbidden(path, path.read_text())] == []


def test_the_conformance_suite_does_not_know_what_it_judges() -> None:
    for path in files("src/pyvnet/conformance", ".py"):
        seen = {part for _, part in imported(path, path.read_text())}
        if path.parent.name == "cases":
            assert seen <= CASES, path.name
        elif path.name != "builtin.py":
            assert not seen & OWN_DEVICE, path.name


def test_what_a_privileged_helper_loads_is_small() -> None:
    """Their imports reach nothing but errors and one another, so no C and no netlink."""
    for module in WITHOUT_C:
        path = SOURCE / "offload" / f"{module}.py"
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pyvnet"):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                reached = {name.split(".")[2] for name in names if "offload" in name}
                assert reached <= WITHOUT_C, f"{module} imports {reached}"
                assert node.module == "pyvnet.errors" or reached, f"{module}: {node.module}"


@pytest.mark.parametrize(
    ("where", "statement"),
    [
        ("device/x.py", "from pyvnet.datapath import engine"),
        ("device/x.py", "from pyvnet import runtime"),
        ("device/x.py", "import pyvnet.netdev.tap"),
        ("device/x.py", "from ..transport import base"),
        ("driver/x.py", "if TYPE_CHECKING:\n    from pyvnet.device import device"),
        ("reference/x.py", "def f():\n    from pyvnet._native import lib"),
        ("transport/x.py", "from pyvnet.datapath.engine import Engine"),
        ("netdev/x.py", "from pyvnet.spec import features"),
        ("runtime.py", "from pyvnet._native import ffi"),
        ("runtime.py", "from pyvnet.daemon import cli"),
        ("testing/x.py", "from pyvnet.device import device"),
        ("capture/x.py", "import pyvnet"),
    ],
)
def test_a_wrong_import_is_seen(where: str, statement: str) -> None:
    assert forbidden(SOURCE / where, statement)


@pytest.mark.parametrize(
    ("where", "statement"),
    [
        ("device/x.py", "from pyvnet.errors import UsageError\nfrom pyvnet import errors"),
        ("device/x.py", "from . import queue\nfrom ..spec import rss"),
        ("datapath/x.py", "from pyvnet._native import ffi, lib"),
        ("daemon/commands/x.py", "import pyvnet\nfrom pyvnet.reference import steer"),
    ],
)
def test_a_right_import_passes(where: str, statement: str) -> None:
    assert forbidden(SOURCE / where, statement) == []


# --- budgets ------------------------------------------------------------------------


def too_long(paths: list[Path], limit: int) -> list[str]:
    lengths = {path: path.read_text() for path in paths}
    return [
        f"{name(path)}: {text.count(chr(10))} lines, the budget is {limit}"
        for path, text in lengths.items()
        if text.count("\n") > limit and not EXCEPTION.search(text)
    ]


def c_functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield (name, lines) of the functions defined in kernel style: braces in column 0."""
    opened: int | None = None
    heading = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line == "{":
            opened = number
        elif line.startswith("}") and opened is not None:
            yield heading, number - opened + 1
            opened = None
        elif opened is None and (match := re.match(r"[A-Za-z_].*?(\w+)\(", line)):
            heading = match[1]


def test_c_functions_fit_their_budget() -> None:
    long = [
        f"{name(path)}: {function} has {lines} lines"
        for path in c_files()
        for function, lines in c_functions(path.read_text())
        if lines > C_FUNCTION_LINES and not EXCEPTION.search(path.read_text())
    ]
    assert long == []


def test_c_functions_are_measured() -> None:
    text = "int f(int a,\n      int b)\n{\n\treturn a;\n}\n\nstatic void g(void)\n{\n}\n"
    assert list(c_functions(text)) == [("f", 3), ("g", 2)]


def test_files_fit_their_budget() -> None:
    assert too_long(c_files(), C_FILE_LINES) == []
    assert too_long([*modules(), *benchmark()], MODULE_LINES) == []
    assert too_long(suite(), TEST_LINES) == []


# --- what stays out -------------------------------------------------------------------

# A user's home or scratch directory, or one only some machine has.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|work|Users|opt|srv|mnt|media)/[\w.-]+")


def test_no_path_of_somebodys_machine() -> None:
    found = [
        f"{name(path)}: {match[0]}"
        for path in tree()
        if path != Path(__file__) and b"\0" not in (raw := path.read_bytes())
        for match in MACHINE_PATH.finditer(raw.decode(errors="replace"))
    ]
    assert found == []


def sleeps(path: Path, names: frozenset[str]) -> list[str]:
    return [
        f"{name(path)}:{node.lineno}"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in names
        and [ast.unparse(argument) for argument in node.args] != ["0"]
    ]


def test_nobody_sleeps() -> None:
    """What waits, waits for something: an event, a counter, a descriptor."""
    blocking = frozenset({"time.sleep", "sleep"})
    found = [line for path in modules() for line in sleeps(path, blocking)]
    found += [line for path in suite() for line in sleeps(path, blocking | {"asyncio.sleep"})]
    assert found == []


def test_nothing_of_ours_is_mocked() -> None:
    """Our classes are small enough to be used, and the far ends have fakes that are product."""
    found = [
        f"{name(path)}:{node.lineno}"
        for path in suite()
        for node in ast.walk(parsed(path))
        if (isinstance(node, ast.ImportFrom) and "mock" in (node.module or ""))
        or (isinstance(node, ast.Import) and any("mock" in alias.name for alias in node.names))
    ]
    assert found == []
