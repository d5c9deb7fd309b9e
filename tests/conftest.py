# SPDX-License-Identifier: MIT
"""What every test gets: one skip door, the leak check, both event loops, cited requirements.

Skips.  A test says what it needs with a marker (`needs_root`, `needs_netns`,
`needs_tap`, `needs_program`); only this file turns a need into a skip.  Where CI=true is set
any skip, also one made by hand, fails.  What this CPU cannot run
(`needs_cpu`) is left out at collection and listed at the end.

Leaks.  After every test the file descriptors, threads and guest memory
mappings of the process are those from before it (`may_leak(reason)` opts out).

Loops.  Every asyncio test runs on the stock loop and on uvloop (`one_loop(reason)`
keeps the stock one only; `--loops` one of them for each test, or the stock one for all).

Ids.  `requirement(*ids)` cites docs/requirements.md, docs/decisions.md and
docs/peer-faults.md; an unknown id ends the collection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import re
import shutil
import threading
import time
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from tools import spec_coverage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

ROOT = Path(__file__).parent.parent
IN_CI = os.environ.get("CI") == "true"
_CLONE_NEWNET = 0x40000000  # os.unshare() comes with Python 3.12
_FAILED = pytest.StashKey[bool]()
_FOREIGN = pytest.StashKey[list[str]]()

# numpy's BLAS starts threads when a plot is first drawn, which would read as a leak.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# How long an example takes is the machine's affair; the rest is as hypothesis has it, in CI or not.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


# --- the skip door ----------------------------------------------------------------


@cache
def _no_root() -> str:
    return "" if os.geteuid() == 0 else "not root; run make test as root"


@cache
def _no_netns() -> str:
    """Return why no network namespace can be made, "" if one can."""
    answers: list[int] = []

    def try_one() -> None:  # in a thread, which takes its new namespace with it
        answers.append(ctypes.CDLL(None).unshare(_CLONE_NEWNET))

    thread = threading.Thread(target=try_one)
    thread.start()
    thread.join()
    return "no network namespaces; run as root or with CAP_SYS_ADMIN" if answers[0] else ""


@cache
def _no_tap() -> str:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"/dev/net/tun: {error.strerror}; modprobe tun, and run as root"
    return ""


@cache
def _no_program(*names: str) -> str:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [name for name in names if shutil.which(name, path=path) is None]
    return f"no {', '.join(missing)}; make test-needs as root installs them" if missing else ""


NEEDS: Mapping[str, Callable[..., str]] = {
    "needs_root": _no_root,
    "needs_netns": _no_netns,
    "needs_tap": _no_tap,
    "needs_program": _no_program,
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot give, saying what would help."""
    for marker in item.iter_markers():
        reason = NEEDS[marker.name](*marker.args) if marker.name in NEEDS else ""
        if reason:
            pytest.skip(reason)


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if IN_CI and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped under CI=true, where everything must run: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn any skip into a failure under CI; remember failures for the leak check."""
    report = yield
    _refuse_skip(report)
    if call.when != "teardown" and report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure under CI."""
    report = yield
    _refuse_skip(report)
    return report


# --- collection ---------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """--requirements-to is how tools/spec_coverage.py learns who cites what.

    --once is for sanitizers: tests/differential/test_coverage_matrix.py says what it spares, and
    `plain_build` marks tests that run nothing of the build it looks at.

    --loops says on which event loops the asyncio tests run.  "each" is one a test, half of them
    on uvloop: for sanitizers, which look at our C, and our C knows no loop.  "stock" is for
    asyncio's debug mode: what uvloop checks in it (calls from other threads, sockets that
    block, coroutines nobody awaited), the stock loop checks too, and more.

    Threads and descriptors leave /proc a moment after they were joined, on a busy
    machine a long one: --settle says how long the leak check waits for them.
    """
    parser.addoption("--requirements-to", metavar="FILE", help="write {test: [ids]} as JSON")
    parser.addoption("--settle", metavar="SECONDS", type=float, default=10.0)
    parser.addoption("--once", action="store_true", help="repeat no plan of the coverage matrix")
    parser.addoption("--loops", choices=("both", "each", "stock"), default="both")


@cache
def _cpu_flags() -> frozenset[str]:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split() if found else ())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Check cited ids, write them down if asked, leave out what this CPU cannot run."""
    _check_requirements(config, items)
    runnable: list[pytest.Item] = []
    foreign: list[pytest.Item] = []
    if config.getoption("--once"):
        again = [item for item in items if item.get_closest_marker("plain_build")]
        config.hook.pytest_deselected(items=again)
        items[:] = [item for item in items if not item.get_closest_marker("plain_build")]
    for item in items:
        wanted = {flag for marker in item.iter_markers("needs_cpu") for flag in marker.args}
        (runnable if wanted <= _cpu_flags() else foreign).append(item)
    if foreign:
        config.hook.pytest_deselected(items=foreign)
        config.stash[_FOREIGN] = [item.nodeid for item in foreign]
    # Guests take longest: a process that began with one must not be the last to end.
    items[:] = sorted(runnable, key=lambda item: "/system/" not in item.nodeid)


def _check_requirements(config: pytest.Config, items: list[pytest.Item]) -> None:
    known = spec_coverage.known_rows()
    cited: dict[str, list[str]] = {}
    for item in items:
        ids = cited.setdefault(item.nodeid.partition("[")[0], [])
        ids += [id_ for marker in item.iter_markers("requirement") for id_ in marker.args]
    unknown = {
        f"{test} cites {id_}" for test, ids in cited.items() for id_ in ids if id_ not in known
    }
    if unknown:
        raise pytest.UsageError("no such requirement: " + "; ".join(sorted(unknown)))
    if target := config.getoption("--requirements-to"):
        Path(target).write_text(json.dumps({test: sorted(set(ids)) for test, ids in cited.items()}))


def pytest_collection_finish() -> None:
    """Keep the collector from walking thousands of tests and their modules again and again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that prints the summary, where the tests ran in another."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["foreign"] = session.config.stash.get(_FOREIGN, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear it; every process collected the same tests."""
    if foreign := getattr(node, "workeroutput", {}).get("foreign"):
        node.config.stash[_FOREIGN] = foreign


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """List what this CPU could not run."""
    for nodeid in config.stash.get(_FOREIGN, []):
        terminalreporter.write_line(f"not for this CPU: {nodeid}")


# --- event loops --------------------------------------------------------------------


def pytest_sessionstart() -> None:
    """Make libuv's process-wide signal pipe now, so that no test seems to leak it."""
    uvloop.new_event_loop().close()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every asyncio test on both loops, unless its `one_loop` or --loops says otherwise."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.SelectorEventLoop,
        "uvloop": uvloop.new_event_loop,
    }
    which = config.getoption("--loops")
    if item.get_closest_marker("one_loop") is not None or which == "stock":
        del loops["uvloop"]
    elif which == "each":  # by the name, so that each process collects the same tests
        del loops[sorted(loops)[zlib.crc32(item.nodeid.encode()) % 2]]
    return loops


# --- leaks --------------------------------------------------------------------------


def _held() -> frozenset[str]:
    """Name what the process holds: descriptors, threads, guest memory mappings."""
    held = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
            held.add(f"fd {link.name} → {link.readlink()}")
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            held.add(f"thread {task.name} {(task / 'comm').read_text().strip()}")
    maps = Path("/proc/self/maps").read_bytes()
    if b"memfd:pyvnet" in maps:  # hundreds of lines, seldom one of these
        ours = (line for line in maps.splitlines() if b"memfd:pyvnet" in line)
        held.update(f"mapping {line.split()[0].decode()}" for line in ours)
    return frozenset(held)


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves descriptors, threads or guest memory mappings behind."""
    before = _held()
    yield
    # A failed test's traceback keeps its objects alive.
    if request.node.get_closest_marker("may_leak") or request.node.stash.get(_FAILED, False):
        return
    deadline = time.monotonic() + request.config.getoption("--settle")
    left = _held() - before
    if left:
        gc.collect()
    while left and time.monotonic() < deadline:
        threading.Event().wait(0.005)
        left = _held() - before
    assert not left, f"left behind: {sorted(left)}"


# --- other builds of the extension ----------------------------------------------------


@pytest.fixture(scope="session")
def native_hooks() -> tuple[Any, Any]:
    """(ffi, lib) of the build with VNET_TEST_HOOKS: make native-hooks.

    PYVNET_NATIVE_HOOKS names another one, as the sanitizer targets do.
    """
    path = Path(os.environ.get("PYVNET_NATIVE_HOOKS", ROOT / "build/hooks/_ffi.abi3.so"))
    if not path.exists():
        pytest.fail(f"{path.name} with test hooks is not built: make native-hooks")
    # Late, so that tests without C run while the extension does not build.
    from pyvnet._native import load_native

    return load_native(path)
