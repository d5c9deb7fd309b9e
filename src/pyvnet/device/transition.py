# SPDX-License-Identifier: MIT
"""What a method of the device returns instead of changing anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyvnet.device.effects import Effect
    from pyvnet.device.state import DeviceState


@dataclass(frozen=True, slots=True)
class Transition:
    """What would happen: the state to commit and the effects to apply before that."""

    base: DeviceState
    state: DeviceState
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class ControlTransition(Transition):
    """The outcome of a control command.

    ``answer`` is what to write into the device-writable part before the buffer
    is returned; None: return it with length 0 (U-05).  ``note`` is a line for
    the log: why the command was refused, or what is remarkable about it.
    """

    answer: bytes | None = None
    note: str | None = None
