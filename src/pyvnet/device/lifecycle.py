# SPDX-License-Identifier: MIT
"""Device status: which writes the driver may make, and what they come to.

Theory of operation
    The driver climbs one ladder ("Device Initialization"), adding bits and
    never taking one away:

        0 ─▶ ACKNOWLEDGE ─▶ DRIVER ─▶ FEATURES_OK ─▶ DRIVER_OK

    - Writing 0 is a reset, at any time, from any rung.
    - A write names all bits it wants on.  Leaving out one that is on is not a
      way down: such a write is illegal.
    - One write may climb several rungs; they are taken in ladder order, and
      each must find the rungs below it.
    - FEATURES_OK is the device's verdict on the features written so far.  If
      it cannot work with them the bit stays off, which is what the driver
      reads back; nothing else about the write is wrong.  Once the bit is on,
      features are frozen.
    - FAILED may be set at any time.  After it, as after DEVICE_NEEDS_RESET,
      there is only the way through reset: no further rung is granted.
    - DEVICE_NEEDS_RESET belongs to the device, SUSPEND is not offered
      (VIO-SUS-01): both are ignored in a write, set or clear, so a driver
      that writes back what it read a moment ago does no harm.

    An illegal write is ignored as a whole and counted.  What may be done on
    which rung: features are written below FEATURES_OK, queues are set up below
    DRIVER_OK, rings run and control commands come from DRIVER_OK on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, NamedTuple

from pyvnet.spec.status import DeviceStatus


class Rung(NamedTuple):
    """One bit the driver may add."""

    bit: DeviceStatus
    requires: DeviceStatus
    dead_end_too: bool  # granted also after FAILED or DEVICE_NEEDS_RESET


_ACKNOWLEDGED: Final = DeviceStatus.ACKNOWLEDGE
_DRIVEN: Final = _ACKNOWLEDGED | DeviceStatus.DRIVER
_AGREED: Final = _DRIVEN | DeviceStatus.FEATURES_OK
_RUNNING: Final = _AGREED | DeviceStatus.DRIVER_OK

LADDER: Final = (
    Rung(DeviceStatus.ACKNOWLEDGE, DeviceStatus.RESET, dead_end_too=False),
    Rung(DeviceStatus.DRIVER, _ACKNOWLEDGED, dead_end_too=False),
    Rung(DeviceStatus.FEATURES_OK, _DRIVEN, dead_end_too=False),
    Rung(DeviceStatus.DRIVER_OK, _AGREED, dead_end_too=False),
    Rung(DeviceStatus.FAILED, DeviceStatus.RESET, dead_end_too=True),
)

_DEAD_ENDS: Final = DeviceStatus.FAILED | DeviceStatus.DEVICE_NEEDS_RESET
_IGNORED: Final = DeviceStatus.SUSPEND | DeviceStatus.DEVICE_NEEDS_RESET
_DRIVER_BITS: Final = int(_RUNNING | DeviceStatus.FAILED)
# Status on each rung; FAILED and DEVICE_NEEDS_RESET come on top.
_RESTING_PLACES: Final = frozenset(
    int(place) for place in (DeviceStatus.RESET, _ACKNOWLEDGED, _DRIVEN, _AGREED, _RUNNING)
)


class Verdict(Enum):
    """What a status write comes to."""

    RESET = auto()
    ACCEPTED = auto()
    FEATURES_REFUSED = auto()  # accepted, but FEATURES_OK stays off
    ILLEGAL = auto()


class Judgement(NamedTuple):
    """Verdict and the status after it."""

    verdict: Verdict
    status: DeviceStatus


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """A driver's write of ``value`` to a device whose status is ``current``."""

    current: DeviceStatus
    value: int

    def judge(self, *, features_acceptable: bool) -> Judgement:
        """Decide by the ladder; total: every integer has a verdict."""
        if self.value == 0:
            return Judgement(Verdict.RESET, DeviceStatus.RESET)
        held = int(self.current) & _DRIVER_BITS
        wanted = self.value & _DRIVER_BITS
        if self.value & ~(_DRIVER_BITS | int(_IGNORED)) or held & ~wanted:
            return Judgement(Verdict.ILLEGAL, self.current)
        verdict = Verdict.ACCEPTED
        reached = self.current
        for rung in LADDER:
            bit = int(rung.bit)
            if not wanted & bit or held & bit:
                continue
            at_dead_end = bool(self.current & _DEAD_ENDS) and not rung.dead_end_too
            if at_dead_end or rung.requires & ~reached:
                return Judgement(Verdict.ILLEGAL, self.current)
            if rung.bit is DeviceStatus.FEATURES_OK and not features_acceptable:
                verdict = Verdict.FEATURES_REFUSED
                continue
            reached |= rung.bit
        return Judgement(verdict, reached)


def is_reachable(status: int) -> bool:
    """Whether any history of legal writes and device errors leads to this status.

    DEVICE_NEEDS_RESET alone is none: a device no driver has touched has no
    ring that could break (VIO-RST-01).
    """
    alone = status == DeviceStatus.DEVICE_NEEDS_RESET
    return status & ~int(_DEAD_ENDS) in _RESTING_PLACES and not alone
