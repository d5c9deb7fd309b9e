# SPDX-License-Identifier: MIT
"""Frames from the driver: "Packet Transmission"."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import case
from pyvnet.conformance.cases._bursts import (
    LONG,
    SINGLE,
    finished,
    judge_burst,
    wire_header,
)
from pyvnet.conformance.cases._rings import LARGEST, SMALLEST, flush, leaves, numbered
from pyvnet.spec.features import Feature
from pyvnet.spec.net_hdr import HDR_HASH_SIZE, NetHdr, header_size

if TYPE_CHECKING:
    from pyvnet.conformance.case import Case
    from pyvnet.conformance.cases._bursts import Burst
    from pyvnet.conformance.trial import Trial

UNKNOWN_FLAG: Final = 0x80  # of no feature of virtio 1.4
WORD: Final = 0xFFFF


@case("VIO-SPL-01", wire=True)
async def frames_of_every_size_are_sent_as_they_are(t: Trial) -> None:
    """From the least to the largest a frame reaches the wire byte by byte."""
    drv = await t.negotiate()
    for size in (SMALLEST, 61, 127, 128, 129, 512, 1000, LARGEST - 1, LARGEST):
        await drv.send(numbered(size, size))
        await leaves(t, numbered(size, size))
    await flush(t, drv)


@case("NET-TX-01", wire=True)
async def unknown_flags_are_ignored(t: Trial) -> None:
    """A flag nobody has defined changes nothing."""
    drv = await t.negotiate()
    await drv.send(numbered(1), header=NetHdr(flags=UNKNOWN_FLAG))
    await leaves(t, numbered(1))


@case("NET-TX-02", wire=True)
async def checksum_fields_are_dead_without_needs_csum(t: Trial) -> None:
    """csum_start and csum_offset, wild ones too, mean nothing without NEEDS_CSUM."""
    drv = await t.negotiate(t.offered & Feature.CSUM)
    for start, offset in ((14, 16), (0, 0), (WORD, WORD), (SMALLEST, 2)):
        for burst in SINGLE:
            await drv.send(burst.frame, header=NetHdr(csum_start=start, csum_offset=offset))
            await leaves(t, burst.frame)


@case("NET-TX-05", wire=True)
async def the_header_length_is_not_relied_on(t: Trial) -> None:
    """hdr_len of a frame that is not to be segmented means nothing."""
    drv = await t.negotiate()
    for length in (1, SMALLEST, SMALLEST + 1, WORD):
        await drv.send(numbered(length), header=NetHdr(hdr_len=length))
        await leaves(t, numbered(length))


@case("U-54", needs=Feature.HASH_REPORT, wire=True)
async def hash_fields_of_sent_frames_are_ignored(t: Trial) -> None:
    """With HASH_REPORT the last 8 bytes of the header may hold anything."""
    drv = await t.negotiate(Feature.HASH_REPORT)
    t.equal(header_size(drv.features), HDR_HASH_SIZE, "the header's size")
    for number, byte in enumerate((0xFF, 0x5A, 1)):
        header = NetHdr().pack(12) + bytes([byte]) * 8
        await drv.send(numbered(number), header=header)
        await leaves(t, numbered(number))


def _checksum_is_finished(burst: Burst) -> Case:
    @case(
        "VIO-FEAT-03", "NET-TX-02",
        needs=Feature.CSUM, wire=True, name=f"{burst.name.lower()}-checksums-are-finished",
        summary=f"With CSUM a {burst.name} frame with NEEDS_CSUM gets its checksum, here or later",
    )  # fmt: skip
    async def look(t: Trial) -> None:
        drv = await t.negotiate(Feature.CSUM)
        asked = burst.asked(segments=False)
        await drv.send(asked.frame, header=asked.header)
        seen = await t.sent()
        whole = finished(wire_header(seen.header), seen.data)
        t.equal(whole, burst.frame, f"the {burst.name} frame, finished")

    return look


CHECKSUMS: Final = [_checksum_is_finished(burst) for burst in SINGLE]


def _burst_is_segmented(burst: Burst) -> Case:
    @case(
        "VIO-FEAT-03", "NET-TX-05",
        needs=burst.host, wire=True, name=f"{burst.name.lower()}-bursts-are-segmented",
        summary=f"A {burst.name} burst is segmented, here or later, whatever hdr_len says",
    )  # fmt: skip
    async def look(t: Trial) -> None:
        drv = await t.negotiate(burst.host)
        asked = burst.asked(segments=True)

        async def following() -> tuple[NetHdr, bytes]:
            seen = await t.sent()
            return wire_header(seen.header), seen.data

        for length in (asked.header.hdr_len, 0, burst.head - 1, WORD):
            header = replace(asked.header, hdr_len=length)
            await drv.send(asked.frame, header=header)
            await judge_burst(t, burst, following)

    return look


BURSTS: Final = [_burst_is_segmented(burst) for burst in LONG]


@case("NET-TX-10", "NET-TX-02", needs=Feature.CSUM, wire=True)
async def nobody_vouches_for_a_checksum_the_driver_did_not_ask_for(t: Trial) -> None:
    """A frame without NEEDS_CSUM is sent with the checksum it has, the wrong one too."""
    drv = await t.negotiate(Feature.CSUM)
    for burst in SINGLE:
        wrong = burst.frame[:-1] + bytes([burst.frame[-1] ^ 0xFF])
        await drv.send(wrong)
        seen = await t.sent()
        t.equal(seen.data, wrong, f"the {burst.name} frame")
        t.check(not wire_header(seen.header).flags, f"{burst.name}: flags on the wire")


@case("VIO-FEAT-03", needs=Feature.MQ, wire=True)
async def every_transmitq_sends(t: Trial) -> None:
    """Frames of each transmitq reach the wire, one queue after another and in turn."""
    drv = await t.negotiate(Feature.MQ)
    for number in range(3 * drv.pairs):
        queue = number % drv.pairs
        await drv.send(numbered(number), queue=queue)
        await leaves(t, numbered(number), f"the frame of transmitq {queue}")
