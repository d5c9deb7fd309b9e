# SPDX-License-Identifier: MIT
"""Frames towards the driver: "Setting Up Receive Buffers", "Processing of Incoming Packets".

What a device may never do is also looked for by the driver itself, in every
frame of every case: lengths, num_buffers, flags and types that were not agreed on.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import case
from pyvnet.conformance.cases._bursts import LONG, SINGLE, finished, judge_burst
from pyvnet.conformance.cases._rings import (
    LARGEST,
    SMALLEST,
    arrives,
    exceeds,
    numbered,
    scatter,
)
from pyvnet.driver.header_rules import GSO_ECN
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import HdrFlag, NetHdr, header_size

if TYPE_CHECKING:
    from pyvnet.conformance.case import Case
    from pyvnet.conformance.cases._bursts import Burst
    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver

SMALL_BUFFER: Final = 128
LEAST_BUFFER: Final = 1526  # what a driver without MRG_RXBUF has to offer
ODD_BUFFERS: Final = (100, 2048, 61, 333, 1000, 64, 20, 4000, 77, 21)
RUNTS: Final = (18, 19, 34, 59)
ETHERNET: Final = 14
AGAIN_AFTER: Final = 0.05  # seconds


@case("NET-RX-01", wire=True)
async def num_buffers_is_1_without_mergeable_buffers(t: Trial) -> None:
    """Without MRG_RXBUF a frame is in one buffer and num_buffers says so."""
    drv = await t.negotiate(mrg_rxbuf=False)
    for size in (SMALLEST, 333, LARGEST):
        await arrives(t, drv, numbered(size, size))


@case("NET-RX-03", "NET-RX-01", needs=Feature.HASH_REPORT, wire=True)
async def the_header_has_20_bytes_with_hash_report(t: Trial) -> None:
    """With HASH_REPORT 20 bytes precede the frame, with and without mergeable buffers."""
    for mergeable in (False, True):
        drv = await t.negotiate(Feature.HASH_REPORT, mrg_rxbuf=mergeable)
        for size in (SMALLEST, LARGEST):
            seen = await arrives(t, drv, numbered(size, size))
            t.equal(sum(seen.buffers), 20 + size, "used.len")


_MERGED: Final = ("NET-RX-01", "NET-RX-02", "NET-RX-03", "NET-RX-04")


@case(*_MERGED, needs=Feature.MRG_RXBUF, wire=True)
async def frames_spread_over_mergeable_buffers(t: Trial) -> None:
    """Around each multiple of the buffers' size: as many buffers as it takes, full but the last."""
    drv = await t.negotiate(rx_buffer_size=SMALL_BUFFER)
    header = header_size(drv.features)
    for buffers in (1, 2, 3, 7, 11):
        for size in (buffers * SMALL_BUFFER - header + by for by in (-1, 0, 1)):
            seen = await arrives(t, drv, numbered(size, size))
            expected = -(-(header + size) // SMALL_BUFFER)
            t.equal(len(seen.buffers), expected, f"buffers for a frame of {size} bytes")


@case(*_MERGED, needs=Feature.MRG_RXBUF, wire=True)
async def mergeable_buffers_may_differ_in_size(t: Trial) -> None:
    """A frame goes into whatever buffers come next, each filled to its own size."""
    drv = await t.negotiate(rx_buffers=0)
    for size in ODD_BUFFERS * 2:
        drv.add_receive_buffer(0, scatter(drv, bytes(size), (), writable=True))
    for number in range(len(ODD_BUFFERS)):
        await arrives(t, drv, numbered(number, SMALLEST + 97 * number))


@case("OUR-RX-20", "NET-RX-01", needs=Feature.MRG_RXBUF, wire=True, level="OUR")
async def no_frame_is_received_in_part(t: Trial) -> None:
    """A frame the buffers at hand do not hold waits for more or is dropped, but comes whole."""
    drv = await t.negotiate(rx_buffers=4, rx_buffer_size=SMALL_BUFFER)
    long, short = numbered(1, 1000), numbered(2)
    await t.inject(long)
    await t.inject(short)
    whole = {long, short}
    for number in range(2):  # its turns at the pair: it tries with too few
        whole.add(numbered(10 + number))  # it may come back, where the wire is one that reflects
        await drv.send(numbered(10 + number))
        with suppress(TimeoutError):
            seen = (await t.wire.receive(AGAIN_AFTER)).data
            t.check(seen in whole, "a part of a frame was received")
    with suppress(TimeoutError):
        t.check((await drv.receive(AGAIN_AFTER)).data in whole, "a part of a frame was received")
    for _ in range(16):
        drv.add_receive_buffer(0, scatter(drv, bytes(SMALL_BUFFER), (), writable=True))
    seen = long
    while seen == long:  # what was dropped is followed by what fits
        whole.add(last := numbered(100 + len(whole)))
        await t.inject(last)
        with suppress(TimeoutError):
            seen = (await drv.receive(AGAIN_AFTER)).data
        t.check(seen in whole, f"{len(seen)} bytes were received, which is no frame that was sent")


@case("OUR-RX-20", "NET-RX-01", wire=True, level="OUR")
async def frames_longer_than_their_buffer_are_not_received(t: Trial) -> None:
    """Without MRG_RXBUF a frame that one buffer does not hold is dropped, not cut or spread."""
    drv = await t.negotiate(mrg_rxbuf=False, rx_buffer_size=LEAST_BUFFER)
    await t.inject(numbered(1, LEAST_BUFFER))
    await arrives(t, drv, numbered(2))


@case("OUR-RX-21", wire=True)
async def runts_are_delivered_as_they_are(t: Trial) -> None:
    """Frames shorter than Ethernet has them arrive, or are padded with zeros to its least."""
    drv = await t.negotiate()
    for size in RUNTS:
        await t.inject(numbered(size, size))
        seen = (await t.receive(drv)).data
        t.equal(seen[:size], numbered(size, size), "the frame received")
        t.check(not any(seen[size:]), f"what follows a frame of {size} bytes: {seen[size:].hex()}")


@case("NET-CFG-06", needs=Feature.MTU, wire=True)
async def frames_as_large_as_the_mtu_pass(t: Trial) -> None:
    """With MTU negotiated frames of mtu and an Ethernet header cross either way."""
    drv = await t.negotiate(Feature.MTU)
    frame = numbered(1, drv.config.mtu + ETHERNET)
    await arrives(t, drv, frame)
    await drv.send(frame)
    t.equal((await t.sent()).data, frame, "the frame on the wire")


@case("NET-CFG-05", needs=Feature.MTU, wire=True)
async def larger_frames_than_the_mtu_are_not_handed_over(t: Trial) -> None:
    """With MTU negotiated no frame over mtu, an Ethernet header and two tags is received."""
    drv = await t.negotiate(Feature.MTU)
    exceeds(t, drv.config.mtu)
    await t.inject(numbered(1, drv.config.mtu + ETHERNET + 9))
    await arrives(t, drv, numbered(2), "the first frame received, one too large before it")


# --- work left to the driver ----------------------------------------------------------------


async def _inject(t: Trial, burst: Burst, *, segments: bool, ecn: bool = False) -> None:
    asked = burst.asked(segments=segments)
    header = asked.header
    if ecn:
        header = NetHdr(
            header.flags, header.gso_type | GSO_ECN, header.hdr_len, header.gso_size,
            header.csum_start, header.csum_offset,
        )  # fmt: skip
    await t.inject(asked.frame, header.pack())


@case("NET-RX-05", wire=True)
async def flags_are_0_without_guest_csum(t: Trial) -> None:
    """Without GUEST_CSUM a frame with an unfinished checksum comes with flags 0, or not at all."""
    drv = await t.negotiate()
    for burst in SINGLE:
        await _inject(t, burst, segments=False)
    await t.inject(numbered(1))
    while (seen := await t.receive(drv)).data != numbered(1):
        t.equal(seen.header.flags, 0, "flags")


@case("NET-RX-06", wire=True)
async def checksums_are_finished_without_guest_csum(t: Trial) -> None:
    """Without GUEST_CSUM a frame with an unfinished checksum arrives with the right one."""
    drv = await t.negotiate()
    for burst in SINGLE:
        await _inject(t, burst, segments=False)
        t.equal((await t.receive(drv)).data, burst.frame, f"the {burst.name} frame")


@case("NET-RX-11", "NET-RX-15", needs=Feature.GUEST_CSUM, wire=True)
async def unfinished_checksums_can_be_finished(t: Trial) -> None:
    """With GUEST_CSUM the header says how the checksum is finished, or it is right already."""
    drv = await t.negotiate(Feature.GUEST_CSUM)
    for burst in SINGLE:
        await _inject(t, burst, segments=False)
        seen = await t.receive(drv)
        t.equal(finished(seen.header, seen.data), burst.frame, f"the {burst.name} frame, finished")


@case("NET-RX-15", needs=Feature.GUEST_CSUM, wire=True)
async def wrong_checksums_are_not_called_valid(t: Trial) -> None:
    """DATA_VALID does not stand on a frame whose checksum is wrong."""
    drv = await t.negotiate(Feature.GUEST_CSUM)
    for burst in SINGLE:
        wrong = burst.frame[:-1] + bytes([burst.frame[-1] ^ 0xFF])
        await t.inject(wrong)
        seen = await t.receive(drv)
        t.equal(seen.data, wrong, f"the {burst.name} frame")
        t.check(not seen.header.flags & HdrFlag.DATA_VALID, f"{burst.name}: DATA_VALID is set")


@case("NET-RX-07", "NET-RX-08", wire=True)
async def bursts_nobody_agreed_on_are_not_handed_over(t: Trial) -> None:
    """Without guest GSO features a burst comes in segments or not at all."""
    drv = await t.negotiate(t.offered & Feature.GUEST_CSUM)
    for number, burst in enumerate(LONG):
        await _inject(t, burst, segments=True)
        await _nothing_but_segments(t, drv, burst, numbered(number))


async def _nothing_but_segments(t: Trial, drv: Driver, burst: Burst, last: bytes) -> None:
    """Look at what comes until a frame sent behind the burst does."""
    await t.inject(last)
    while (seen := await t.receive(drv)).data != last:
        t.equal(seen.header.gso_type, 0, f"gso_type of a {burst.name} frame")


def _bursts_are_handed_over(burst: Burst) -> Case:
    @case(
        "NET-RX-12", "NET-RX-14", "NET-RX-11",
        needs=burst.guest, wire=True, name=f"{burst.name.lower()}-bursts-come-with-their-size",
        summary=f"With the guest feature a {burst.name} burst says how it is segmented",
    )  # fmt: skip
    async def look(t: Trial) -> None:
        drv = await t.negotiate(burst.guest)
        await _inject(t, burst, segments=True)

        async def following() -> tuple[NetHdr, bytes]:
            seen = await t.receive(drv)
            return seen.header, seen.data

        await judge_burst(t, burst, following)

    return look


BURSTS: Final = [_bursts_are_handed_over(burst) for burst in LONG]


@case("NET-RX-10", needs=Feature.GUEST_TSO4, wire=True)
async def bursts_with_ecn_need_the_feature(t: Trial) -> None:
    """Without GUEST_ECN no burst is received that carries the ECN bit."""
    drv = await t.negotiate(Feature.GUEST_TSO4)
    await _inject(t, LONG[0], segments=True, ecn=True)
    await t.inject(numbered(1))
    while (seen := await t.receive(drv)).data != numbered(1):
        t.check(not seen.header.gso_type & GSO_ECN, "the ECN bit is set")


@case("NET-RX-10", needs=Feature.GUEST_TSO4 | Feature.GUEST_ECN, wire=True)
async def bursts_with_ecn_carry_the_bit(t: Trial) -> None:
    """With GUEST_ECN a burst with ECN that is handed over whole carries the bit."""
    drv = await t.negotiate(Feature.GUEST_TSO4 | Feature.GUEST_ECN)
    await _inject(t, LONG[0], segments=True, ecn=True)
    seen = await t.receive(drv)
    if seen.header.gso_type:
        t.check(seen.header.gso_type & GSO_ECN, f"gso_type is {seen.header.gso_type:#x}")
