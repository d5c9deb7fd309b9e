# SPDX-License-Identifier: MIT
"""One answer to "can this be done here?"; each no says why, and what would help."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyvnet.errors import HostError


@dataclass(frozen=True, slots=True)
class Finding:
    """``reason`` and ``cure`` are empty when ``available``."""

    available: bool
    reason: str = ""
    cure: str = ""

    def as_json(self) -> dict[str, Any]:
        """Without the empty fields of a yes."""
        return {"available": True} if self.available else asdict(self)


YES = Finding(available=True)


def no(reason: str, cure: str) -> Finding:
    """A thing that cannot be done."""
    return Finding(available=False, reason=reason, cure=cure)


def refused(error: OSError, cure: str) -> Finding:
    """A thing the kernel just refused."""
    return no(os.strerror(error.errno or 0), cure)


def because(error: HostError) -> Finding:
    """A thing that failed."""
    reason = f"{error.what}: {os.strerror(error.errno)}" if error.errno else error.what
    return no(reason, error.cure)
