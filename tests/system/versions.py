# SPDX-License-Identifier: MIT
"""Which version of a program of others is here, for tests that compare it with a list."""

from __future__ import annotations

import subprocess
from contextlib import suppress


def installed(package: str) -> str:
    """The version of a Debian package, "unknown" where nobody can say."""
    with suppress(FileNotFoundError):
        command = ["dpkg-query", "--show", "--showformat=${Version}", package]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout
    return "unknown"


def whose_list(package: str, version: str) -> str:
    """What to say where a list made with one version of a package does not hold."""
    here = installed(package)
    if here.startswith(version):
        return f"the list is of {package} {version}, which is what is installed"
    return (
        f"the list is of {package} {version}, installed is {here}: "
        "it may be a difference of these versions, and the list to be brought up to date"
    )
