# SPDX-License-Identifier: MIT
"""The pytest plugin as its users meet it: a suite of theirs, run by pytest."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

# Loaded before the first inner run, which would otherwise take its modules away again.

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ("pytester",)

HEAD = """
    import asyncio
    import pytest
    import pyvnet
    from pyvnet import Feature, HashReport, HashType
    from pyvnet.spec.net_hdr import NetHdr
    from pyvnet.testing.frames import Ipv4, Ipv6, build, tcp, udp

    FRAME = build(Ipv4("192.0.2.1", "192.0.2.2"), tcp(1024, 80))
    OTHER = build(Ipv6(), udp(1025, 53))
"""
Run = "Callable[..., pytest.RunResult]"


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Run test functions under an ordinary suite's settings: no conftest, no ini file."""

    def run(body: str, *options: str, mode: str = "auto") -> pytest.RunResult:
        import textwrap

        pytester.makepyfile(textwrap.dedent(HEAD) + textwrap.dedent(body))
        settings = (f"--asyncio-mode={mode}", "-o", "asyncio_default_fixture_loop_scope=function")
        return pytester.runpytest_inprocess(*settings, "-p", "no:cacheprovider", *options)

    return run


def test_loading_the_plugin_loads_nothing_else() -> None:
    code = "import sys, pytest; import pyvnet.testing.plugin; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(out.stdout.split())
    assert {name for name in loaded if name.startswith("pyvnet")} == {
        "pyvnet",
        "pyvnet.testing",
        "pyvnet.testing.plugin",
    }
    assert not loaded & {"scapy", "cffi", "uvloop", "pyroute2", "asyncio", "_cffi_backend"}


BOTH_WAYS = """
    async def test_both_ways(vnet):
        await vnet.steer()
        vnet.inject(FRAME, OTHER)
        await vnet.expect(OTHER, report=HashReport.UDPV6)
        await vnet.expect(FRAME, **vnet.predict(FRAME))
        await vnet.expect_nothing()
        await vnet.send(OTHER, queue=1)
        await vnet.expect_sent(OTHER, queue=1)
        await vnet.expect_nothing_sent()
"""


def test_a_scenario_without_any_settings(run: Callable[..., pytest.RunResult]) -> None:
    run(BOTH_WAYS).assert_outcomes(passed=1)


def test_a_scenario_in_strict_mode(run: Callable[..., pytest.RunResult]) -> None:
    marked = BOTH_WAYS.replace("    async def", "    @pytest.mark.asyncio\n    async def", 1)
    run(marked, mode="strict").assert_outcomes(passed=1)


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_tap
def test_the_marker_puts_a_tap_in_the_place_of_the_pair(
    run: Callable[..., pytest.RunResult],
) -> None:
    body = """
    @pytest.mark.vnet_tap
    async def test_both_ways(vnet):
        assert vnet.device.netdev.kind == "tap"
        await vnet.steer()
        vnet.inject(FRAME, OTHER)
        await vnet.expect(OTHER, report=HashReport.UDPV6)
        await vnet.expect(FRAME, **vnet.predict(FRAME))
        await vnet.send(OTHER, queue=1)
        await vnet.expect_sent(OTHER)
    """
    run(body).assert_outcomes(passed=1)


def test_plain_calls(run: Callable[..., pytest.RunResult]) -> None:
    body = """
    def test_plain(vnet_plain):
        vnet_plain.steer(table=(0, 1))
        vnet_plain.inject(FRAME)
        vnet_plain.expect(FRAME, **vnet_plain.predict(FRAME))
        vnet_plain.expect_nothing()
        vnet_plain.send(FRAME)
        vnet_plain.expect_sent(FRAME, queue=0)
        vnet_plain.expect_nothing_sent()
    """
    run(body).assert_outcomes(passed=1)


def test_a_verb_that_is_not_awaited_is_an_error(run: Callable[..., pytest.RunResult]) -> None:
    result = run("async def test_forgets(vnet):\n    vnet.expect(FRAME)\n")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*not awaited, so not done: expect; write `await vnet.expect*"])
