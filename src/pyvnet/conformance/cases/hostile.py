# SPDX-License-Identifier: MIT
"""Drivers that break the rules: whatever becomes of their ring, the device goes on.

These may bring a back-end down that was not written for them, and are off
unless asked for.  What the device makes of the ring is its own affair; it must
serve the next driver.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import Case, case
from pyvnet.conformance.cases._rings import (
    IDLE,
    PAUSE,
    comes_in,
    crosses,
    goes_out,
    head_of,
    numbered,
    scatter,
)
from pyvnet.conformance.trial import NoAnswerError
from pyvnet.driver.misbehave import Forger
from pyvnet.driver.offload import offload
from pyvnet.errors import PyvnetError
from pyvnet.spec.features import NO_FEATURES, Feature
from pyvnet.spec.net_hdr import GsoType, HdrFlag, NetHdr, header_size
from pyvnet.spec.status import DeviceStatus
from pyvnet.testing.frames import Ipv4, build, tcp

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Buffer, Driver

    Forge = Callable[[Forger, list[Buffer]], object]

INDIRECT: Final = Feature.INDIRECT_DESC

# What a driver may not build: name, what it is, features it takes, and how.
_CHAINS: Final[tuple[tuple[str, str, Feature, Forge], ...]] = (
    ("loops", "a chain that leads back to its head", NO_FEATURES, Forger.loop),
    ("next-out-of-range", "a next beyond the table", NO_FEATURES, Forger.next_out_of_range),
    ("unmapped-buffers", "a buffer outside guest memory", NO_FEATURES, Forger.unmapped),
    ("empty-buffers", "a descriptor of length 0", NO_FEATURES, Forger.zero_length),
    ("wrong-directions", "buffers of the wrong direction", NO_FEATURES, Forger.wrong_direction),
    ("nested-tables", "a table within a table", INDIRECT, Forger.nested_indirect),
    ("table-and-next", "INDIRECT and NEXT in one descriptor", INDIRECT, Forger.indirect_and_next),
    ("loops-in-tables", "a table that leads back to its start", INDIRECT, Forger.indirect_loop),
    (
        "next-out-of-tables", "a next beyond an indirect table", INDIRECT,
        Forger.indirect_next_out_of_range,
    ),
    ("unmapped-tables", "a table outside guest memory", INDIRECT, Forger.indirect_unmapped),
    ("empty-tables", "a table of 0 bytes", INDIRECT, lambda f, b: f.indirect_length(b, 0)),
    ("odd-tables", "a table of 17 bytes", INDIRECT, lambda f, b: f.indirect_length(b, 17)),
    (
        "huge-tables", "a table of 4 GiB", INDIRECT,
        lambda f, b: f.indirect_length(b, 0xFFFF_FFF0),
    ),
    (
        "heads-out-of-range", "a head beyond the table", NO_FEATURES,
        lambda f, _: f.stage_head(0xFFFF),
    ),
    (
        "indexes-too-far-ahead", "an avail.idx far ahead", NO_FEATURES,
        lambda f, _: f.move_avail_idx(999),
    ),
    (
        "indexes-gone-back", "an avail.idx that went back", NO_FEATURES,
        lambda f, _: f.move_avail_idx(-3),
    ),
)  # fmt: skip


async def _is_there(t: Trial, number: int) -> None:
    """Look that the next driver is served."""
    try:
        drv = await t.negotiate()
        await crosses(t, drv, number)
    except (NoAnswerError, ConnectionError) as error:
        t.fail(f"the back-end is gone: {error}")


async def _settle(t: Trial, drv: Driver, *, sending: bool) -> None:
    """Give the device a turn at what it was given, by the pair's other ring, which it may leave.

    Without it the next driver might come before anybody has looked.
    """
    with contextlib.suppress(PyvnetError, OSError):
        async with asyncio.timeout(min(IDLE, t.step / 4)):
            for number in (20, 21):
                await (goes_out if sending else comes_in)(t, drv, numbered(number))


def _is_survived(name: str, what: str, needs: Feature, forge: Forge) -> Case:
    @case(
        "VIO-SPL-17", needs=needs, wire=True, hostile=True,
        name=f"{name}-are-survived", summary=f"After {what}, either way, the next driver is served",
    )  # fmt: skip
    async def look(t: Trial) -> None:
        for number, writable in enumerate((False, True)):
            drv = await t.negotiate(needs, rx_buffers=0 if writable else None)
            queue = (drv.receiveqs if writable else drv.transmitqs)[0]
            message = head_of(drv) + numbered(number, 1500)
            pieces = scatter(drv, message, (20, 300), writable=writable)
            forge(Forger(queue.ring), pieces)
            queue.publish()
            queue.kick()
            if writable:
                await t.inject(numbered(number))
            await _settle(t, drv, sending=writable)
            await _is_there(t, 10 + number)

    return look


CHAINS: Final = [_is_survived(*row) for row in _CHAINS]


@case("VIO-STAT-03", wire=True, hostile=True)
async def a_device_that_needs_a_reset_says_so(t: Trial) -> None:
    """If a chain nobody can walk makes the device need a reset, a notification comes with it."""
    drv = await t.negotiate()
    pieces = scatter(drv, head_of(drv) + numbered(1, 1500), (20, 300))
    queue = drv.transmitqs[0]
    Forger(queue.ring).loop(pieces)
    queue.publish()
    queue.kick()
    try:
        async with asyncio.timeout(t.step / 2):
            while not await _needs_reset(drv):  # noqa: ASYNC110 (the notification is looked for)
                await asyncio.sleep(PAUSE)
    except (TimeoutError, ConnectionError):
        t.not_applicable("it goes on without a reset, or ends the connection")
    await t.notified(drv)


async def _needs_reset(drv: Driver) -> bool:
    return bool(await drv.transport.get_status() & DeviceStatus.DEVICE_NEEDS_RESET)


_TCP: Final = bytes(build(Ipv4(), tcp(payload=bytes(200))))
_END: Final = len(_TCP)
_SEGMENTED: Final = offload(_TCP, gso_size=100)

# Headers no driver may write: name, the header, the features negotiated, and the frame.
_HEADERS: Final[tuple[tuple[str, NetHdr, Feature], ...]] = (
    ("a-checksum-outside", NetHdr(HdrFlag.NEEDS_CSUM, csum_start=_END), Feature.CSUM),
    ("a-checksum-far-outside", NetHdr(HdrFlag.NEEDS_CSUM, csum_start=0xFFFF, csum_offset=0xFFFF),
     Feature.CSUM),
    ("a-checksum-nobody-agreed-on", offload(_TCP).header, NO_FEATURES),
    ("a-burst-nobody-agreed-on", _SEGMENTED.header, NO_FEATURES),
    ("a-burst-of-size-0", NetHdr(HdrFlag.NEEDS_CSUM, GsoType.TCPV4, 54, 0, 34, 16),
     Feature.HOST_TSO4),
    ("a-burst-without-checksum", NetHdr(0, GsoType.TCPV4, 54, 100), Feature.HOST_TSO4),
    ("a-burst-of-no-type", NetHdr(HdrFlag.NEEDS_CSUM, 0x1F, 54, 100, 34, 16), Feature.CSUM),
    ("a-burst-in-two-tunnels", NetHdr(HdrFlag.NEEDS_CSUM, GsoType.TCPV4 | 0x60, 54, 100, 34, 16),
     Feature.CSUM),
)  # fmt: skip


def _header_is_survived(name: str, header: NetHdr, needs: Feature) -> Case:
    @case(
        "OUR-TX-12", needs=needs, wire=True, hostile=True, level="OUR",
        name=f"{name}-is-not-sent",
        summary=f"{name.replace('-', ' ').capitalize()} is not sent as it is, the next frame is",
    )  # fmt: skip
    async def look(t: Trial) -> None:
        drv = await t.negotiate(needs)
        await drv.send(_TCP, header=header)
        await drv.send(numbered(1))
        seen = await t.sent()
        t.check(seen.data != _TCP or not any(seen.header[:2]), "it was sent, header and all")
        while seen.data != numbered(1):
            seen = await t.sent()

    return look


HEADERS: Final = [_header_is_survived(*row) for row in _HEADERS]


@case("OUR-TX-12", wire=True, hostile=True, level="OUR")
async def frames_shorter_than_their_header_are_dropped(t: Trial) -> None:
    """Chains of less than a header and an Ethernet header are given back and not sent."""
    drv = await t.negotiate()
    size = header_size(drv.features)
    queue = drv.transmitqs[0]
    for length in (1, size - 1, size, size + 1, size + 13):
        queue.ring.add(scatter(drv, bytes(length), ()), length.to_bytes(2))
        queue.publish()
    await drv.send(numbered(1))
    while (seen := (await t.sent()).data) != numbered(1):
        t.check(not seen, f"a frame of {len(seen)} bytes was sent")
    await drv.flush(0)
