# SPDX-License-Identifier: MIT
"""The pytest plugin: options, the marker, and the way to the fixtures.

pytest imports this for every suite of an environment that has pyvnet in it, so
it imports nothing but pytest, and what it does for tests that use no fixture of
ours is look into an empty stash.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator


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
    """Declare the marker; the fixtures come along if coroutines can be run."""
    config.addinivalue_line(
        "markers",
        "vnet_tap: the vnet fixtures use a real tap in a network namespace of its own (needs root)",
    )
    manager = config.pluginmanager
    if manager.hasplugin("asyncio") and find_spec("pytest_asyncio"):
        from pyvnet.testing import fixtures

        manager.register(fixtures, "pyvnet-fixtures")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what `--vnet-keep` says."""
    report = yield
    if call.when == "call":
        from pyvnet.testing import keep

        keep.after_call(item, report)
    return report
