# SPDX-License-Identifier: MIT
"""What drivers put in front of, or instead of, a frame (docs/peer-faults.md, sections C and G)."""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING

import pytest

from pyvnet.spec.net_hdr import NetHdr
from pyvnet.testing import frames as build
from tests.hostile.forms import repeated, three_forms
from tests.hostile.rig import HDR, HDR_HASH, ROOT, Rig, frame
from tests.hostile.transmit import transmit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.datapath.native import Native

NEEDS_CSUM, DATA_VALID = 1, 2
GSO_NONE, GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4, GSO_ECN = 0, 1, 3, 4, 5, 0x80
DATA = frame(5)


def cuts_of(header: int) -> Iterator[tuple[int, ...]]:
    """A header in 1 … 12 pieces, of one size or of sizes that grow."""
    for pieces in range(1, 13):
        equal = tuple(header * i // pieces for i in range(1, pieces + 1))
        yield tuple(dict.fromkeys(equal))
        grown = [sum(range(1, i + 1)) for i in range(1, pieces)]
        yield (*(cut for cut in grown if cut < header), header)
    yield tuple(range(1, header + 1))


@repeated
@three_forms
@pytest.mark.parametrize("header", [HDR, HDR_HASH])
@pytest.mark.requirement("CVE-2022-2132", "VIO-SPL-01", "U-54")
def test_a_header_in_pieces(hooked: Native, header: int, variant: str, repeats: int) -> None:
    cuts = list(cuts_of(header))
    with Rig(hooked, header_length=header) as rig:
        for turn in range(repeats):
            # What the driver leaves in num_buffers and the hash fields ends with us.
            head = bytes(10) + b"\xee" * (header - 10)
            where = cuts[turn % len(cuts)]
            flip = (turn % 10, b"\xff") if len(where) == 1 else (0, b"\xff")
            sent = transmit(rig, variant, [(head + DATA, where)], flip=flip)
            assert sent.frames == [DATA]
            assert sent.malformed == 0


@repeated
@three_forms
@pytest.mark.parametrize("header", [HDR, HDR_HASH])
@pytest.mark.requirement("PF-C-03", "CVE-2022-2132", "CVE-2024-41090", "OUR-TX-12")
def test_less_than_a_header_and_an_ethernet_header(
    hooked: Native, header: int, variant: str, repeats: int
) -> None:
    with Rig(hooked, header_length=header) as rig:
        for turn in range(repeats):
            length = turn % (header + 14)  # 0 … header + 13
            cuts = (tuple(range(1, length)), (), (length // 2,))[turn % 3 if length > 1 else 1]
            short = (bytes(header) + DATA)[:length]
            flip = (0, b"\x01") if length >= header else None
            sent = transmit(rig, "static" if variant == "flip" else variant, [(short, cuts)])
            assert sent.frames == []
            assert sent.malformed == 1
            if variant == "flip" and flip:
                sent = transmit(rig, variant, [(bytes(header) + DATA, cuts)], flip=flip)
                assert sent.frames == [DATA]


@three_forms
@pytest.mark.requirement("CVE-2026-46320", "CVE-2024-41090")
def test_ten_thousand_frames_shorter_than_an_ethernet_header(rig: Rig, variant: str) -> None:
    before = rig.engine.statistics(0)
    total = 0
    while total < 10_000:
        count = min(60, 10_000 - total)
        chains = [(bytes(HDR + (total + i) % 14), ()) for i in range(count)]
        sent = transmit(rig, variant, chains)
        assert sent.frames == []
        total += count
    after = rig.engine.statistics(0)
    assert after.tx_drop_malformed - before.tx_drop_malformed == 10_000
    assert after.tx_packets == before.tx_packets


CORNERS = (0, 1, 13, 14, len(DATA) - 1, len(DATA), len(DATA) + 1, 0x7FFF, 0x8000, 0xFFFF)
# Every one asks for an offload that was not negotiated.
OFFLOADS = [
    NetHdr(flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)
    for flags, gso_type in (
        *product((NEEDS_CSUM, NEEDS_CSUM | DATA_VALID), (GSO_NONE, GSO_TCPV4, GSO_UDP)),
        *product((0, DATA_VALID, 0xFE), (GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4, 2, 0xFF)),
        *product((0, NEEDS_CSUM), (GSO_ECN, GSO_ECN | GSO_TCPV4, GSO_ECN | GSO_TCPV6, 0x20, 0x40)),
    )
    for csum_start, csum_offset in ((0, 0), *zip(CORNERS, reversed(CORNERS), strict=True))
    for hdr_len, gso_size in ((0, 0), (0xFFFF, 1), (1, 0xFFFF), (54, 1460))
]


@repeated
@three_forms
@pytest.mark.requirement("CVE-2024-43817", "CVE-2024-11614", "OUR-TX-12", "NET-TX-05")
def test_offloads_nobody_negotiated(rig: Rig, variant: str, repeats: int) -> None:
    """No header that asks for one reaches the port, whatever its other fields say."""
    rounds = max(repeats, -(-len(OFFLOADS) // 30))
    for turn in range(rounds):
        some = [OFFLOADS[(turn * 30 + i) % len(OFFLOADS)] for i in range(30)]
        if variant == "flip":
            # A harmless header that asks once it has been read: what was read counts.
            chains = [(bytes(HDR) + DATA, ())]
            sent = transmit(rig, variant, chains, flip=(0, some[turn % 30].pack()))
            assert sent.frames == [DATA]
            continue
        sent = transmit(rig, variant, [(header.pack() + DATA, ()) for header in some])
        assert sent.frames == []
        assert sent.malformed == len(some)


@repeated
@three_forms
@pytest.mark.requirement("PF-C-06", "CVE-2024-11614", "NET-TX-02", "NET-TX-01")
def test_a_header_is_judged_as_it_was_copied(rig: Rig, variant: str, repeats: int) -> None:
    """Dead fields stay dead, a bad header stays bad: neither is looked at again."""
    for turn in range(repeats):
        dead = NetHdr(0xFC & ~NEEDS_CSUM, 0, 0xFFFF, 0xFFFF, CORNERS[turn % 10], 0xFFFF, 0xFFFF)
        bad = NetHdr(NEEDS_CSUM, 0, 0, 0, CORNERS[turn % 10], 0xFFFF)
        cuts = (turn % HDR,) if turn % HDR else ()
        sent = transmit(rig, variant, [(dead.pack() + DATA, cuts)], flip=(0, b"\x01"))
        assert (sent.frames, sent.malformed) == ([DATA], 0)
        sent = transmit(rig, variant, [(bad.pack() + DATA, cuts)], flip=(0, b"\x00"))
        assert (sent.frames, sent.malformed) == ([], 1)


STRANGE = (
    build.build(build.Ipv4("192.0.2.1", "192.0.2.2", more_fragments=True), build.udp(1, 2)).data,
    build.build(build.Ipv4("192.0.2.1", "192.0.2.2", offset=185), build.tcp(1, 2)).data,
    build.build(build.Ipv4("192.0.2.1", "192.0.2.2"), build.sctp(1, 2)).data,
    build.build(build.Ipv6(), build.udp(1, 2)).data[:40],
    build.ethernet(0x88CC, b"lldp").data,
    build.ethernet(0x1234).data,
    frame(0, 14),
)


@repeated
@three_forms
@pytest.mark.requirement("CVE-2024-3567", "OUR-TX-12")
def test_offloads_asked_for_frames_that_have_none(rig: Rig, variant: str, repeats: int) -> None:
    for turn in range(repeats):
        gso = NetHdr(NEEDS_CSUM, (GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4)[turn % 4], 54, 1)
        data = STRANGE[turn % len(STRANGE)]
        if variant == "flip":
            sent = transmit(rig, variant, [(bytes(HDR) + data, ())], flip=(0, gso.pack()))
            assert sent.frames == [data]
            continue
        sent = transmit(rig, variant, [(gso.pack() + data, ())])
        assert (sent.frames, sent.malformed) == ([], 1)


@pytest.mark.requirement("CVE-2024-3567")
def test_no_assertion_can_be_reached_from_input() -> None:
    """There is none but those of the compiler."""
    for source in sorted((ROOT / "native").rglob("*.[ch]")):
        if not {"fuzz", "count"}.isdisjoint(source.parts):  # programs of their own
            continue
        text = re.sub(r"/\*.*?\*/", "", source.read_text(), flags=re.DOTALL)
        assert not re.search(r"(?<!static_)\bassert\s*\(|\babort\s*\(|\bexit\s*\(", text), source
