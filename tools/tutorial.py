# SPDX-License-Identifier: MIT
"""Work through a tutorial as its reader does: write its files, type its commands, compare.

    tools/tutorial.py WHEEL DOCUMENT CONSTRAINTS

Fenced blocks of the document count, in their order:

    ```python test_first.py     a file of this name, with what stands in the block
    ```console                  after "$ " a command, below it what it prints

Any other block is refused: what a reader may type is run.  In what a command
prints, a line ``...`` stands for any number of lines, and ``...`` in a line for
any text.  Commands run one after the other in one shell session, in an empty
folder, far from the source tree; ``pip`` takes the package from WHEEL.

Exit status: 0 all is as it says; 1 the first place that is not, with both texts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT: Final = 120
_FENCE: Final = re.compile(r"```(\w*)(?: +(\S+))?$")
# Where the last command left the session: its folder and what it exported.
_SESSION: Final = """\
if [ -e "$SESSION" ]; then . "$SESSION"; fi
{command}
status=$?
{{ export -p; printf 'cd %q\\n' "$PWD"; }} > "$SESSION"
exit $status
"""


class TutorialError(Exception):
    """The document cannot be followed, or does not say what happens."""


@dataclass(frozen=True, slots=True)
class File:
    """A block that is a file."""

    line: int
    name: str
    content: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command and what it prints."""

    line: int
    words: str
    prints: tuple[str, ...]


def steps(text: str) -> Iterator[File | Command]:
    """What there is to do, in order; raises TutorialError for a block of no known kind."""
    lines = enumerate(text.splitlines(), 1)
    for number, line in lines:
        if not line.startswith("```"):
            continue
        fence = _FENCE.match(line)
        block = []
        for _, inner in lines:
            if inner == "```":
                break
            block.append(inner)
        else:
            raise TutorialError(f"line {number}: this block has no end")
        if fence and fence[1] == "console" and not fence[2]:
            yield from _commands(number, block)
        elif fence and fence[2]:
            yield File(number, fence[2], "\n".join(block) + "\n")
        else:
            raise TutorialError(f"line {number}: neither a console nor a file with a name")


def _commands(number: int, block: list[str]) -> Iterator[Command]:
    if not block or not block[0].startswith("$ "):
        raise TutorialError(f"line {number}: a console begins with a command")
    starts = [at for at, line in enumerate(block) if line.startswith("$ ")]
    for at, end in zip(starts, [*starts[1:], len(block)], strict=True):
        yield Command(number + 1 + at, block[at][2:], tuple(block[at + 1 : end]))


def same(wanted: tuple[str, ...], seen: list[str]) -> bool:
    """Whether a command printed what the document says; blanks at line ends do not count."""
    pattern = "".join(
        r"(?:.*\n)*?"
        if line.strip() == "..."
        else ".*?".join(map(re.escape, line.rstrip().split("..."))) + r"\n"
        for line in wanted
    )
    return bool(re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in seen)))


class Reader:
    """Does what the document says, in ``folder``."""

    def __init__(self, folder: Path, wheel: Path, constraints: Path) -> None:
        self._work = folder / "work"
        self._work.mkdir()
        self._wheel = wheel.resolve().as_uri()
        # Little of the caller's: no environment of Python's, but what reaches a package index.
        kept = re.compile(r"HOME$|PIP_\w+$|\w+_proxy$|\w+_CERT_FILE$", re.IGNORECASE)
        self._environment = {name: value for name, value in os.environ.items() if kept.match(name)}
        self._environment |= {
            "PATH": f"{Path(sys.executable).resolve().parent}:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "PIP_CONSTRAINT": str(constraints.resolve()),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_QUIET": "1",  # with -q: no warnings of the place it installs from
            "SESSION": str(folder / "session"),
        }

    def do(self, step: File | Command) -> None:
        """Write a file, or run a command; raises TutorialError when it prints something else."""
        if isinstance(step, File):
            (self._work / step.name).write_text(step.content)
            return
        words = step.words
        if words.startswith("pip install"):
            words = re.sub(r"pyvnet(\[\w+\])?(?=')", rf"pyvnet\1 @ {self._wheel}", words)
        done = subprocess.run(  # noqa: S603 - that is what it is for
            ["/bin/bash", "-c", _SESSION.format(command=words)],
            cwd=self._work,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if not same(step.prints, done.stdout.splitlines()):
            said = "\n".join(step.prints)
            raise TutorialError(
                f"line {step.line}: $ {step.words}\n--- the document says\n{said}\n"
                f"--- it printed (status {done.returncode})\n{done.stdout}"
            )


def main() -> int:
    """Follow the document named on the command line."""
    wheel, document, constraints = map(Path, sys.argv[1:])
    count = 0
    with tempfile.TemporaryDirectory(prefix="pyvnet-tutorial-") as folder:
        reader = Reader(Path(folder), wheel, constraints)
        try:
            for step in steps(document.read_text()):
                reader.do(step)
                count += 1
        except (TutorialError, subprocess.TimeoutExpired) as error:
            print(f"{document}: {error}", file=sys.stderr)
            return 1
    print(f"{document}: {count} steps, all as it says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
