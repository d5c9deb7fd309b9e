# SPDX-License-Identifier: MIT
"""How every row of docs/peer-faults.md is run: three forms, often."""

from __future__ import annotations

import pytest

from tests.hostile.attack import VARIANTS

three_forms = pytest.mark.parametrize("variant", VARIANTS)

_SOAK = (pytest.mark.soak, pytest.mark.timeout(1800))
repeated = pytest.mark.parametrize(
    "repeats", [pytest.param(100, id="100"), pytest.param(10_000, id="10000", marks=_SOAK)]
)
