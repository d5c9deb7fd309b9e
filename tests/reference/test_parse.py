# SPDX-License-Identifier: MIT
"""The IPv6 walk: which headers count, where it ends, what it finds on the way (U-20 to U-23)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyvnet.reference import parse
from tests.reference import frames as f

IPV6_END = 14 + 40


def chain_of(*headers: int) -> bytes:
    """A TCP packet behind empty extension headers of these kinds (each of 8 bytes)."""
    following = [*headers[1:], f.TCP]
    packed = b"".join(f.extension(next_header, bytes(6)) for next_header in following)
    return f.ipv6(headers[0], packed + f.L4)


@pytest.mark.requirement("U-20")
@pytest.mark.parametrize("kind", [f.HBH, f.RH, f.DSTOPTS, f.MH, f.HIP, f.SHIM6])
@pytest.mark.parametrize("units", [0, 1, 5])
def test_header_is_skipped_by_its_length_in_units_of_8(kind: int, units: int) -> None:
    flow = parse(f.ipv6(kind, f.extension(f.TCP, bytes(6 + 8 * units)) + f.L4))
    assert flow.has_extensions
    assert (flow.l4, flow.sport, flow.dport) == (6, 0x1122, 0x3344)


@pytest.mark.requirement("U-20")
@pytest.mark.parametrize("icv_words", [0, 1, 3, 8])
def test_authentication_header_counts_its_length_in_words_of_4(icv_words: int) -> None:
    flow = parse(f.ipv6(f.AH, f.authentication(f.UDP, icv_words) + f.L4))
    assert flow.has_extensions
    assert (flow.l4, flow.sport, flow.dport) == (17, 0x1122, 0x3344)


@pytest.mark.requirement("U-20")
@pytest.mark.parametrize("kind", [f.ESP, f.NONE, f.ICMPV6, f.SCTP, 253])
def test_other_next_headers_end_the_walk_and_are_no_extension(kind: int) -> None:
    alone = parse(f.ipv6(kind, f.extension(f.TCP) + f.L4))
    assert (alone.l3, alone.l4, alone.has_extensions) == (6, 0, False)
    behind = parse(f.ipv6(f.HBH, f.options(kind) + f.extension(f.TCP) + f.L4))
    assert (behind.l3, behind.l4, behind.has_extensions) == (6, 0, True)


@pytest.mark.requirement("U-21")
@pytest.mark.parametrize(("headers", "l4"), [(15, 6), (16, 6), (17, 0), (40, 0)])
def test_sixteen_headers_are_walked(headers: int, l4: int) -> None:
    flow = parse(chain_of(*[f.RH] * headers))
    assert flow.has_extensions
    assert flow.l4 == l4


@pytest.mark.requirement("U-21")
@pytest.mark.parametrize("kind", [f.HBH, f.DSTOPTS])
@pytest.mark.parametrize(("pads", "l4"), [(62, 6), (70, 0)])
def test_sixty_four_options_are_read_in_one_header(kind: int, pads: int, l4: int) -> None:
    flow = parse(f.ipv6(kind, f.extension(f.TCP, bytes(pads)) + f.L4))
    assert flow.has_extensions
    assert flow.l4 == l4


@pytest.mark.requirement("U-21")
@pytest.mark.parametrize(("last", "l4"), [(bytes.fromhex("000001020000"), 6), (bytes(6), 0)])
def test_options_are_summed_over_the_packet(last: bytes, l4: int) -> None:
    # 10 headers of 6 × Pad1, then Pad1, Pad1, PadN(2): 63 in all; or 6 × Pad1: 66.
    headers = [f.HBH, *[f.DSTOPTS] * 9]
    packed = b"".join(f.extension(f.DSTOPTS) for _ in headers) + f.extension(f.TCP, last)
    assert parse(f.ipv6(f.HBH, packed + f.L4)).l4 == l4


@pytest.mark.requirement("U-21", "U-22")
@pytest.mark.parametrize(("pads", "found"), [(63, True), (64, False)])
def test_home_address_is_the_last_option_counted_or_not_at_all(pads: int, found: bool) -> None:
    body = bytes(pads) + f.home_address()
    body += bytes(-(len(body) + 2) % 8)  # more Pad1, beyond the cap in any case
    flow = parse(f.ipv6(f.DSTOPTS, f.extension(f.TCP, body) + f.L4))
    assert flow.saddr_ex == (f.HOME if found else f.SRC6)
    assert flow.has_extensions


@pytest.mark.requirement("U-21")
def test_found_addresses_survive_a_chain_that_breaks_later() -> None:
    chain = f.options(f.RH, f.home_address()) + f.routing(f.HBH, f.VIA_RH2)
    flow = parse(f.ipv6(f.DSTOPTS, chain + bytes([f.TCP, 200])))
    assert (flow.l4, flow.has_extensions) == (0, True)
    assert (flow.saddr_ex, flow.daddr_ex) == (f.HOME, f.VIA_RH2)


@pytest.mark.requirement("U-21")
@pytest.mark.parametrize("kind", [f.HBH, f.RH, f.FRAG, f.AH, f.DSTOPTS, f.MH, f.HIP, f.SHIM6])
@pytest.mark.parametrize("present", [0, 1, 2, 7])
def test_header_cut_short_is_not_usable(kind: int, present: int) -> None:
    cut = f.extension(f.TCP)[:present]
    first = parse(f.ipv6(kind, cut))
    assert (first.l3, first.l4, first.has_extensions) == (6, 0, False)
    second = parse(f.ipv6(f.SHIM6, f.extension(kind) + cut))
    assert (second.l3, second.l4, second.has_extensions) == (6, 0, True)


@pytest.mark.requirement("U-21")
def test_length_beyond_the_frame_is_cut_short() -> None:
    flow = parse(f.ipv6(f.HBH, f.extension(f.TCP, bytes(6), length=255) + f.L4))
    assert (flow.l4, flow.has_extensions) == (0, False)


def filler(end: int, next_header: int) -> bytes:
    """Two headers without options, an AH first, that take an IPv6 packet to byte ``end``."""
    rest = end - IPV6_END
    first = f.authentication(f.MH, icv_words=1 if rest % 8 == 0 else 2)
    return first + f.extension(next_header, bytes(rest - len(first) - 2))


@pytest.mark.requirement("U-21")
@pytest.mark.parametrize(("end", "l4"), [(1018, 6), (1022, 0)])
def test_ports_count_up_to_byte_1024(end: int, l4: int) -> None:
    # Headers end at 2 modulo 4: ports at 1018 are inside, the next possible place is not.
    frame = f.ipv6(f.AH, filler(end, f.TCP) + f.L4 + bytes(500))
    assert frame[end : end + 4] == f.PORTS
    flow = parse(frame)
    assert (flow.l4, flow.has_extensions) == (l4, True)


@pytest.mark.requirement("U-21")
@pytest.mark.parametrize(("tags", "found"), [((), True), ((0x8100,), False)])
def test_header_counts_up_to_byte_1024(tags: tuple[int, ...], found: bool) -> None:
    # Without a tag the last header is bytes 998 to 1021; a tag moves its end to 1025.
    last = f.extension(f.TCP, f.home_address() + bytes(4))
    frame = f.ipv6(f.AH, filler(998, f.DSTOPTS) + last + f.L4, *tags)
    flow = parse(frame)
    assert flow.has_extensions
    assert flow.l4 == 0
    assert flow.saddr_ex == (f.HOME if found else f.SRC6)


@pytest.mark.requirement("U-23")
@pytest.mark.parametrize("offset_and_more", [0, 1, 8, 9])
def test_walk_ends_at_the_fragment_header(offset_and_more: int) -> None:
    before = f.options(f.FRAG, f.home_address())
    behind = f.routing(f.TCP, f.VIA_RH2)
    flow = parse(f.ipv6(f.DSTOPTS, before + f.fragment(f.RH, offset_and_more) + behind + f.L4))
    assert (flow.l4, flow.has_extensions, flow.why) == (0, True, "fragment")
    assert (flow.saddr_ex, flow.daddr_ex) == (f.HOME, f.DST6)


@pytest.mark.requirement("U-23")
def test_second_byte_of_a_fragment_header_is_no_length() -> None:
    header = bytes([f.TCP, 255]) + bytes(6)
    assert parse(f.ipv6(f.FRAG, header)).has_extensions


HAO = f.home_address()


@pytest.mark.requirement("U-22", "NET-HASH-07")
@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        pytest.param([f.options(f.TCP, HAO)], f.HOME, id="alone"),
        pytest.param([f.options(f.TCP, bytes(3), HAO)], f.HOME, id="behind Pad1"),
        pytest.param([f.options(f.TCP, b"\1\4\0\0\0\0", HAO)], f.HOME, id="behind PadN"),
        pytest.param([f.options(f.TCP, b"\x3e\2xx", HAO)], f.HOME, id="behind an unknown option"),
        pytest.param(
            [f.options(f.TCP, f.home_address(), f.home_address(f.OTHER_HOME))],
            f.HOME,
            id="first of two in a header wins",
        ),
        pytest.param(
            [
                f.options(f.DSTOPTS, f.home_address()),
                f.options(f.TCP, f.home_address(f.OTHER_HOME)),
            ],
            f.HOME,
            id="first of two headers wins",
        ),
        pytest.param(
            [f.options(f.TCP, f.home_address(f.OTHER_HOME[:15]), f.home_address())],
            f.HOME,
            id="an invalid one does not hide a valid one",
        ),
        pytest.param(
            [f.extension(f.DSTOPTS, HAO[:14]), f.options(f.TCP, HAO)],
            f.HOME,
            id="a malformed header does not hide the next",
        ),
        pytest.param([f.options(f.TCP, f.home_address(f.HOME[:15]))], f.SRC6, id="length 15"),
        pytest.param([f.options(f.TCP, f.home_address(f.HOME + b"\0"))], f.SRC6, id="length 17"),
        pytest.param([f.options(f.TCP, b"\xc9\0")], f.SRC6, id="length 0"),
        pytest.param([f.options(f.TCP, b"\x3e\x14", HAO)], f.SRC6, id="inside another option"),
        pytest.param(
            [f.extension(f.TCP, HAO[:14])], f.SRC6, id="reaching beyond the header: malformed"
        ),
        pytest.param(
            [f.extension(f.TCP, bytes(5) + b"\xc9")], f.SRC6, id="without a length byte: malformed"
        ),
        pytest.param(
            [f.extension(f.TCP, b"\x3e\xff" + bytes(2) + HAO)],
            f.SRC6,
            id="behind a malformed option",
        ),
    ],
)
def test_home_address(chain: list[bytes], expected: bytes) -> None:
    flow = parse(f.ipv6(f.DSTOPTS, b"".join(chain) + f.L4))
    assert flow.saddr_ex == expected
    assert (flow.saddr, flow.daddr_ex) == (f.SRC6, f.DST6)
    assert (flow.l4, flow.has_extensions) == (6, True)


@pytest.mark.requirement("U-22")
def test_home_address_in_hop_by_hop_options_is_none() -> None:
    flow = parse(f.ipv6(f.HBH, f.options(f.TCP, f.home_address()) + f.L4))
    assert flow.saddr_ex == f.SRC6


@pytest.mark.requirement("U-22", "NET-HASH-07")
@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        pytest.param([f.routing(f.TCP, f.VIA_RH2)], f.VIA_RH2, id="alone"),
        pytest.param(
            [f.routing(f.RH, f.VIA_RH2), f.routing(f.TCP, f.OTHER_RH2)],
            f.VIA_RH2,
            id="first of two wins",
        ),
        pytest.param(
            [f.routing(f.RH, f.OTHER_RH2, segments_left=0), f.routing(f.TCP, f.VIA_RH2)],
            f.VIA_RH2,
            id="an invalid one does not hide a valid one",
        ),
        pytest.param([f.routing(f.TCP, f.VIA_RH2, kind=0)], f.DST6, id="type 0"),
        pytest.param([f.routing(f.TCP, f.VIA_RH2, kind=4)], f.DST6, id="type 4"),
        pytest.param([f.routing(f.TCP, f.VIA_RH2, segments_left=0)], f.DST6, id="0 segments left"),
        pytest.param([f.routing(f.TCP, f.VIA_RH2, segments_left=2)], f.DST6, id="2 segments left"),
        pytest.param([f.routing(f.TCP, f.VIA_RH2 + bytes(8))], f.DST6, id="length 3"),
        pytest.param([f.routing(f.TCP, f.VIA_RH2[:8])], f.DST6, id="length 1"),
    ],
)
def test_type_2_routing_header(chain: list[bytes], expected: bytes) -> None:
    flow = parse(f.ipv6(f.RH, b"".join(chain) + f.L4))
    assert flow.daddr_ex == expected
    assert (flow.daddr, flow.saddr_ex) == (f.DST6, f.SRC6)
    assert (flow.l4, flow.has_extensions) == (6, True)


@pytest.mark.requirement("U-25")
def test_flow_of_a_tagged_frame() -> None:
    flow = parse(f.ipv4(f.UDP, f.L4, 0x88A8, 0x8100))
    assert (flow.l3, flow.l4, flow.vlan_count, flow.ethertype) == (4, 17, 2, 0x0800)
    assert (flow.saddr, flow.daddr) == (f.SRC4, f.DST4)
    assert (flow.saddr_ex, flow.daddr_ex) == (f.SRC4, f.DST4)
    assert (flow.sport, flow.dport, flow.why) == (0x1122, 0x3344, "")
    assert not flow.has_extensions


@pytest.mark.requirement("U-21", "U-24", "U-26")
@given(
    head=st.sampled_from([b"", f.ipv4(f.TCP, b""), f.ipv6(f.DSTOPTS, b""), f.ipv6(f.HBH, b"")]),
    tail=st.binary(max_size=200),
)
@example(head=f.ipv6(f.HBH, b""), tail=bytes(2000))
def test_invariant_any_bytes_have_a_flow_with_addresses_of_its_version(
    head: bytes, tail: bytes
) -> None:
    flow = parse(head + tail)
    size = {0: 0, 4: 4, 6: 16}[flow.l3]
    addresses = (flow.saddr, flow.daddr, flow.saddr_ex, flow.daddr_ex)
    assert {len(address) for address in addresses} == {size}
    assert flow.l4 in ((0, 6, 17) if flow.l3 else (0,))
    assert (flow.why == "") == (flow.l4 != 0)


@pytest.mark.requirement("U-24")
@pytest.mark.parametrize(
    "frame",
    [
        f.ipv4(f.UDP, f.L4, 0x8100, ihl=7),
        f.ipv6(f.DSTOPTS, f.options(f.RH, HAO) + f.routing(f.TCP, f.VIA_RH2) + f.L4),
    ],
)
def test_invariant_cutting_a_frame_only_takes_away(frame: bytes) -> None:
    whole = parse(frame)
    for size in range(len(frame)):
        cut = parse(frame[:size])
        assert cut.l3 in (0, whole.l3)
        assert cut.l4 in (0, whole.l4)
        assert cut.saddr in (b"", whole.saddr)
        assert cut.saddr_ex in (b"", whole.saddr, whole.saddr_ex)
        assert cut.daddr_ex in (b"", whole.daddr, whole.daddr_ex)
