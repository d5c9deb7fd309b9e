# SPDX-License-Identifier: MIT
"""Cut anywhere, or made of anything: both readings agree, and a hash that was given stays.

The matrix bins truncation by header field; here every single byte of some
representative frames is a place to cut.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyvnet import reference
from pyvnet.spec.rss import ALL_HASH_TYPES, HashReport
from pyvnet.testing import frames
from tests.differential.steered_frames import Hashing, Steered, steered_tap
from tests.differential.steered_tap import ETHERNET
from tests.differential.verdicts import Readers

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOME: Final = frames.home_address("2001:db8::aaaa")
_WHOLE_CHAIN: Final = (
    frames.hop_by_hop(frames.option(5, b"\0\0"), frames.PAD1),
    frames.destination_options(frames.padn(4), _HOME),
    frames.routing_type2("2001:db8::bbbb"),
    frames.extension(frames.AH, bytes(22)),
    frames.extension(frames.MOBILITY, bytes(14)),
    frames.extension(frames.HIP, bytes(38)),
    frames.extension(frames.SHIM6),
)
_FRAMES: Final = {
    "v4 tcp": frames.build(frames.Ipv4(), frames.tcp(payload=b"data")),
    "v4 options udp": frames.build(frames.Ipv4(options=bytes(range(1, 41))), frames.udp()),
    "v4 two tags": frames.build(
        frames.Ipv4(), frames.tcp(), vlans=[frames.Vlan(5, tpid=0x88A8), frames.Vlan(6)]
    ),
    "v4 three tags": frames.build(frames.Ipv4(), frames.tcp(), vlans=[frames.Vlan(5)] * 3),
    "v4 fragment": frames.build(frames.Ipv4(more_fragments=True), frames.udp()),
    "v6 udp": frames.build(frames.Ipv6(), frames.udp(payload=b"data")),
    "v6 every header": frames.build(frames.Ipv6(extensions=_WHOLE_CHAIN), frames.tcp()),
    "v6 fragment": frames.build(
        frames.Ipv6(extensions=[*_WHOLE_CHAIN[:3], frames.fragment_header()]), frames.udp()
    ),
    "v6 window": frames.build(
        frames.Ipv6(extensions=[*_WHOLE_CHAIN, frames.extension(frames.HIP, bytes(750))]),
        frames.udp(),
    ),
    "arp": frames.ethernet(0x0806, bytes(28)),
}


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    with Readers.random(random.Random(24)) as readers:
        yield readers


@pytest.mark.requirement("U-20", "U-21", "U-22", "U-23", "U-24", "U-25", "U-29")
@pytest.mark.parametrize("types", [ALL_HASH_TYPES, 0x3F])
@pytest.mark.parametrize("name", _FRAMES)
def test_cut_at_every_byte(readers: Readers, name: str, types: int) -> None:
    frame = _FRAMES[name]
    for size in range(len(frame) + 1):
        data = frame.data[:size]
        for always in (False, True):
            native = readers.native(data, types, ex_types_always=always)
            reference = readers.reference(data, types, ex_types_always=always)
            assert native == reference, f"{size} bytes, cut in {frame.field_at(size)}"


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_tap
@pytest.mark.requirement("U-20", "U-21", "U-22", "U-23", "U-24", "U-25", "U-29")
def test_the_steering_program_reads_cut_frames_as_both_do() -> None:
    rng = random.Random(14)
    steered = Steered()
    for types, always in itertools.product((ALL_HASH_TYPES, 0x3F), (False, True)):
        hashing = Hashing(rng.randbytes(40), types, always)
        for frame in _FRAMES.values():
            for size in range(ETHERNET, len(frame) + 1):
                data = frame.data[:size]
                hashed = reference.classify(data, types, hashing.key, ex_types_always=always)
                steered.put(data, hashing, hashed)
    with steered_tap() as (tap, told):
        complaints = list(itertools.islice(steered.send(tap, told), 10))
    assert not complaints, "\n".join(complaints)


@pytest.mark.requirement("U-24")
@pytest.mark.parametrize("name", ["v4 tcp", "v4 options udp", "v6 udp", "v6 every header"])
def test_a_frame_needs_its_ports_for_an_l4_type(readers: Readers, name: str) -> None:
    frame = _FRAMES[name]
    l4 = "tcp" if "tcp.dport" in dict(frame.layout) else "udp"
    _, end = frame.span(f"{l4}.dport")
    whole = readers.native(frame.data, ALL_HASH_TYPES)
    assert readers.native(frame.data[:end], ALL_HASH_TYPES) == whole
    cut = readers.native(frame.data[: end - 1], ALL_HASH_TYPES)
    ip_types = {HashReport.IPV4, HashReport.IPV6, HashReport.IPV6_EX}
    assert cut.report in ip_types
    assert whole.report not in ip_types


@pytest.mark.requirement("U-26")
@pytest.mark.parametrize(
    "ethertype", [0, 46, 0x0600, 0x0806, 0x8035, 0x8847, 0x8848, 0x8863, 0x8864, 0x88CC, 0xFFFF]
)
def test_other_ethertypes_have_no_hash(readers: Readers, ethertype: int) -> None:
    """PPPoE, MPLS, LLC, ARP and unknown ones, even with an IP header inside."""
    inside = frames.build(frames.Ipv4(), frames.tcp()).data[14:]
    for vlans in ([], [frames.Vlan(1)]):
        data = frames.ethernet(ethertype, inside, vlans=vlans).data
        assert readers.native(data, ALL_HASH_TYPES).report == HashReport.NONE
        assert readers.reference(data, ALL_HASH_TYPES).report == HashReport.NONE


def _frame_of(ethertype: bytes, nibble: int, rest: bytes) -> bytes:
    """An Ethernet header and something that begins like IP."""
    return bytes(12) + ethertype + bytes([nibble]) + rest


_ANYTHING: Final = st.one_of(
    st.binary(max_size=160),
    st.builds(
        _frame_of,
        st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x81\x00\x00\x01\x86\xdd"]),
        st.sampled_from([0x45, 0x46, 0x4F, 0x60]),
        st.binary(max_size=160),
    ),
)
# Next headers near each other, so that chains form by themselves.
_CHAINS: Final = st.lists(
    st.tuples(
        st.sampled_from([0, 6, 17, 43, 44, 50, 51, 59, 60, 135, 139, 140]),
        st.integers(0, 4),
        st.binary(min_size=6, max_size=46),
    ),
    min_size=1,
    max_size=20,
)


@pytest.mark.requirement("U-21", "U-24")
@settings(max_examples=1500, deadline=None)
@given(data=_ANYTHING, types=st.integers(0, 0x1FF), always=st.booleans())
@example(data=b"", types=0x1FF, always=False)
def test_any_bytes(readers: Readers, data: bytes, types: int, always: bool) -> None:
    native = readers.native(data, types, ex_types_always=always)
    assert native == readers.reference(data, types, ex_types_always=always)


@pytest.mark.requirement("U-20", "U-21", "U-22")
@settings(max_examples=1500, deadline=None)
@given(chain=_CHAINS, types=st.integers(0, 0x1FF), always=st.booleans())
def test_any_chain(
    readers: Readers, chain: list[tuple[int, int, bytes]], types: int, always: bool
) -> None:
    """Lengths that do not match what follows: the walk goes wherever the bytes lead it."""
    headers = b"".join(bytes([kind, length]) + body for kind, length, body in chain)
    base = bytes([0x60, 0, 0, 0, 0, 0, chain[0][0], 64]) + bytes(range(32))
    data = bytes(12) + b"\x86\xdd" + base + headers
    native = readers.native(data, types, ex_types_always=always)
    assert native == readers.reference(data, types, ex_types_always=always)
