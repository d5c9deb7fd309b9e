# SPDX-License-Identifier: MIT
"""The other side of the device: where frames come from and go to.

A wire belongs to a target for a whole run, or to one device.  What is read
from it may be late or somebody else's: cases look at frames they can tell
from others, and never at how many there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from pyvnet.driver import Driver


class WireFrame(NamedTuple):
    """What the device put on the wire.

    Attributes:
        header: ``struct virtio_net_hdr_v1`` as it was, 12 bytes; empty where wires carry none.
        data: the frame.
        queue: of the host port it came out of; 0 where wires have one.
    """

    header: bytes
    data: bytes
    queue: int = 0


class Wire(Protocol):
    """Frames in and out, behind the device."""

    @property
    def carries_header(self) -> bool:
        """Whether a virtio header crosses with the frame, so that GSO frames cross whole."""
        ...

    @property
    def queues(self) -> int:
        """Queues frames can be sent into."""
        ...

    @property
    def names_queue(self) -> bool:
        """Whether `send` decides which of them, so that automatic steering cannot be judged."""
        ...

    def describe(self) -> str:
        """What reports call it."""
        ...

    async def open(self) -> None:
        """Get ready; once per run.  Raises HostError or UsageError when it cannot be."""
        ...

    async def aclose(self) -> None:
        """Let go; harmless twice."""
        ...

    async def begin(self, driver: Driver) -> None:
        """A driver of a case that needs the wire reached DRIVER_OK.

        Return when frames cross, and frames of the case before cannot come any more;
        the driver is for wires that go through it.
        """
        ...

    async def send(self, frame: bytes, header: bytes | None = None, queue: int = 0) -> None:
        """Send a frame towards the driver; ``header`` None is one of zeros.

        Raises:
            NotApplicable: a header, or a queue, this wire cannot carry.
        """
        ...

    async def receive(self, within: float) -> WireFrame:
        """Wait for the next frame the driver sent.

        Raises:
            TimeoutError: none came within so many seconds.
        """
        ...
