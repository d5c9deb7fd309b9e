# SPDX-License-Identifier: MIT
"""What the device asks of the world around it.

A transition carries effects in the order in which they are to be applied; the
runtime applies them and only then commits the transition and answers the
driver.  Applying any of them twice does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pyvnet.device.queue import ActiveQueue
    from pyvnet.device.steering import Policy
    from pyvnet.spec.features import Feature


@dataclass(frozen=True, slots=True)
class Activate:
    """Start the rings under the negotiated ``features``.

    ``controlq_index`` says which of them is the controlq, None if there is no
    such queue.  Go by it and not by the device, which is still in the state
    before the transition.
    """

    features: Feature
    queues: tuple[ActiveQueue, ...]
    controlq_index: int | None


@dataclass(frozen=True, slots=True)
class Deactivate:
    """Stop every ring; when done, nothing touches guest memory or notifies (VIO-RST-02)."""


@dataclass(frozen=True, slots=True)
class StartQueue:
    """Start one ring while others may run; the fields are those of ``Activate``.

    ``enabled``: False where the front-end keeps it off for now (U-42).
    """

    queue: ActiveQueue
    features: Feature
    controlq_index: int | None
    enabled: bool


@dataclass(frozen=True, slots=True)
class StopQueue:
    """Stop one ring; when done, it is not touched any more and nothing notifies for it."""

    index: int


@dataclass(frozen=True, slots=True)
class EnableQueue:
    """The front-end switched a running ring on or off (U-42)."""

    index: int
    enabled: bool


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """Swap the frame path's policy; when done, no frame is placed by the old one (U-41)."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class ConfigChanged:
    """Send the driver a configuration change notification."""


Effect: TypeAlias = (
    Activate | Deactivate | StartQueue | StopQueue | EnableQueue | SetPolicy | ConfigChanged
)
