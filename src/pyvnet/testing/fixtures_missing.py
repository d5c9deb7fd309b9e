# SPDX-License-Identifier: MIT
"""In the place of the fixtures that are coroutines, where pytest-asyncio is not there."""

from __future__ import annotations

import pytest


def _fail() -> None:
    pytest.fail(
        "this fixture is a coroutine and needs pytest-asyncio (pip install pyvnet[testing]); "
        "vnet_plain does without",
        pytrace=False,
    )


vnet_device_factory = pytest.fixture(name="vnet_device_factory")(_fail)
vnet_device = pytest.fixture(name="vnet_device")(_fail)
vnet_driver = pytest.fixture(name="vnet_driver")(_fail)
wire = pytest.fixture(name="wire")(_fail)
vnet = pytest.fixture(name="vnet")(_fail)
