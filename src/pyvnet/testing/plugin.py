# SPDX-License-Identifier: MIT
"""The pytest plugin: options, the marker, and the way to the fixtures.

pytest imports this for every suite of an environment that has pyvnet in it, so
it imports nothing but pytest, and what it does for tests that use no fixture of
ours is look into an empty stash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from pyvnet.testing.script import Vnet

SCRIPTS = pytest.StashKey[list["Vnet"]]()
"""In the stash of an item: the scripts of its fixtures."""


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


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker and the fixtures; those that are coroutines need pytest-asyncio."""
    config.addinivalue_line(
        "markers",
        "vnet_tap: the vnet fixtures use a real tap in a network namespace of its own (needs root)",
    )
    from pyvnet.testing import fixtures

    manager = config.pluginmanager
    manager.register(fixtures, "pyvnet-fixtures")
    if manager.hasplugin("asyncio"):
        from pyvnet.testing import fixtures_asyncio

        manager.register(fixtures_asyncio, "pyvnet-fixtures-asyncio")
    else:
        from pyvnet.testing import fixtures_missing

        manager.register(fixtures_missing, "pyvnet-fixtures-asyncio")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what `--vnet-keep` says."""
    report = yield
    if call.when == "call" and SCRIPTS in item.stash:
        from pyvnet.testing import keep

        keep.after_call(item, report)
    return report
