# SPDX-License-Identifier: MIT
"""Fixtures that are no coroutines: what a device shall be, and the script in plain calls.

Overriding one of `vnet_features`, `vnet_queues`, `vnet_port` or `vnet_options`,
in a module, a class or a conftest, changes everything built on it.  Importing
this costs next to nothing: a device is imported when a test wants one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pyvnet.testing.plugin import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.spec.features import Feature
    from pyvnet.testing.plain import PlainVnet


@pytest.fixture
def vnet_features() -> Feature | None:
    """Features the driver accepts; None: all that the device offers.  To be overridden."""
    return None


@pytest.fixture
def vnet_queues() -> int:
    """Queue pairs of the device.  To be overridden."""
    return 4


@pytest.fixture
def vnet_options() -> dict[str, Any]:
    """Options of the device: features it has ``offered``, ``mtu``, ``mac``, …  To be overridden."""
    return {}


@pytest.fixture
def vnet_port(request: pytest.FixtureRequest) -> str:
    """Host port: ``tap`` for tests marked ``vnet_tap``, else ``pair``.  To be overridden."""
    return "tap" if request.node.get_closest_marker("vnet_tap") else "pair"


@pytest.fixture
def _vnet_port(request: pytest.FixtureRequest, vnet_port: str) -> str:
    """A port that this machine has."""
    from pyvnet.testing.rig import lacking

    if reason := lacking(vnet_port):  # type: ignore[arg-type]  # judged when a device is made
        if request.config.getoption("--vnet-missing") == "fail":
            pytest.fail(f"no tap: {reason}", pytrace=False)
        pytest.skip(f"no tap: {reason}")
    return vnet_port


@pytest.fixture
def vnet_plain(
    request: pytest.FixtureRequest,
    vnet_queues: int,
    _vnet_port: str,
    vnet_features: Feature | None,
    vnet_options: dict[str, Any],
) -> Iterator[PlainVnet]:
    """The same in plain calls, for tests that are no coroutines."""
    from pyvnet.testing.plain import PlainVnet

    options = {"queues": vnet_queues, "port": _vnet_port, **vnet_options}
    with PlainVnet(features=vnet_features, **options) as plain:
        request.node.stash.setdefault(SCRIPTS, []).append(plain.script)
        yield plain
