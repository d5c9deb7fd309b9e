# SPDX-License-Identifier: MIT
"""The program that works through the tutorial (`make tutorial`) notices what a reader would."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tools import tutorial
from tools.tutorial import Command, File, TutorialError, same, steps

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = """
Text, and `code` in it.

```python test_x.py
a = 1

b = 2
```

```console
$ first --option
it says
more
$ second
```
"""


def test_files_and_commands_in_their_order() -> None:
    assert list(steps(PAGE)) == [
        File(4, "test_x.py", "a = 1\n\nb = 2\n"),
        Command(11, "first --option", ("it says", "more")),
        Command(14, "second", ()),
    ]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("```python\nx\n```\n", "line 1: neither a console nor a file with a name"),
        ("x\n```\nx\n```\n", "line 2: neither a console nor a file"),
        ("```console\nsaid\n```\n", "line 1: a console begins with a command"),
        ("```python test_x.py\nx\n", "line 1: this block has no end"),
    ],
)
def test_blocks_that_would_not_be_run_are_refused(page: str, message: str) -> None:
    with pytest.raises(TutorialError, match=message):
        list(steps(page))


@pytest.mark.parametrize(
    ("wanted", "seen", "verdict"),
    [
        (["a", "b"], ["a", "b  "], True),
        (["a"], ["a", "b"], False),
        (["a", "b"], ["a"], False),
        (["a", "...", "d"], ["a", "b", "c", "d"], True),
        (["a", "...", "d"], ["a", "d"], True),
        (["a", "...", "d"], ["a", "b", "c"], False),
        (["2 passed in ...s"], ["2 passed in 0.31s"], True),
        (["2 passed in ...s"], ["1 passed in 0.31s"], False),
        (["(.*)"], ["text"], False),
        ([], [], True),
        ([], ["a warning"], False),
    ],
)
def test_what_is_printed_is_compared(wanted: list[str], seen: list[str], *, verdict: bool) -> None:
    assert same(tuple(wanted), seen) is verdict


@pytest.fixture
def follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str]]:
    """Follow a page; exit status and what was said."""

    def follow(page: str) -> tuple[int, str]:
        document = tmp_path / "page.md"
        document.write_text(page)
        arguments = ["tutorial.py", "x.whl", str(document), str(ROOT / "constraints.txt")]
        monkeypatch.setattr(sys, "argv", arguments)
        status = tutorial.main()
        said = capsys.readouterr()
        return status, said.out + said.err

    return follow


def test_a_session_keeps_folder_and_environment(follow: Callable[[str], tuple[int, str]]) -> None:
    page = """
```sh some.sh
echo "$NAME here"
```

```console
$ export NAME=me; mkdir sub; mv some.sh sub
$ cd sub
$ sh some.sh; exit 3
me here
$ echo "${PWD##*/} $PYTHONPATH"
sub
```
"""
    status, said = follow(page)
    assert (status, said.partition(": ")[2]) == (0, "5 steps, all as it says\n")


def test_the_first_thing_that_is_not_so_is_shown(follow: Callable[[str], tuple[int, str]]) -> None:
    status, said = follow("```console\n$ echo one\none\n$ echo two\n2\n$ echo three\n3\n```\n")
    assert status == 1
    assert "line 4: $ echo two\n--- the document says\n2\n--- it printed (status 0)\ntwo\n" in said


def test_every_block_of_the_tutorial_is_run() -> None:
    kinds = [type(step) for step in steps(Path(ROOT, "docs/testing-tutorial.md").read_text())]
    assert kinds.count(File) >= 5
    assert kinds.count(Command) >= 5
