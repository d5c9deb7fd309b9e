# SPDX-License-Identifier: MIT
"""Deliberate faults of our device, and the proof that the suite sees each.

A mutant is one fault, switched on by its name.  Those of the frame path are compiled into the
build with test hooks (`native/src/mutants.h`); those of the device model and of the transport
are a fragment of one function that becomes another.  Each says which requirements it violates
and why; ``seen_by.json`` says which cases fail with it, all of them and no others.

    python -m tests.conformance_suite.mutants NAME…     run the suite with these mutants
    python -m tests.conformance_suite.mutants --record  write seen_by.json anew, to be read
                                                        line by line before it is committed
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from pyvnet.conformance.case import Verdict
from pyvnet.conformance.cases import everything
from tests.conformance_suite import engine, mutants_device, mutants_frames, mutants_transport
from tests.conformance_suite.reach import reach
from tests.conformance_suite.target import suite
from tests.spoilt import spoilt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pyvnet.conformance.run import Result
    from pyvnet.datapath.native import Native
    from tests.conformance_suite.mutant import Mutant
    from tests.conformance_suite.reach import Learnt

SEEN_BY: Final = Path(__file__).with_name("seen_by.json")

# A case that waits in vain waits so long; one nobody expects to fail gets another try, alone.
TIMEOUT: Final = 0.4
PATIENCE: Final = 5.0
PROCESSES: Final = 2

# Those that most cases come by cost as much as all others together: `make soak` runs them.
WIDE: Final = frozenset(
    {
        "config-after-negotiation",
        "config-limits-short",
        "config-mac-missing",
        "config-mtu-changes",
        "config-of-no-link",
        "config-pairs-zero",
        "data-valid-always",
        "descriptors-cleared",
        "guest-offloads-always",
        "no-interrupt-ignored",
        "offer-undefined-bit",
        "offer-without-control-queue",
        "offer-without-version-1",
        "report-without-hash",
        "rings-served-after-reset",
        "runs-before-driver-ok",
        "status-kept-on-reset",
        "tx-header-passed-on",
        "used-flags-beyond-one",
        "vlan-always-filtered",
    }
)


def mutants() -> dict[str, Mutant]:
    """All of them, by name."""
    together: dict[str, Mutant] = {}
    for module in (mutants_frames, mutants_device, mutants_transport):
        assert not together.keys() & module.MUTANTS.keys()
        together |= module.MUTANTS
    return together


@contextmanager
def switched_on(build: Native, name: str) -> Iterator[None]:
    """Inside, the fault is there; only one at a time."""
    faults = mutants()[name].faults
    with ExitStack() as stack:
        for fault in faults:
            stack.enter_context(spoilt(fault))
        engine.switch(build, "" if faults else name)
        try:
            yield
        finally:
            engine.switch(build, "")


class Sight(NamedTuple):
    """What the suite made of one mutant."""

    run: int  # cases that were tried
    failed: dict[str, str]  # case → reason
    broken: dict[str, str]  # cases that broke themselves


class Watch:
    """What is known of the suite without faults."""

    def __init__(self, build: Native, facts: Learnt, reached: Mapping[str, set[str]]) -> None:
        self._build = build
        self._facts = facts
        self._reached = reached

    @classmethod
    async def prepare(cls, build: Native, names: Iterable[str]) -> Self:
        """Find out which cases come by which of these mutants."""
        table = mutants()
        return cls(build, *await reach(build, {name: table[name] for name in names}))

    async def look(self, name: str, expected: Sequence[str] = ()) -> Sight:
        """Run the suite with one mutant: all cases that can see it."""
        near = self._reached[name] | set(expected)  # what a case comes by can depend on timing
        with switched_on(self._build, name):
            seen = await suite(self._build, near, timeout=TIMEOUT)
            results = list(seen.results)
            if seen.facts != self._facts:
                rest = {case.name for case in everything()} - near
                results += (await suite(self._build, rest, timeout=TIMEOUT)).results
            doubtful = {each.case.name for each in results if _bad(each)} - set(expected)
            again: dict[str, Result] = {}
            if doubtful:  # nobody expects these to fail: give them time
                seen = await suite(self._build, doubtful, timeout=PATIENCE)
                again = {each.case.name: each for each in seen.results}
        results = [again.get(each.case.name, each) for each in results]
        return Sight(
            len(results),
            {each.case.name: each.reason for each in results if each.verdict is Verdict.FAILED},
            {each.case.name: each.reason for each in results if _broke(each)},
        )


def _bad(result: Result) -> bool:
    return result.verdict is Verdict.FAILED or _broke(result)


def _broke(result: Result) -> bool:
    return result.verdict is Verdict.INCONCLUSIVE and "the case itself broke" in result.reason


# --- all of them, in processes of their own ---------------------------------------------


def seen_by() -> dict[str, list[str]]:
    """Mutant → cases that fail with it, as committed."""
    listed: dict[str, list[str]] = json.loads(SEEN_BY.read_text())
    return listed


def sights(names: Iterable[str], seconds: float) -> dict[str, Sight]:
    """Run the suite with each of these, in a few processes side by side.

    What is patched is patched there, and a mutant that hangs takes nobody along.
    """
    names = list(names)
    share = [names[start::PROCESSES] for start in range(PROCESSES)]
    processes = [_start(part) for part in share if part]
    seen: dict[str, Sight] = {}
    for process in processes:
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        assert process.returncode == 0, errors
        seen |= {name: Sight(*sight) for name, *sight in map(json.loads, output.splitlines())}
    return seen


def _start(names: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.conformance_suite.mutants", "--json", *names],
        cwd=engine.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def _all(names: Sequence[str], told: Callable[[str, Sight], None]) -> None:
    logging.getLogger("pyvnet").setLevel(logging.CRITICAL)  # what is wrong is known
    watch = await Watch.prepare(engine.hooks(), names)
    listed = seen_by() if SEEN_BY.exists() else {}
    for name in names:
        told(name, await watch.look(name, listed.get(name, ())))


def _record(names: Sequence[str]) -> None:
    seen = sights(names or mutants(), 600)
    listed = (seen_by() if SEEN_BY.exists() else {}) | {
        name: sorted(sight.failed) for name, sight in seen.items()
    }
    kept = {name: listed[name] for name in sorted(mutants()) if name in listed}
    SEEN_BY.write_text(json.dumps(kept, indent=1) + "\n")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _tell(name: str, sight: Sight) -> None:
    _say(json.dumps([name, *sight]))


def _show(name: str, sight: Sight) -> None:
    _say(f"{name}: of {sight.run} that come by, {len(sight.failed)} fail")
    for case, reason in sight.failed.items():
        _say(f"    {case}: {reason}")
    for case, reason in sight.broken.items():
        _say(f"    BROKE {case}: {reason}")
    if not sight.failed:
        mutant = mutants()[name]
        _say(f"    NOBODY SEES IT: {' '.join(mutant.ids)}: {mutant.why}")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    if arguments.record:
        _record(arguments.names)
    elif arguments.json:
        asyncio.run(_all(arguments.names, _tell))
    else:
        asyncio.run(_all(arguments.names or list(mutants()), _show))


if __name__ == "__main__":
    main()
