# SPDX-License-Identifier: MIT
"""Wires to devices of others: an interface, a second back-end of the same switch, the port itself.

    tap:NAME         an interface of this network namespace the device is behind
    vhost-user:PATH  the thing forwards to and from this other port of its own
    reflect          the thing sends back what it gets, on the same port

Whatever stands between a device and these wires may need a moment before it
forwards, and may hold back frames of the case before.  So every driver that
gets ready is probed: numbered frames go both ways until the *last* one sent has
arrived, which no earlier one can overtake.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import Inconclusive, NotApplicable
from pyvnet.conformance.packet_socket import PacketSocket
from pyvnet.conformance.wire import WireFrame
from pyvnet.driver import Driver
from pyvnet.driver.connect import SCHEME
from pyvnet.driver.errors import DeviceViolation
from pyvnet.errors import UsageError
from pyvnet.spec.features import Feature

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from pyvnet.conformance.wire import Wire

NONE: Final = "none"
TAP: Final = "tap:"
REFLECT: Final = "reflect"
PAIRS: Final = 4

# What a wire of vhost-user makes use of, as far as the other port offers it.
_WANTED: Final = Feature.MRG_RXBUF | Feature.CTRL_VQ | Feature.MQ | Feature.GUEST_CSUM

# To everybody, from nobody in particular, of the ethertype for local experiments.
_PROBE: Final = b"\xff" * 6 + b"\x02pyvn" + b"\x01" + b"\x88\xb5" + b"pyvnet probe "
_PROBE_SIZE: Final = 60
_PATIENCE: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)  # seconds for one probe after another

_numbers: Final = itertools.count(1)


def is_probe(frame: bytes) -> bool:
    """Whether a frame is nobody's but ours."""
    return frame.startswith(_PROBE)


def _probe() -> bytes:
    return (_PROBE + b"%d" % next(_numbers)).ljust(_PROBE_SIZE, b"\0")


async def _passes(
    send: Callable[[bytes], Awaitable[None]], receive: Callable[[float], Awaitable[bytes]]
) -> bool:
    """Send probes until one has arrived; frames before it are thrown away."""
    for patience in _PATIENCE:
        probe = _probe()
        await send(probe)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while await receive(patience) != probe:
                    pass
                return True
    return False


async def _heard(driver: Driver, send: Callable[[bytes], Awaitable[None]]) -> None:
    """Probe the way to a driver; one that is given what breaks a rule has heard enough."""

    async def received(within: float) -> bytes:
        return (await driver.receive(within)).data

    # Without receive buffers it has chosen to be deaf.
    if any(queue.ring.outstanding for queue in driver.receiveqs):
        with contextlib.suppress(DeviceViolation):
            await _passes(send, received)


class _Probed:
    """What the three have in common."""

    queues = 1

    async def send(self, frame: bytes, header: bytes | None = None, queue: int = 0) -> None:
        """Send a frame towards the driver."""
        raise NotImplementedError

    async def _next(self, within: float) -> WireFrame:
        """The next frame of any kind; raises TimeoutError."""
        raise NotImplementedError

    async def receive(self, within: float) -> WireFrame:
        """The next frame the driver sent; raises TimeoutError."""
        async with asyncio.timeout(within):
            while is_probe((frame := await self._next(within)).data):
                pass
            return frame

    async def begin(self, driver: Driver) -> None:
        """Return when frames cross and none of those from before is under way; or give up."""

        async def on_the_wire(within: float) -> bytes:
            return (await self._next(within)).data

        await _heard(driver, self.send)
        await _passes(driver.send, on_the_wire)

    def _check(self, queue: int, header: bytes | None) -> None:
        """Raise NotApplicable for what this wire cannot do."""
        if not 0 <= queue < self.queues:
            raise NotApplicable(f"the wire has {self.queues} queues, none is number {queue}")
        if header is not None and any(header):
            raise NotApplicable("the wire carries no virtio header")


class TapWire(_Probed):
    """An interface, seen through a packet socket that carries the virtio header."""

    carries_header = True
    names_queue = False

    def __init__(self, name: str) -> None:
        self._name = name
        self._socket: PacketSocket | None = None

    def describe(self) -> str:
        """What reports call it."""
        return f"{TAP}{self._name}"

    async def open(self) -> None:
        """Bind to the interface; raises HostError where there is none, or no privilege."""
        self._socket = PacketSocket(self._name)

    async def aclose(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def send(self, frame: bytes, header: bytes | None = None, queue: int = 0) -> None:
        """Transmit on the interface."""
        self._check(queue, None)
        if self._socket is not None:
            await self._socket.send(frame, header)

    async def _next(self, within: float) -> WireFrame:
        if self._socket is None:
            raise UsageError(f"{self.describe()} is not open")
        async with asyncio.timeout(within):
            return WireFrame(*await self._socket.receive())


class VhostUserWire(_Probed):
    """Another port of the thing behind the device; a driver of its own plays the wire."""

    carries_header = False
    names_queue = True

    def __init__(self, target: str) -> None:
        self._target = target
        self._driver: Driver | None = None

    def describe(self) -> str:
        """What reports call it."""
        return self._target

    async def open(self) -> None:
        """Connect and negotiate; errors are those of `Driver`."""
        self._driver = drv = await Driver.connect(self._target, pairs=PAIRS)
        offered = Feature(await drv.transport.device_features())
        await drv.negotiate(offered & _WANTED)
        self.queues = drv.pairs

    async def aclose(self) -> None:
        """Hang up."""
        drv, self._driver = self._driver, None
        if drv is not None:
            await drv.aclose()

    async def send(self, frame: bytes, header: bytes | None = None, queue: int = 0) -> None:
        """Send into one transmitq of the other port."""
        self._check(queue, header)
        with _not_the_device():
            await self._open().send(frame, queue=queue)

    async def _next(self, within: float) -> WireFrame:
        with _not_the_device():
            frame = await self._open().receive(within)
        return WireFrame(frame.header.pack(), frame.data, frame.queue)

    def _open(self) -> Driver:
        if self._driver is None:
            raise UsageError(f"{self.describe()} is not open")
        return self._driver


@contextlib.contextmanager
def _not_the_device() -> Iterator[None]:
    """What goes wrong on the other port is not held against the one that is judged."""
    try:
        yield
    except (DeviceViolation, ConnectionError) as error:
        raise Inconclusive(f"the wire's own port: {str(error) or type(error).__name__}") from error


class ReflectWire(_Probed):
    """The device's own port, where somebody sends back what it gets.

    What is to come from the wire goes out through the driver first, and what the
    driver sends comes in again: both directions at once, so a fault of one shows
    in the cases of the other too.
    """

    carries_header = False
    names_queue = True

    def __init__(self) -> None:
        self._driver: Driver | None = None

    def describe(self) -> str:
        """What reports call it."""
        return REFLECT

    async def open(self) -> None:
        """Nothing: the driver of each case is the wire."""

    async def aclose(self) -> None:
        """Forget the driver."""
        self._driver = None

    async def begin(self, driver: Driver) -> None:
        """Send and receive through this driver from now on; probed once, for both ways."""
        self._driver = driver
        self.queues = driver.pairs
        await _heard(driver, driver.send)

    async def send(self, frame: bytes, header: bytes | None = None, queue: int = 0) -> None:
        """Have the driver send it."""
        self._check(queue, header)
        await self._through().send(frame, queue=queue)

    async def _next(self, within: float) -> WireFrame:
        frame = await self._through().receive(within)
        return WireFrame(frame.header.pack(), frame.data, frame.queue)

    def _through(self) -> Driver:
        if self._driver is None or not self._driver.queues:
            raise Inconclusive("there is no driver in operation to reflect through")
        return self._driver


def open_wire(name: str) -> Wire | None:
    """The wire of a name, not open yet; None for ``none``.

    Raises:
        UsageError: no wire is called so.
    """
    if name == NONE:
        return None
    if name == REFLECT:
        return ReflectWire()
    if name.startswith(TAP) and name != TAP:
        return TapWire(name.removeprefix(TAP))
    if name.startswith(SCHEME) and name != SCHEME:
        return VhostUserWire(name)
    raise UsageError(f"{name!r} is no wire: {NONE}, {TAP}NAME, {SCHEME}PATH or {REFLECT}")
