# SPDX-License-Identifier: MIT
"""What a session remembers of its front-end: rings as it described them, memory, features.

Theory of operation
    A ring is *started* by SET_VRING_KICK and stopped by GET_VRING_BASE, whatever
    else is known of it; it *runs* in the engine from the moment it is started,
    the front-end has said whether it is enabled, and the driver may be served.
    Until that word (SET_VRING_ENABLE) nothing is taken from the ring, so a kick
    that came earlier is not lost: starting looks at the ring.  A ring that was
    explicitly disabled runs all the same, and what the driver sends on it is
    thrown away (U-42), until all of them are: then none runs.

    A reset of the driver has no message of its own.  Things that may be one arm
    it (U-59); ``rings.decide`` settles it at the next start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pyvnet.device import negotiation
from pyvnet.errors import FrontendError
from pyvnet.spec.features import Feature
from pyvnet.spec.status import DeviceStatus
from pyvnet.spec.vhost_user import F_PROTOCOL_FEATURES, ProtocolFeature, RegionDescription
from pyvnet.transport.vhost_user.fds import Fd, close_all

if TYPE_CHECKING:
    from pyvnet.spec.vhost_user import VringAddress

NO_PROTOCOL_FEATURES: Final = ProtocolFeature(0)


@dataclass(frozen=True, slots=True)
class Offer:
    """What the back-end puts to every front-end.

    ``queue_num`` is the answer to GET_QUEUE_NUM: queue pairs or vrings (U-47).
    """

    features: int
    protocol_features: ProtocolFeature
    pairs: int
    queue_num: int


@dataclass(slots=True)
class Vring:
    """One ring as the front-end described it."""

    index: int
    size: int = 0
    address: VringAddress | None = None
    base: int = 0
    base_is_new: bool = False  # SET_VRING_BASE came since a reset was armed
    kick: Fd | None = None
    call: Fd | None = None
    err: Fd | None = None
    enabled: bool | None = None  # None: the front-end has not said
    disabled_since_start: bool = False
    started: bool = False
    running: bool = False

    def close(self) -> None:
        """Let go of the fds."""
        close_all((self.kick, self.call, self.err))
        self.kick = self.call = self.err = None


@dataclass(slots=True)
class Region:
    """One region of guest memory and the file it lies in."""

    description: RegionDescription
    fd: Fd


@dataclass(slots=True)
class SessionState:
    """Everything one conversation has established so far."""

    offer: Offer
    features: int | None = None  # as written, protocol bits included
    protocol_features: ProtocolFeature = NO_PROTOCOL_FEATURES
    status: int = 0
    status_used: bool = False  # this front-end writes the status field
    regions: list[Region] = field(default_factory=list)
    rings: dict[int, Vring] = field(default_factory=dict)
    reset_armed: bool = True  # whoever was here before may have been another driver

    @property
    def device_features(self) -> Feature:
        """The negotiated features without the protocol's own bits."""
        return Feature((self.features or 0) & ~F_PROTOCOL_FEATURES)

    @property
    def controlq(self) -> int | None:
        """Index of the control queue, None if the front-end keeps it to itself."""
        return negotiation.controlq_index(self.offer.pairs, self.device_features)

    @property
    def rings_wait_for_enable(self) -> bool:
        """Without the protocol feature bit every ring is enabled from the start."""
        return bool((self.features or 0) & F_PROTOCOL_FEATURES)

    @property
    def driver_may_run(self) -> bool:
        """One that writes the status field starts the device with DRIVER_OK (VIO-STAT-01)."""
        return not self.status_used or bool(self.status & DeviceStatus.DRIVER_OK)

    @property
    def suspended(self) -> bool:
        """No ring is started: nothing may be sent to the front-end unasked."""
        return not any(ring.started for ring in self.rings.values())

    def ring(self, index: int) -> Vring:
        """The ring of that index; raises FrontendError if the device has none."""
        count = 2 * self.offer.pairs + 1
        if not 0 <= index < count:
            raise FrontendError(f"vring {index} does not exist, there are {count}")
        return self.rings.setdefault(index, Vring(index))

    def in_order(self) -> list[Vring]:
        """Rings the front-end spoke of, by index."""
        return [self.rings[index] for index in sorted(self.rings)]

    def arm_reset(self) -> None:
        """What came may have been a reset; the next start will tell (U-59)."""
        self.reset_armed = True
        for ring in self.rings.values():
            ring.base_is_new = False

    def translate(self, address: int, what: str) -> int:
        """User address → guest physical address of a ring part; raises FrontendError."""
        for region in self.regions:
            known = region.description
            if known.uva <= address < known.uva + known.size:
                return known.gpa + (address - known.uva)
        raise FrontendError(f"{what} at {address:#x} is in no memory region")

    def close(self) -> None:
        """Let go of every fd."""
        for ring in self.rings.values():
            ring.close()
        close_all(region.fd for region in self.regions)
        self.regions = []
