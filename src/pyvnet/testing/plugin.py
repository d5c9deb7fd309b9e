# SPDX-License-Identifier: MIT
"""The pytest plugin: options, the marker, and the way to the fixtures.

pytest imports this for every suite of an environment that has pyvnet in it, so
it imports nothing but pytest, and what it does for tests that use no fixture of
ours is look into an empty stash, and when one fails, whether it was random.
"""

from __future__ import annotations

import os
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from pyvnet.testing.rig import DeviceFactory
    from pyvnet.testing.script import Vnet

SCRIPTS = pytest.StashKey[list["Vnet"]]()
"""In the stash of an item: the scripts of its fixtures."""
FACTORY: pytest.StashKey[DeviceFactory] = pytest.StashKey()
"""And what opened its devices."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """What a user can say on the command line, or in ``addopts``."""
    group = parser.getgroup("pyvnet", "devices without a guest (pyvnet)")
    group.addoption(
        "--vnet-keep",
        choices=("always", "failed", "never"),
        default="failed",
        help="when to keep frames (pcapng) and counters of a test in its tmp_path",
    )
    group.addoption(
        "--vnet-missing",
        choices=("skip", "fail"),
        default="skip",
        help="what tests do that want a tap where none can be made; CI wants fail",
    )
    group.addoption(
        "--vnet-seed",
        metavar="SEED",
        help="what vnet_random draws from, as a failure prints it; chosen anew for each run",
    )
    group.addoption(
        "--vnet-example",
        metavar="EXAMPLE",
        help="play this one example of one hypothesis test, as a failure prints it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker and the fixtures; those that are coroutines need pytest-asyncio."""
    config.addinivalue_line(
        "markers",
        "vnet_tap: the vnet fixtures use a real tap in a network namespace of its own (needs root)",
    )
    if config.option.vnet_seed is None:  # processes of pytest-xdist are handed this one
        config.option.vnet_seed = str(int.from_bytes(os.urandom(4), "big"))
    from pyvnet.testing import fixtures

    manager = config.pluginmanager
    manager.register(fixtures, "pyvnet-fixtures")
    if manager.hasplugin("asyncio"):
        from pyvnet.testing import fixtures_asyncio

        manager.register(fixtures_asyncio, "pyvnet-fixtures-asyncio")
    else:
        from pyvnet.testing import fixtures_missing

        manager.register(fixtures_missing, "pyvnet-fixtures-asyncio")


@pytest.fixture(scope="session")
def vnet_seed(pytestconfig: pytest.Config) -> str:
    """What this run draws from, for random fixtures that are wider than one test."""
    return str(pytestconfig.getoption("--vnet-seed"))


@pytest.fixture
def vnet_random(request: pytest.FixtureRequest, vnet_seed: str) -> random.Random:
    """Random numbers of this test's own; a failure prints the command that draws them again."""
    name = request.node.nodeid.rpartition("/")[2]
    return random.Random(f"{vnet_seed} {name}")  # noqa: S311


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """An example is for one test."""
    if example := config.getoption("--vnet-example"):
        from pyvnet.testing import reproduce

        reproduce.check_example(items, example)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tell hypothesis, where it is in use, what we want to hear of a failure."""
    if "hypothesis" in sys.modules:
        from pyvnet.testing import reproduce

        reproduce.prepare(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what `--vnet-keep` says, and how a random failure comes back."""
    report = yield
    if report.failed and call.excinfo is not None:
        from pyvnet.testing import reproduce

        # An attribute of a report comes along from processes of pytest-xdist.
        vars(report)["vnet_reproduce"] = reproduce.how(item, call.excinfo.value)
    if call.when == "call" and (SCRIPTS in item.stash or FACTORY in item.stash):
        from pyvnet.testing import keep

        keep.after_call(item, report)
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line for each random test that failed, whatever else is shown of it."""
    failed = [
        report
        for kind in ("failed", "error")
        for report in terminalreporter.getreports(kind)
        if getattr(report, "vnet_reproduce", None) is not None
    ]
    if failed:
        from pyvnet.testing import reproduce

        terminalreporter.write_sep("=", "to fail once more")
        for report in failed:
            command = reproduce.line(config, report.nodeid, report.vnet_reproduce)
            terminalreporter.write_line(command)
