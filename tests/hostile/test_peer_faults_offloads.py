# SPDX-License-Identifier: MIT
"""Offloads that were negotiated, asked for with lies (docs/peer-faults.md, sections C and G)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pyvnet.reference.offload import sent
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.testing import frames
from tests.datapath import offload_cases as cases
from tests.datapath.offload_cases import FRAMES, HOST, NEEDS_CSUM, fitting
from tests.hostile.forms import repeated, three_forms
from tests.hostile.rig import HDR, HDR_HASH, Rig
from tests.hostile.transmit import transmit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.datapath.native import Native

TCP = FRAMES["tcp4"]
NAMES = sorted(name for name in FRAMES if "KiB" not in name)


@pytest.fixture
def offloading(hooked: Native) -> Iterator[Rig]:
    """A victim whose driver negotiated every offload."""
    with Rig(hooked, host_offloads=HOST) as victim:
        yield victim


def corners(length: int) -> tuple[int, ...]:
    return length - 2, length - 1, length, length + 1, 0x7FFF, 0x8000, 0xFFFF


@repeated
@three_forms
@pytest.mark.parametrize("segmented", [True, False])
@pytest.mark.requirement("CVE-2024-11614", "OUR-TX-12")
def test_a_checksum_beyond_the_frame(
    offloading: Rig, variant: str, repeats: int, segmented: bool
) -> None:
    """Sums of start and offset are taken in 32 bits; the last that fits is passed on."""
    good = fitting(TCP) if segmented else NetHdr(NEEDS_CSUM, csum_start=34, csum_offset=16)
    for turn in range(repeats):
        at = corners(len(TCP))[turn % 7]
        far = corners(len(TCP) - 34)[turn // 7 % 7]
        header = (
            replace(good, csum_start=at, csum_offset=16),
            replace(good, csum_offset=far),
            replace(good, csum_start=at, csum_offset=far),
            replace(good, csum_start=0xFFFF, csum_offset=0xFFFF),
        )[turn % 4]
        expected = sent(header, TCP, HOST)
        if variant == "flip":
            # It fits when it is read; what it becomes is never seen.
            told = transmit(offloading, variant, [(good.pack() + TCP, ())], flip=(0, header.pack()))
            assert (told.frames, told.malformed) == ([TCP], 0)
            continue
        told = transmit(offloading, variant, [(header.pack() + TCP, ())])
        assert (told.frames, told.malformed) == (([], 1) if expected is None else ([TCP], 0))


@repeated
@three_forms
@pytest.mark.requirement("PF-C-06", "CVE-2024-11614")
def test_the_header_is_read_once(offloading: Rig, variant: str, repeats: int) -> None:
    """A good one that turns bad after it was read is sent as it was; a bad one stays bad."""
    for turn in range(repeats):
        bad = replace(fitting(TCP), csum_start=corners(len(TCP))[turn % 7], gso_type=turn % 2)
        good = NetHdr(NEEDS_CSUM, csum_start=34, csum_offset=16)
        told = transmit(offloading, variant, [(good.pack() + TCP, ())], flip=(0, bad.pack()))
        assert told.headers == [good]
        if sent(bad, TCP, HOST) is None:
            told = transmit(offloading, variant, [(bad.pack() + TCP, ())], flip=(0, good.pack()))
            assert (told.frames, told.malformed) == ([], 1)


# Other kinds, and a checksum where there is no TCP.
LIES = ((0, 34), (3, 34), (4, 34), (0x81, 36), (1, 0xFFFF))
# Where a TCP segment over IPv4 stops being one that can be cut.
SPOILED = (
    (12, b"\x86\xdd"),  # another EtherType
    (14, b"\x4f"),  # a longer IP header
    (20, b"\x20"),  # more fragments
    (23, b"\x11"),  # another protocol
    (46, b"\x40"),  # a TCP header that is too short
)


@repeated
@three_forms
@pytest.mark.requirement("CVE-2024-43817", "U-63")
def test_what_was_judged_is_what_is_sent(offloading: Rig, variant: str, repeats: int) -> None:
    """A frame that turns into another kind behind the check goes out as it was checked."""
    for turn in range(repeats):
        asked = fitting(TCP)
        where, what = SPOILED[turn % len(SPOILED)]
        told = transmit(offloading, variant, [(asked.pack() + TCP, ())], flip=(HDR + where, what))
        assert told.frames == [TCP]
        assert told.headers == [sent(asked, TCP, HOST)]
        if variant != "flip":
            wrong = TCP[:where] + what + TCP[where + len(what) :]
            told = transmit(offloading, variant, [(asked.pack() + wrong, ())])
            assert (told.frames, told.malformed) == ([], 1)


@repeated
@three_forms
@pytest.mark.requirement("CVE-2024-43817", "CVE-2024-3567", "OUR-TX-12")
def test_every_corner_of_a_header_over_every_kind_of_frame(
    hooked: Native, variant: str, repeats: int
) -> None:
    """Only what passes the check goes further, and says nothing but what the check found."""
    some = [(h, FRAMES[name]) for name in NAMES for h in cases.headers(FRAMES[name])]
    step = 30
    with Rig(hooked, host_offloads=HOST) as rig:
        for turn in range(max(repeats, 20)):
            batch = [some[(turn * 9973 + i * 389) % len(some)] for i in range(step)]
            if variant == "flip":
                header, frame = batch[0]
                told = transmit(rig, variant, [(bytes(HDR) + frame, ())], flip=(0, header.pack()))
                assert (told.frames, told.headers) == ([frame], [NetHdr()])
                continue
            told = transmit(rig, variant, [(h.pack() + frame, ()) for h, frame in batch])
            expected = [(sent(h, frame, HOST), frame) for h, frame in batch]
            passed = [(h, frame) for h, frame in expected if h is not None]
            assert list(zip(told.headers, told.frames, strict=True)) == passed
            assert told.malformed == step - len(passed)


# What the engine copies whole before it looks at it, header and all; and of a longer frame that
# is to be cut into segments, what it copies behind the header.
PAGE, LOOK = 2048, 256


def segment(size: int) -> bytes:
    """A frame of TCP over IPv4, so long."""
    empty = len(frames.build(frames.Ipv4(), frames.tcp()).data)
    data = bytes(range(251)) * (size // 251 + 1)
    return bytes(frames.build(frames.Ipv4(), frames.tcp(payload=data[: size - empty])))


@repeated
@three_forms
@pytest.mark.parametrize("header", [HDR, HDR_HASH])
@pytest.mark.requirement("CVE-2024-43817", "PF-C-06", "U-63")
def test_around_the_page_a_frame_is_copied_to(
    hooked: Native, variant: str, repeats: int, header: int
) -> None:
    """Up to its last byte what was judged is what is sent; a byte more, and its head is."""
    fits, beyond = segment(PAGE - header), segment(PAGE - header + 1)
    asked, plain = fitting(fits), NetHdr(NEEDS_CSUM, csum_start=34, csum_offset=16)
    lies = [(header + where, what) for where, what in SPOILED]
    lies += [(0, replace(asked, gso_type=gso, csum_start=start).pack(HDR)) for gso, start in LIES]
    with Rig(hooked, host_offloads=HOST, header_length=header) as rig:
        for turn in range(repeats):
            for data, last in ((fits, PAGE - 1), (beyond, header + LOOK - 1)):
                flip = (*lies, (last, b"\xee"), (last - 1, b"\xee\xee"))[turn % (len(lies) + 2)]
                head = (asked.pack(header), plain.pack(header))[turn % 7 == 0]
                # A frame that asks for no segments is looked at no further than its header.
                if data is beyond and head == plain.pack(header) and flip[0]:
                    flip = lies[-1]
                cuts = (header,) if turn % 3 else ()
                told = transmit(rig, variant, [(head + data, cuts)], flip=flip)
                assert told.frames == [data]
                assert told.headers == [sent(NetHdr.unpack(head), data, HOST)]


@repeated
@three_forms
@pytest.mark.requirement("CVE-2024-43817", "CVE-2024-11614", "OUR-TX-12")
def test_a_long_frame_that_lies_is_not_sent_whatever_it_turns_into(
    offloading: Rig, variant: str, repeats: int
) -> None:
    data = segment(4000)
    for turn in range(repeats):
        where, what = SPOILED[turn % len(SPOILED)]
        wrong = data[:where] + what + data[where + len(what) :]
        good = (HDR + where, data[where : where + len(what)])
        told = transmit(offloading, variant, [(fitting(data).pack() + wrong, ())], flip=good)
        assert (told.frames, told.malformed) == ([], 1)
