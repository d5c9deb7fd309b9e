# SPDX-License-Identifier: MIT
"""What a case has in its hands: one device, a driver on it, the wire behind it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, SupportsBytes

from pyvnet.conformance.case import Failed, Inconclusive, NotApplicable, NotTried
from pyvnet.conformance.target import dial
from pyvnet.driver.errors import NegotiationError
from pyvnet.driver.frontend_link import Link
from pyvnet.errors import HostError, PyvnetError
from pyvnet.spec.config import NetConfig
from pyvnet.spec.features import (
    NO_FEATURES,
    REQUIREMENTS,
    Feature,
    feature_names,
    missing_dependencies,
)
from pyvnet.spec.vhost_user import ProtocolFeature

if TYPE_CHECKING:
    import socket

    from pyvnet.conformance.case import Case
    from pyvnet.conformance.target import Operator, Place
    from pyvnet.conformance.wire import Wire, WireFrame
    from pyvnet.driver import Driver, Frame
    from pyvnet.driver.frontend import VhostUserFrontend
    from pyvnet.driver.recorder import Recorder

# Pairs a case gets when it does not say how many: enough to tell queues from one another.
PAIRS: Final = 4
# Descriptors of each of its queues, which bounds how many frames may be under way at once; laying
# out receive buffers is most of what a negotiation costs.
QUEUE_SIZE: Final = 64
# Of a case's time, what one step may take: the step then says what it waited for.
STEP: Final = 0.9
GREETING: Final = "an answer to the first messages"


class NoAnswerError(PyvnetError):
    """The device could not even be connected to: nothing is known about it."""


class Facts(NamedTuple):
    """What a device says of itself before anything is negotiated.

    Attributes:
        features: offered.
        protocol: agreed on where the device is reached over vhost-user.
        config: configuration space.
        pairs: queue pairs.
    """

    features: Feature = NO_FEATURES
    protocol: ProtocolFeature = ProtocolFeature(0)
    config: NetConfig = NetConfig()
    pairs: int = 1


async def ask(drv: Driver) -> Facts:
    """Look at a device that was connected to."""
    features = Feature(await drv.transport.device_features())
    config = await drv.read_config()
    protocol = getattr(drv.transport, "protocol_features", ProtocolFeature(0))
    several = features & (Feature.MQ | Feature.RSS)
    pairs = max(1, config.max_virtqueue_pairs) if several else 1
    return Facts(features, protocol, config, pairs)


class Trial:
    """A case in progress.

    Attributes:
        case: it.
        evidence: lines for the report.
        doing: what is waited for just now.
    """

    def __init__(
        self,
        case: Case,
        place: Place,
        *,
        timeout: float,
        facts: Facts | None = None,
        evidence: list[str] | None = None,
        recorder: Recorder | None = None,
        stalled: str = "",
    ) -> None:
        self.case: Final = case
        self._stalled = stalled
        self._recorder = recorder
        self._facts = facts
        self.evidence: Final = [] if evidence is None else evidence
        self.doing = ""
        self._place = place
        self._timeout = timeout
        self._drivers: list[Driver] = []
        self._open = contextlib.ExitStack()

    @property
    def step(self) -> float:
        """Seconds one thing may take."""
        return self._timeout * STEP

    # --- what the device says -----------------------------------------------------------

    @property
    def facts(self) -> Facts:
        """What it said when it was asked; nothing where it did not answer."""
        return self._facts or Facts()

    @property
    def offered(self) -> Feature:
        """Features the device offers."""
        return self.facts.features

    @property
    def pairs(self) -> int:
        """Queue pairs it has."""
        return self.facts.pairs

    @property
    def config(self) -> NetConfig:
        """Its configuration space before negotiation; zeros where nobody says."""
        return self.facts.config

    # --- drivers ----------------------------------------------------------------------

    async def driver(self, **options: Any) -> Driver:
        """A driver on a fresh connection, not negotiated; the one before it is closed.

        Raises:
            NoAnswerError: there is no device.
            DeviceViolation: it does not answer as it should.
        """
        await self.hang_up()
        self.doing = GREETING
        options.setdefault("control_timeout", self.step)
        options.setdefault("capture", self._recorder)
        try:
            if self.case.protocol and self._place.connect is not None:
                options.setdefault("pairs", self.pairs)
                drv = await dial(self._place.connect, timeout=self.step, **options)
            else:
                drv = await self._place.driver(self.step, **options)
        except (OSError, HostError) as error:
            raise NoAnswerError(str(error) or type(error).__name__) from error
        self._drivers.append(drv)
        self.doing = "what comes after the first messages"
        return drv

    async def negotiate(
        self,
        features: Feature = NO_FEATURES,
        *,
        pairs: int | None = None,
        mrg_rxbuf: bool = True,
        **options: Any,
    ) -> Driver:
        """A driver brought to DRIVER_OK on a fresh connection; the runner closes it.

        Args:
            features: wanted; what they require comes along, and MQ where more than one pair
                takes it.
            mrg_rxbuf: accept MRG_RXBUF too where it is offered: num_buffers means nothing
                without it, and back-ends that leave it 0 then would fall by every case.
            pairs: queue pairs to use; None: up to 4, or 1 without MQ and RSS.
            options: for `Driver.negotiate`; ``queue_size`` is 64 unless given.

        Raises:
            NotApplicable: something of it is not offered.
            NotTried: nobody negotiates any more.
        """
        if self._stalled:
            raise NotTried(self._stalled)
        if self._facts is None:  # it did not answer then; it may now
            self._facts = await ask(await self.driver())
        if mrg_rxbuf:
            features |= self.offered & Feature.MRG_RXBUF
        features = self.choose(features, pairs=pairs)
        drv = await self.driver()
        if features & (Feature.MQ | Feature.RSS):
            pairs = min(PAIRS, self.pairs) if pairs is None else pairs
        options.setdefault("queue_size", QUEUE_SIZE)
        self.doing = "negotiation"
        try:
            await drv.negotiate(features, pairs=pairs, **options)
        except NegotiationError as error:
            raise Failed(str(error)) from error
        await self.started(drv)
        return drv

    async def started(self, drv: Driver) -> None:
        """Say that a driver of the case's own making is in operation, for the wire's sake."""
        if self.case.wire and self._place.wire is not None:
            self.doing = "the wire to carry frames"
            await self._place.wire.begin(drv)

    def choose(self, features: Feature = NO_FEATURES, *, pairs: int | None = None) -> Feature:
        """Complete a choice of features by what they require; raises NotApplicable."""
        if (pairs or 1) > 1 and not features & (Feature.MQ | Feature.RSS):
            features |= Feature.MQ
        features = complete(features | Feature.VERSION_1, self.offered)
        if lacking := int(features) & ~int(self.offered):
            raise NotApplicable(f"not offered: {', '.join(feature_names(lacking))}")
        if (pairs or 1) > self.pairs:
            raise NotApplicable(f"it takes {pairs} queue pairs, the device has {self.pairs}")
        return features

    def raw_socket(self) -> socket.socket:
        """A vhost-user connection on which nothing was said; closed by the runner at the latest."""
        if self._place.connect is None:
            raise NotApplicable("the device is not reached over vhost-user")
        self.doing = "a connection"
        try:
            sock = self._place.connect()
        except (OSError, HostError) as error:
            raise NoAnswerError(str(error)) from error
        self._open.callback(sock.close)
        return sock

    def link(self) -> Link:
        """A vhost-user connection of a front-end that has said nothing yet.

        Set `doing` when the back-end has answered something: one that never does has not
        failed, it is not there.
        """
        link = Link(self.raw_socket(), timeout=self.step)
        self.doing = GREETING  # until the case says otherwise
        self._open.callback(link.close)
        return link

    @staticmethod
    def frontend(drv: Driver) -> VhostUserFrontend:
        """The front-end below a driver; raises NotApplicable where there is none."""
        with contextlib.suppress(PyvnetError):
            return drv.frontend
        raise NotApplicable("the device is not reached over vhost-user")

    async def hang_up(self) -> None:
        """Close every connection the case has made, whatever the device makes of it."""
        self._open.close()
        while self._drivers:
            with contextlib.suppress(PyvnetError, OSError):
                await self._drivers.pop().aclose()

    # --- frames -----------------------------------------------------------------------

    @property
    def wire(self) -> Wire:
        """The other side of the device; raises NotApplicable where there is none."""
        if self._place.wire is None:
            raise NotApplicable("there is no wire to the other side of the device (--wire)")
        return self._place.wire

    @property
    def operator(self) -> Operator:
        """Who can pull the cable; raises NotApplicable where nobody can."""
        if self._place.operator is None:
            raise NotApplicable("nobody here can pull the device's cable")
        return self._place.operator

    async def inject(
        self, frame: SupportsBytes, header: bytes | None = None, queue: int = 0
    ) -> None:
        """Send a frame from the wire towards the driver."""
        await self.wire.send(bytes(frame), header, queue)

    async def receive(self, drv: Driver, within: float | None = None) -> Frame:
        """The next frame the driver receives; none in time is a failure.

        Args:
            drv: the driver.
            within: seconds; None: as long as a step may take.
        """
        self.doing = "a frame from the device"
        try:
            return await drv.receive(self.step if within is None else within)
        except TimeoutError as error:
            raise Failed(str(error)) from error

    async def sent(self, within: float | None = None) -> WireFrame:
        """The next frame the device puts on the wire; none in time is a failure."""
        self.doing = "a frame on the wire"
        within = self.step if within is None else within
        try:
            return await self.wire.receive(within)
        except TimeoutError as error:
            raise Failed(f"no frame on the wire within {within:.3g} s") from error

    async def readable(self, fd: int) -> None:
        """Wait until an eventfd is readable; not in time is a failure."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(fd, ready.set)
        try:
            async with asyncio.timeout(self.step):
                await ready.wait()
        except TimeoutError as error:
            raise Failed(f"not within {self.step:.3g} s: {self.doing}") from error
        finally:
            loop.remove_reader(fd)

    async def notified(self, drv: Driver) -> NetConfig:
        """Wait for a configuration change notification; none in time is a failure."""
        self.doing = "a configuration change notification"
        try:
            async with asyncio.timeout(self.step):
                return await drv.wait_config_change()
        except TimeoutError as error:
            raise Failed(f"no configuration change within {self.step:.3g} s") from error

    # --- verdicts ---------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Add a line to the evidence."""
        self.evidence.append(text)

    def equal(self, seen: object, expected: object, what: str) -> None:
        """Fail unless both are the same; ``what`` names them."""
        if seen != expected:
            raise Failed(f"{what}: expected {_show(expected)}, seen {_show(seen)}")

    def check(self, condition: object, text: str) -> None:
        """Fail with this text unless it holds."""
        if not condition:
            raise Failed(text)

    def fail(self, text: str) -> NoReturn:
        """The device is at fault."""
        raise Failed(text)

    def inconclusive(self, why: str) -> NoReturn:
        """Nothing can be said."""
        raise Inconclusive(why)

    def not_applicable(self, why: str) -> NoReturn:
        """The device does not owe this."""
        raise NotApplicable(why)


def complete(features: Feature, offered: Feature) -> Feature:
    """Add what the features require; of alternatives those that are offered, or else all."""
    while lacking := missing_dependencies(features):
        for bit in lacking:
            for group in REQUIREMENTS[bit]:
                if not features & group:
                    features |= (group & offered) or group
    return features


def _show(value: object) -> str:
    match value:
        case bytes():
            shown = value[:64].hex(" ")
            return f"{len(value)} bytes {shown}{' …' if len(value) > 64 else ''}"
        case int() if not isinstance(value, bool) and value > 0xFFFF:
            return f"{value:#x}"
    return str(value)
