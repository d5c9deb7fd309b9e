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
class SetPolicy:
    """Swap the frame path's policy; when done, no frame is placed by the old one (U-41)."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class ConfigChanged:
    """Send the driver a configuration change notification."""


Effect: TypeAlias = Activate | Deactivate | SetPolicy | ConfigChanged
