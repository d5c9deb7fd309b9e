# SPDX-License-Identifier: MIT
"""What a driver does wrong, in the log: one line each, up to a number for each user of a device.

The log is not the driver's to fill.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

_log = logging.getLogger("pyvnet")

_NOTED: Final = 20


class Notes:
    """Counts what was logged at which level."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def clear(self) -> None:
        """Begin anew: the next user has done nothing wrong yet."""
        self._counts.clear()

    def note(self, level: int, message: str, *args: object) -> None:
        """Log a line, unless there have been enough."""
        self._counts[level] += 1
        if self._counts[level] <= _NOTED:
            _log.log(level, message, *args)
        if self._counts[level] == _NOTED:
            _log.log(level, "what else this driver does wrong is not logged")
