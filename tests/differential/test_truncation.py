# SPDX-License-Identifier: MIT
"""Cut anywhere, or made of anything: both readings agree, and a hash that was given stays.

The matrix bins truncation by header field; here every single byte of some
representative frames is a place to cut.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyvnet import reference
from pyvnet.spec.rss import ALL_HASH_TYPES, HashReport
from pyvnet.testing import frames
from tests.differential.samples import ANYTHING, CHAINS, FRAMES, chain_frame
from tests.differential.steered_frames import Hashing, Steered, steered_tap
from tests.differential.steered_tap import ETHERNET
from tests.differential.verdicts import Readers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def readers(vnet_seed: str) -> Iterator[Readers]:
    with Readers.random(random.Random(vnet_seed)) as readers:
        yield readers


@pytest.mark.requirement("U-20", "U-21", "U-22", "U-23", "U-24", "U-25", "U-29")
@pytest.mark.parametrize("types", [ALL_HASH_TYPES, 0x3F])
@pytest.mark.parametrize("name", FRAMES)
def test_cut_at_every_byte(readers: Readers, name: str, types: int) -> None:
    frame = FRAMES[name]
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
def test_the_steering_program_reads_cut_frames_as_both_do(vnet_random: random.Random) -> None:
    rng = vnet_random
    steered = Steered()
    for types, always in itertools.product((ALL_HASH_TYPES, 0x3F), (False, True)):
        hashing = Hashing(rng.randbytes(40), types, always)
        for frame in FRAMES.values():
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
    frame = FRAMES[name]
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


@pytest.mark.requirement("U-21", "U-24")
@settings(max_examples=1500, deadline=None)
@given(data=ANYTHING, types=st.integers(0, 0x1FF), always=st.booleans())
@example(data=b"", types=0x1FF, always=False)
def test_any_bytes(readers: Readers, data: bytes, types: int, always: bool) -> None:
    native = readers.native(data, types, ex_types_always=always)
    assert native == readers.reference(data, types, ex_types_always=always)


@pytest.mark.requirement("U-20", "U-21", "U-22")
@settings(max_examples=1500, deadline=None)
@given(chain=CHAINS, types=st.integers(0, 0x1FF), always=st.booleans())
def test_any_chain(
    readers: Readers, chain: list[tuple[int, int, bytes]], types: int, always: bool
) -> None:
    """Lengths that do not match what follows: the walk goes wherever the bytes lead it."""
    data = chain_frame(chain)
    native = readers.native(data, types, ex_types_always=always)
    assert native == readers.reference(data, types, ex_types_always=always)
