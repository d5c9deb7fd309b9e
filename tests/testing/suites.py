# SPDX-License-Identifier: MIT
"""Suites of the plugin's users, run by pytest: what their test modules begin with, and how."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

import scapy.layers.inet6  # noqa: F401 - see below
import uvloop  # noqa: F401

# Loaded before the first inner run, which would otherwise take its modules away again.
import pyvnet.netdev.netns
import pyvnet.netdev.tap
import pyvnet.testing.fixtures_asyncio
import pyvnet.testing.fixtures_missing
import pyvnet.testing.keep
import pyvnet.testing.plain  # noqa: F401

if TYPE_CHECKING:
    import pytest

HEAD = """
import asyncio
import pytest
import pyvnet
from pyvnet import Feature, HashReport, HashType
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.testing.frames import Ipv4, Ipv6, Vlan, build, tcp, udp

FRAME = build(Ipv4("192.0.2.1", "192.0.2.2"), tcp(1024, 80))
OTHER = build(Ipv6(), udp(1025, 53))
"""


class Suite:
    """Runs one test module under ordinary settings: no conftest, no ini file."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester

    def __call__(
        self,
        body: str,
        *options: str,
        mode: str = "auto",
        head: str = HEAD,
        child: bool = False,
        before: tuple[str, ...] = (),
    ) -> pytest.RunResult:
        """Run it: in this process, in a ``child``, or in one started by the words ``before``.

        ``mode`` is pytest-asyncio's, "" none.
        """
        self._pytester.makepyfile(head + textwrap.dedent(body))
        # Hypothesis would be loaded, and asked what it found, at the end of each.
        settings = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
        if mode:
            scope = "asyncio_default_fixture_loop_scope=function"
            settings += [f"--asyncio-mode={mode}", "-o", scope]
        if child or before:
            folder = f"--basetemp={self._pytester.path / 'kept'}"
            command = (*before, sys.executable, "-m", "pytest", *settings, folder, *options)
            return self._pytester.run(*command)
        return self._pytester.runpytest_inprocess(*settings, *options)
