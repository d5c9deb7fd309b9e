# SPDX-License-Identifier: MIT
"""What a test without a guest costs: a program that prints one JSON object.

    guest_free.py fixture PAIRS     a test of pytest that uses the fixture `vnet`: ms
    guest_free.py scenario PAIRS    `pyvnet.testing.scenario`, entered and left: ms
    guest_free.py WAY BURST         frames from the wire to the driver (in) or back (out): seconds

Times of set-ups are the median of many in one process; frames are `FRAMES`, of 64 flows,
over four pairs with RSS and hash reports.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from pyvnet.testing import Vnet, scenario
from pyvnet.testing.frames import Ipv4, build, udp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

FRAMES: Final = 10_000
TIMES: Final = 60
FLOWS: Final = [bytes(build(Ipv4("192.0.2.1", "192.0.2.2"), udp(1024 + n, 53))) for n in range(64)]
_TESTS: Final = """\
import pytest

@pytest.fixture
def vnet_queues():
    return {pairs}

@pytest.mark.asyncio
@pytest.mark.parametrize("time", range({times}))
async def test_nothing(vnet, time):
    pass
"""


class _Durations:
    """A plugin of pytest: seconds of each test, with its set-up and its end."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Add a phase of a test."""
        if not report.passed:
            raise RuntimeError(report.longreprtext)
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


def fixture(pairs: int) -> dict[str, float]:
    """As a user's suite has it."""
    import pytest

    durations = _Durations()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_it.py").write_text(_TESTS.format(pairs=pairs, times=TIMES))
        options = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
        scope = "asyncio_default_fixture_loop_scope=function"
        with redirect_stdout(sys.stderr):
            pytest.main([*options, "-o", scope, folder], plugins=[durations])
    assert len(durations.seconds) == TIMES  # noqa: S101 - or there is nothing to tell
    return {"ms": median(durations.seconds.values()) * 1e3}


async def _entered(pairs: int) -> float:
    began = time.perf_counter()
    async with scenario(queues=pairs):
        pass
    return time.perf_counter() - began


def bare(pairs: int) -> dict[str, float]:
    """Without pytest."""

    async def often() -> list[float]:
        return [await _entered(pairs) for _ in range(TIMES)]

    return {"ms": median(asyncio.run(often())) * 1e3}


async def _come_in(vnet: Vnet, frames: list[bytes]) -> None:
    vnet.inject(*frames)
    for frame in frames:
        await vnet.expect(frame)


async def _go_out(vnet: Vnet, frames: list[bytes]) -> None:
    await vnet.send(*frames)
    for frame in frames:
        await vnet.expect_sent(frame)


async def _pass(
    move: Callable[[Vnet, list[bytes]], Awaitable[None]], burst: int
) -> dict[str, float]:
    async with scenario(queues=4) as vnet:
        await vnet.steer()
        began = time.perf_counter()
        for first in range(0, FRAMES, burst):
            count = min(burst, FRAMES - first)
            await move(vnet, [FLOWS[(first + n) % len(FLOWS)] for n in range(count)])
        return {"seconds": time.perf_counter() - began}


def frames(way: str, burst: int) -> dict[str, float]:
    """10 000 of them, ``burst`` at a time."""
    return asyncio.run(_pass({"in": _come_in, "out": _go_out}[way], burst))


def main() -> None:
    """Measure what the command line asks for."""
    what, number = sys.argv[1], int(sys.argv[2])
    if what == "fixture":
        found = fixture(number)
    elif what == "scenario":
        found = bare(number)
    else:
        found = frames(what, number)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
