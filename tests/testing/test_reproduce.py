# SPDX-License-Identifier: MIT
"""A random test that fails prints one line, and that line, run as printed, fails the same way."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Final

import hypothesis.stateful  # noqa: F401 - or each inner run loads it anew
import pytest

pytest_plugins = ("pytester",)

PYTEST: Final = (str(Path(sys.executable).with_name("pytest")), "-p", "no:cacheprovider")
HEADING: Final = "to fail once more"

RANDOM: Final = """
    def test_numbers(vnet_random):
        assert vnet_random.randbytes(20) == 0
"""
EXAMPLES: Final = """
    import pyvnet
    from hypothesis import given, settings, strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, rule

    @settings(database=None)
    @given(st.binary(min_size=3), st.integers())
    def test_example(data, number):
        assert number % 1000 < 77, (data, number)

    class Machine(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.sum = 0

        @rule(more=st.integers(0, 9))
        def add(self, more):
            self.sum += more
            assert self.sum < 15, self.sum

    TestMachine = Machine.TestCase
    TestMachine.settings = settings(database=None)
"""


@pytest.fixture
def inside(pytester: pytest.Pytester) -> pytest.Pytester:
    """Runs in this process, by an ordinary suite's settings."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\nmarkers = slow: x")
    return pytester


def suite(pytester: pytest.Pytester, *bodies: str) -> Path:
    file = pytester.path / "test_it.py"
    file.write_text("".join(map(dedent, bodies)))
    return file


def fails(pytester: pytest.Pytester, *options: str) -> str:
    """What a failing run said."""
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)
    assert done.ret == 1
    return done.stdout.str()


def plays(pytester: pytest.Pytester, line: str) -> str:
    """What a line said, run without the detour by a shell."""
    words = shlex.split(line)
    start = next(i for i, word in enumerate(words) if word.rpartition("/")[2] == "pytest")
    return fails(pytester, *words[start + 1 :])


def lines_of(said: str) -> list[str]:
    """The lines below our heading."""
    below = said[said.index(HEADING) :].splitlines()[1:]
    return below[: next(i for i, line in enumerate(below) if line.startswith("="))]


def reasons(said: str) -> list[str]:
    """How each test failed, in the words of pytest's summary."""
    return sorted(re.findall(r"^(?:FAILED|ERROR) \S*?(\w+::.* - .*)$", said, re.MULTILINE))


def fails_again(pytester: pytest.Pytester, *options: str) -> list[str]:
    """Run what lies there, then each line it prints; returns those lines."""
    first = fails(pytester, *options)
    lines = lines_of(first)
    again = [reasons(plays(pytester, line)) for line in lines]
    assert all(len(one) == 1 for one in again), again
    assert sorted(reason for one in again for reason in one) == reasons(first)
    return lines


def test_a_line_run_by_a_shell_as_printed_fails_in_the_same_way(tmp_path: Path) -> None:
    """Awkward names, a subfolder, options that matter and those that do not, another process."""
    folder = tmp_path / "tests"
    folder.mkdir()
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = -m 'not slow'\nmarkers = slow: x\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )
    body = """
        import pytest

        @pytest.mark.slow
        @pytest.mark.parametrize("what", ["it's $HOME; x"])
        def test_numbers(vnet_random, what):
            assert vnet_random.random() == what
    """
    (folder / "test_it.py").write_text(dedent(body))

    def run(command: list[str] | str) -> str:
        done = subprocess.run(
            command,
            shell=isinstance(command, str),
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stdout

    # Without hypothesis, which takes seconds to load where bytecode is not kept.
    plain = [*PYTEST, "-p", "no:hypothesispytest"]
    first = run([*plain, "-m", "slow", "-n", "1", "--maxfail", "2", "-k", "numbers", "-q"])
    (line,) = lines_of(first)
    assert "-m slow" in line
    assert not re.search(r" (-n|-k|-q|--maxfail) ", line)
    assert reasons(run(line)) == reasons(first)


@pytest.mark.parametrize("options", [(), ("-q", "--tb=no"), ("-vx",)])
def test_numbers_come_back(inside: pytest.Pytester, options: tuple[str, ...]) -> None:
    suite(inside, RANDOM)
    (line,) = fails_again(inside, *options)
    assert "test_it.py::test_numbers --vnet-seed=" in line


def test_two_runs_and_two_tests_draw_different_numbers(inside: pytest.Pytester) -> None:
    suite(inside, RANDOM, RANDOM.replace("numbers", "others"))
    drawn = [re.findall(r"assert (b['\"].*) == 0", fails(inside)) for _ in range(2)]
    assert len({*drawn[0], *drawn[1]}) == 4


def test_examples_come_back(inside: pytest.Pytester) -> None:
    """By the example itself: what hypothesis draws depends on the modules that are loaded."""
    suite(inside, EXAMPLES)
    lines = fails_again(inside)
    assert len(lines) == 2
    assert all("--vnet-example=" in line for line in lines)


def test_a_hypothesis_test_may_draw_from_both(inside: pytest.Pytester) -> None:
    body = """
        from hypothesis import HealthCheck, given, settings, strategies as st

        @settings(database=None, suppress_health_check=list(HealthCheck))
        @given(st.integers())
        def test_both(vnet_random, number):
            assert number < 1000, (number, vnet_random.random)
    """
    suite(inside, body)
    (line,) = lines_of(fails(inside))
    assert "--vnet-seed=" in line
    assert "--vnet-example=" in line
    assert "number=1000" in plays(inside, line)


def test_a_failure_in_a_fixture_comes_back(inside: pytest.Pytester) -> None:
    body = """
        import pytest

        @pytest.fixture
        def number(vnet_random):
            assert vnet_random.random() == 0

        def test_it(number): ...
    """
    suite(inside, body)
    assert len(fails_again(inside)) == 1


def test_numbers_of_a_fixture_wider_than_a_test_come_back(inside: pytest.Pytester) -> None:
    body = """
        import random
        import pytest

        @pytest.fixture(scope="module")
        def number(vnet_seed):
            return random.Random(vnet_seed).random()

        def test_it(number):
            assert number == 0
    """
    suite(inside, body)
    (line,) = fails_again(inside)
    assert "--vnet-seed=" in line


def test_suites_that_do_not_use_us_hear_nothing(inside: pytest.Pytester) -> None:
    body = """
        from hypothesis import given, settings, strategies as st

        def test_plain():
            assert 1 == 2

        @settings(database=None, print_blob=False)  # hypothesis tells it by itself in CI
        @given(st.integers())
        def test_example(number):
            assert number < 1000
    """
    suite(inside, body)
    said = fails(inside)
    assert HEADING not in said
    assert "reproduce_failure" not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--vnet-example=6:AA",), "is played by one hypothesis test, not by 2: name it"),
        (("-k", "nothing", "--vnet-example=6:AA"), "not by 0: name it"),
        (("-k", "example", "--vnet-example=AA"), "is VERSION:EXAMPLE, as a failure prints it"),
    ],
)
def test_an_example_of_nothing(
    inside: pytest.Pytester, options: tuple[str, ...], message: str
) -> None:
    suite(inside, EXAMPLES, "def test_nothing(): ...\n")
    done = inside.runpytest_inprocess(*options)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"*{message}*"])


def test_an_example_that_is_mended_says_so(inside: pytest.Pytester) -> None:
    suite(inside, EXAMPLES)
    line = next(line for line in lines_of(fails(inside)) if "test_example" in line)
    suite(inside, EXAMPLES.replace("< 77", "< 1000"))
    assert "DidNotReproduce" in plays(inside, line)
