# SPDX-License-Identifier: MIT
"""Every error pyvnet raises, sorted by who has to act.

::

    PyvnetError
    ├── DriverError      the guest's driver broke a rule of the standard
    ├── FrontendError    the VMM (vhost-user front-end) broke a rule of its protocol
    ├── HostError        the tap, the kernel or a limit of this machine said no
    └── UsageError       you: an argument, an option or the order of calls

A DriverError or FrontendError costs its own device or connection and nothing
else; a HostError names a cure where there is one; a UsageError is reported
before anything has changed.  C reports small negative codes and
`pyvnet.datapath` turns them into these.
"""

from __future__ import annotations

import os

__all__ = ["DriverError", "FrontendError", "HostError", "PyvnetError", "UsageError"]


class PyvnetError(Exception):
    """The root: catch it to catch everything pyvnet raises on purpose."""


class DriverError(PyvnetError):
    """The driver did what the standard forbids; its device may need a reset."""


class FrontendError(PyvnetError):
    """The front-end sent what its protocol forbids; its message or connection is refused."""


class HostError(PyvnetError):
    """The machine below refused.

    Attributes:
        what: what was tried, in one clause.
        errno: the kernel's error number, or None where no system call failed.
        cure: what the user can do about it, or "".
    """

    def __init__(self, what: str, errno: int | None = None, cure: str = "") -> None:
        self.what = what
        self.errno = errno
        self.cure = cure
        super().__init__(what, errno, cure)

    def __str__(self) -> str:
        reason = f": {os.strerror(self.errno)}" if self.errno else ""
        return f"{self.what}{reason}" + (f"; {self.cure}" if self.cure else "")


class UsageError(PyvnetError):
    """What was asked for makes no sense here; nothing was changed."""
