# SPDX-License-Identifier: MIT
"""The promises of tests/conftest.py, shown by suites that break them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.plain_build("no C is loaded")


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> _Run:
    return _Run(pytester, monkeypatch)


class _Run:
    """Runs test files under our conftest.py and settings, in a process of their own."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pytester = pytester
        self._monkeypatch = monkeypatch
        pytester.makeconftest((ROOT / "tests/conftest.py").read_text())

    def __call__(self, *options: str, ci: bool, **files: str) -> pytest.RunResult:
        self._monkeypatch.setenv("CI", str(ci).lower())
        for name in ("LD_PRELOAD", "PYVNET_NATIVE", "PYTHONMALLOC"):  # a sanitizer's: no C here
            self._monkeypatch.delenv(name, raising=False)
        self._pytester.makepyfile(**files)
        settings = ("-c", str(ROOT / "pyproject.toml"), f"--rootdir={self._pytester.path}")
        return self._pytester.runpytest_subprocess(
            *settings,
            "-o",
            f"pythonpath={ROOT}",
            "-p",
            "no:cacheprovider",
            *options,
            self._pytester.path,
        )


SKIPS = """
    import pytest

    def test_by_hand():
        pytest.skip("no mood")

    @pytest.mark.needs_program("sh", "no-such-program")
    def test_with_a_program():
        pass

    @pytest.mark.needs_program("sh")
    def test_with_a_shell():
        pass

    @pytest.mark.xfail(reason="known")
    def test_expected_failure():
        assert False

    @pytest.mark.parametrize("kernel", [
        "portable",
        pytest.param("vector", marks=pytest.mark.needs_cpu("no-such-flag")),
    ])
    def test_kernel(kernel):
        pass
"""
MODULE_SKIP = """
    import pytest
    pytest.skip("not this one", allow_module_level=True)
"""
NOT_FOR_THIS_CPU = "not for this CPU: *test_kernel?vector?"


def test_skips_are_skips_at_home(run: _Run) -> None:
    result = run(ci=False, test_skips=SKIPS, test_module=MODULE_SKIP)
    result.assert_outcomes(skipped=3, xfailed=1, passed=2, deselected=1)
    result.stdout.fnmatch_lines([NOT_FOR_THIS_CPU, "*no no-such-program; make test-needs*"])


def test_skips_fail_in_ci(run: _Run) -> None:
    result = run(ci=True, test_skips=SKIPS)
    result.assert_outcomes(passed=2, failed=1, errors=1, xfailed=1, deselected=1)
    result.stdout.fnmatch_lines(["*skipped under CI=true*no mood*", NOT_FOR_THIS_CPU])
    result.stdout.fnmatch_lines(["*skipped under CI=true*no no-such-program; make test-needs*"])


def test_skipped_modules_fail_in_ci(run: _Run) -> None:
    result = run(ci=True, test_module=MODULE_SKIP)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*skipped under CI=true*not this one*"])


LEAKS = """
    import mmap, os, pytest, threading

    keep = []

    def test_fd():
        keep.append(os.pipe())

    def test_thread():
        threading.Thread(target=threading.Event().wait, daemon=True).start()

    def test_mapping():
        fd = os.memfd_create("pyvnet-x")
        os.truncate(fd, 4096)
        keep.append(mmap.mmap(fd, 4096))
        os.close(fd)

    @pytest.mark.may_leak("to show it")
    def test_allowed():
        os.pipe()
"""
LOOPS = """
    import asyncio, pytest

    async def test_loop():
        print("on", type(asyncio.get_running_loop()).__module__)

    @pytest.mark.one_loop("to show it")
    async def test_one():
        assert type(asyncio.get_running_loop()).__module__.startswith("asyncio.")
"""


def test_leaks_are_named(run: _Run) -> None:
    result = run("--settle=0.1", ci=False, test_leaks=LEAKS)
    result.assert_outcomes(passed=4, errors=3)
    for named in ("fd * → pipe:*", "thread *", "mapping *"):
        result.stdout.fnmatch_lines([f"E *left behind: *{named}*"])


def test_asyncio_tests_run_on_both_loops(run: _Run) -> None:
    result = run(ci=True, test_loops=LOOPS)
    result.assert_outcomes(passed=3)


def _loops_of_eight(run: _Run, which: str) -> list[str]:
    body = "import asyncio\n" + "\n".join(
        f"async def test_{i}():\n    print('on', type(asyncio.get_running_loop()).__module__)"
        for i in range(8)
    )
    result = run("-s", "--loops", which, ci=True, test_eight=body)
    result.assert_outcomes(passed=8)
    return re.findall(r"\bon (asyncio|uvloop)", result.stdout.str())


def test_debug_mode_is_on_the_stock_loop(run: _Run) -> None:
    assert _loops_of_eight(run, "stock") == 8 * ["asyncio"]


def test_each_test_on_one_loop_or_the_other(run: _Run) -> None:
    loops = _loops_of_eight(run, "each")
    assert len(loops) == 8
    assert set(loops) == {"asyncio", "uvloop"}


def test_what_runs_the_plain_build_is_run_over_no_other(run: _Run) -> None:
    plain = """
        import pytest

        @pytest.mark.plain_build("why")
        def test_plain():
            pass

        def test_other():
            pass
    """
    run(ci=True, test_plain=plain).assert_outcomes(passed=2)
    run("--once", ci=True, test_plain=plain).assert_outcomes(passed=1, deselected=1)


def test_unknown_requirements_end_the_collection(run: _Run) -> None:
    text = """
        import pytest

        @pytest.mark.requirement("U-01", "NET-RSS-99")
        def test_cites():
            pass
    """
    result = run(ci=False, test_cites=text)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*no such requirement: *test_cites cites NET-RSS-99*"])
