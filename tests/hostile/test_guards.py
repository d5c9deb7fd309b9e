# SPDX-License-Identifier: MIT
"""A guard that nothing misses is no guard: each is shown to hold, and to be what holds."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.hostile import guards
from tests.hostile.rig import ROOT, guarded

if TYPE_CHECKING:
    from pyvnet.datapath.native import Native

ALL: Final = sorted(guards.SCENARIOS)


def test_every_guard_has_a_scenario(hooked: Native) -> None:
    assert sorted(guards.names(hooked)) == ALL


@pytest.mark.parametrize("name", ALL)
def test_with_its_guard_a_scenario_holds(hooked: Native, name: str) -> None:
    with guarded():
        guards.SCENARIOS[name](hooked)


@pytest.mark.parametrize("name", ALL)
def test_without_its_guard_it_does_not(name: str) -> None:
    command = [sys.executable, "-m", "tests.hostile.guards", name, "off"]
    # What a sanitizer says here is meant: it belongs to this process, not into anybody's report.
    environment = os.environ | {
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "halt_on_error=1",
    }
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, timeout=100, check=False
    )
    assert ended.returncode != 0
    # It failed by the assertion, the sanitizer, the hang guard or a signal: not by a typing error.
    wrong = (b"NameError", b"TypeError", b"AttributeError", b"ImportError", b"ModuleNotFoundError")
    assert not any(name in ended.stderr for name in wrong), ended.stderr.decode(errors="replace")
