# SPDX-License-Identifier: MIT
"""What happened on the control side, counted."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

from pyvnet.device._checks import U64, check_int


@dataclass(frozen=True, slots=True)
class Counters:
    """What happened on the control side; survives reset, travels with the state (U-49).

    All count events and wrap at 2**64, except ``control_surplus_bytes``, which
    counts bytes.
    """

    resets: int = 0
    status_illegal_writes: int = 0
    features_refused: int = 0  # FEATURES_OK not granted
    feature_writes_ignored: int = 0  # after FEATURES_OK, or beyond any feature bit
    queue_index_out_of_range: int = 0
    queue_setups_ignored: int = 0  # after DRIVER_OK, or a value beyond its field
    queues_invalid: int = 0  # DRIVER_OK with a ring that cannot be started
    rings_broken: int = 0
    ring_events_stale: int = 0  # about rings that are gone
    config_changes: int = 0  # configuration space changed, or its driver was told to look
    control_commands: int = 0
    control_failures: int = 0  # of those: answered ERR
    control_short: int = 0
    control_surplus_bytes: int = 0
    control_no_ack: int = 0
    control_malformed: int = 0
    control_not_applied: int = 0  # good, but the host could not do it
    control_not_running: int = 0  # came while no control queue runs

    def __post_init__(self) -> None:
        """Refuse what 64 bits do not hold."""
        for name in _NAMES:
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= U64:
                check_int(name, value, 0, U64)

    def add(self, **events: int) -> Counters:
        """The same counters, the named ones higher."""
        return replace(
            self, **{name: (getattr(self, name) + more) & U64 for name, more in events.items()}
        )


_NAMES: Final = tuple(entry.name for entry in fields(Counters))
