# SPDX-License-Identifier: MIT
"""Offloads that were negotiated, asked for with lies (docs/peer-faults.md, sections C and G)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pyvnet.reference.offload import sent
from pyvnet.spec.net_hdr import NetHdr
from tests.datapath import offload_cases as cases
from tests.datapath.offload_cases import FRAMES, HOST, NEEDS_CSUM, fitting
from tests.hostile.forms import repeated, three_forms
from tests.hostile.rig import HDR, Rig
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
