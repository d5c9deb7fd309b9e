# SPDX-License-Identifier: MIT
"""The device that is broken on purpose, and what of the suite it is seen with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet.conformance.builtin import Builtin
from pyvnet.conformance.cases import everything
from pyvnet.conformance.run import Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from pyvnet.conformance.run import Result
    from pyvnet.conformance.trial import Facts
    from pyvnet.datapath.native import Native

# Every device is like every other.
_MAC: Final = bytes.fromhex("020000005eed")


class Outcome(NamedTuple):
    """What the runner learnt before the first case, of either kind; and the results."""

    facts: tuple[Facts | None, ...]
    results: list[Result]


async def suite(
    build: Native,
    names: Container[str],
    *,
    timeout: float,  # noqa: ASYNC109 (of each case)
    concurrency: int | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> Outcome:
    """Run cases of these names: those about vhost-user over it, the others by calls."""
    facts, results = [], []
    for protocol in (False, True):
        runner = Runner(
            Builtin(native=build, direct=not protocol, mac=_MAC),
            timeout=timeout,
            concurrency=concurrency,
            hostile=True,
            control_queue="yes",
            on_result=on_result,
        )
        chosen = [each for each in everything() if each.protocol is protocol and each.name in names]
        report = await runner.run(chosen)
        facts.append(report.facts)
        results += report.results
    return Outcome(tuple(facts), results)
