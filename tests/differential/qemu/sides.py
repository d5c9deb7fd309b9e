# SPDX-License-Identifier: MIT
"""The same driver on two devices, ours and QEMU's, and what each makes of the same bytes."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet import Device, Feature, Pair
from tests.differential.qemu.machine import MAC, PAIRS, Machine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from pyvnet import Driver
    from pyvnet.driver.receive import Frame
    from tests.differential.qemu.steering import Placed

WITHIN: Final = 20.0  # a hang guard
# As many as QEMU's control queue has descriptors: our driver makes all queues alike.
QUEUE_SIZE: Final = 64
# Sent before any is received: all may come out of one queue, a long one in two buffers.
BATCH: Final = 48

HASHING: Final = (
    Feature.CTRL_VQ | Feature.HASH_REPORT | Feature.MRG_RXBUF | Feature.EVENT_IDX
    | Feature.INDIRECT_DESC | Feature.MAC | Feature.STATUS
)  # fmt: skip


class Seen(NamedTuple):
    """Report, value and queue of one frame as it was received."""

    report: int
    value: int
    queue: int


class Sides:
    """Both devices with a driver each.

    Attributes:
        ours: on our device, behind a pair port whose first queue everything is sent to.
        theirs: on QEMU's, behind a tap.
    """

    def __init__(self, ours: Driver, theirs: Driver, port: Pair, machine: Machine) -> None:
        self.ours = ours
        self.theirs = theirs
        self._port = port
        self._machine = machine

    async def negotiate(self, features: Feature) -> None:
        """Bring both to DRIVER_OK."""
        for driver in (self.ours, self.theirs):
            await driver.negotiate(features, queue_size=QUEUE_SIZE)

    async def exchange(self, frames: Sequence[bytes]) -> tuple[list[Seen], list[Seen]]:
        """Send frames to both; what ours and theirs make of each, in the order sent."""
        for frame in frames:
            self._machine.send(frame)
        for frame in frames:
            self._port.wire(0).send(frame)
        return await _collect(self.ours, frames), await _collect(self.theirs, frames)


async def _collect(driver: Driver, frames: Sequence[bytes]) -> list[Seen]:
    """As many frames as were sent; those of different queues come in any order."""
    came: dict[bytes, list[Frame]] = defaultdict(list)
    for _ in frames:
        frame = await driver.receive(WITHIN)
        came[frame.data].append(frame)
    for data in frames:
        assert came[data], f"this frame did not come: {data.hex()}"
    return [Seen(f.hash_report, f.hash_value, f.queue) for f in (came[d].pop() for d in frames)]


@asynccontextmanager
async def both_sides() -> AsyncIterator[Sides]:
    """Start them; nothing is negotiated yet."""
    async with AsyncExitStack() as stack:
        machine = await stack.enter_async_context(Machine())
        theirs = await stack.enter_async_context(machine.driver())
        port = Pair(PAIRS)
        device = await stack.enter_async_context(Device(netdev=port, mac=MAC, workers=1))
        ours = await stack.enter_async_context(device.driver())
        yield Sides(ours, theirs, port, machine)


@dataclass(slots=True)
class Tally:
    """Differences by their reasons, and what has none.

    Attributes:
        looks: comparisons made.
        apart: of them, those in which the two devices differ.
        because: differences by the decision that explains them; several may explain one.
        complaints: what was not foretold.
    """

    looks: int = 0
    apart: int = 0
    because: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)

    def frame(self, whose: str, seen: Seen, due: Placed, pairs: int, what: str) -> None:
        """Complain unless a frame came as foretold."""
        right = (
            seen.report == due.report
            and due.value in {None, seen.value}
            and due.queue in {None, seen.queue}
            and seen.queue < pairs
        )
        if not right:
            self.complaints.append(f"{whose}: due {due}, {seen}: {what}")

    def differ(self, ours: object, theirs: object, because: Iterable[str], what: str) -> None:
        """Count a comparison; a difference without a reason is a complaint."""
        self.looks += 1
        if ours == theirs:
            return
        self.apart += 1
        reasons = sorted(because)
        self.because.update(reasons)
        if not reasons:
            self.complaints.append(f"no decision says why: {ours} here, {theirs} there: {what}")

    def __str__(self) -> str:
        lines = [f"{self.looks} compared, {self.apart} differ"]
        lines += [f"  {number} {count}" for number, count in sorted(self.because.items())]
        return "\n".join(lines + self.complaints[:10])
