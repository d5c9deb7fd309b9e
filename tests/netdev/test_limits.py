# SPDX-License-Identifier: MIT
"""RLIMIT_NOFILE; in child processes, since a hard limit that was lowered stays low."""

from __future__ import annotations

import subprocess
import sys

import pytest

SETUP = """
import resource, sys
from pyvnet.errors import HostError
from pyvnet.netdev import flows, limits
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))
try:
    {call}
except HostError as error:
    print(error)
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def child(call: str) -> list[str]:
    script = SETUP.format(call=call)
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    assert child("print(limits.raise_open_files(64))") == ["128", "(128, 128)"]


@pytest.mark.parametrize(
    "call", ["limits.raise_open_files(1000)", "flows.start_flows('none', 1000)"]
)
def test_what_cannot_fit_is_refused_before_anything_happens(call: str) -> None:
    message, after = child(call)
    assert message.startswith("1000 more open files are needed, ")
    assert "128 are allowed; raise the hard limit (LimitNOFILE=, `ulimit -Hn`) to 10" in message
    assert after == "(128, 128)"
