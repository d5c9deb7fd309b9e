# SPDX-License-Identifier: MIT
"""Every set of hash types over every shape of packet that the choice depends on.

The choice is a function of the enabled types, the order in force and the shape: IP
version, L4 protocol, extension header or not.  There are few enough to try them all.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import pytest

from pyvnet import reference
from pyvnet.spec.rss import ALL_HASH_TYPES, HashReport, HashType
from pyvnet.testing import frames
from tests.differential.steered_frames import Hashing, Steered, steered_tap
from tests.differential.verdicts import Readers

if TYPE_CHECKING:
    import random

_L4: Final = {
    "tcp": frames.tcp(4711, 80),
    "udp": frames.udp(4711, 53),
    "other": frames.sctp(4711, 9),
}
_CHAIN: Final = (
    frames.destination_options(frames.home_address("2001:db8::aaaa")),
    frames.routing_type2("2001:db8::bbbb"),
)
SHAPES: Final = {
    **{f"v4 {name}": frames.build(frames.Ipv4(), l4) for name, l4 in _L4.items()},
    **{f"v6 {name}": frames.build(frames.Ipv6(), l4) for name, l4 in _L4.items()},
    **{
        f"v6 chain {name}": frames.build(frames.Ipv6(extensions=_CHAIN), l4)
        for name, l4 in _L4.items()
    },
}


@pytest.mark.requirement(
    "NET-HASH-05", "NET-HASH-06", "NET-HASH-07", "NET-HASH-08", "U-14", "U-19", "U-58"
)
@pytest.mark.parametrize("ex_types_always", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_readings_choose_the_same_type(
    shape: str, ex_types_always: bool, vnet_random: random.Random
) -> None:
    frame = bytes(SHAPES[shape])
    with Readers.random(vnet_random) as readers:
        for types in range(ALL_HASH_TYPES + 1):
            native = readers.native(frame, types, ex_types_always=ex_types_always)
            reference = readers.reference(frame, types, ex_types_always=ex_types_always)
            assert native == reference, f"{types:#x}"
            if native.report:
                assert types >> (native.report - 1) & 1


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_tap
@pytest.mark.requirement(
    "NET-HASH-05", "NET-HASH-06", "NET-HASH-07", "NET-HASH-08", "U-14", "U-19", "U-58"
)  # fmt: skip
def test_the_steering_program_chooses_the_same_type(vnet_random: random.Random) -> None:
    rng = vnet_random
    steered = Steered()
    for types, always in itertools.product(range(ALL_HASH_TYPES + 1), (False, True)):
        hashing = Hashing(rng.randbytes(40), types, always)
        for frame in SHAPES.values():
            hashed = reference.classify(frame.data, types, hashing.key, ex_types_always=always)
            steered.put(frame.data, hashing, hashed)
    with steered_tap() as (tap, told):
        complaints = list(itertools.islice(steered.send(tap, told), 10))
    assert not complaints, "\n".join(complaints)


PLAIN: Final = HashType.TCPV6 | HashType.UDPV6 | HashType.IPV6


@pytest.mark.requirement("NET-HASH-07", "U-19", "U-58")
@pytest.mark.parametrize(
    ("shape", "types", "literal", "always"),
    [
        ("v6 tcp", ALL_HASH_TYPES, HashReport.TCPV6, HashReport.TCPV6_EX),
        ("v6 udp", ALL_HASH_TYPES, HashReport.UDPV6, HashReport.UDPV6_EX),
        ("v6 other", ALL_HASH_TYPES, HashReport.IPV6, HashReport.IPV6_EX),
        ("v6 chain tcp", ALL_HASH_TYPES, HashReport.TCPV6_EX, HashReport.TCPV6_EX),
        ("v6 chain other", ALL_HASH_TYPES, HashReport.IPV6_EX, HashReport.IPV6_EX),
        ("v6 chain tcp", PLAIN | HashType.IP_EX, HashReport.IPV6_EX, HashReport.TCPV6),
        ("v6 chain udp", PLAIN | HashType.TCP_EX, HashReport.UDPV6, HashReport.UDPV6),
        ("v6 tcp", HashType.TCP_EX | HashType.IPV6, HashReport.IPV6, HashReport.TCPV6_EX),
        ("v6 tcp", HashType.IP_EX, HashReport.NONE, HashReport.IPV6_EX),
        ("v6 tcp", HashType.UDPV6, HashReport.NONE, HashReport.NONE),
        ("v4 tcp", HashType.UDPV4 | HashType.IPV4, HashReport.IPV4, HashReport.IPV4),
    ],
)
def test_the_order_is_the_decided_one(
    shape: str,
    types: HashType,
    literal: HashReport,
    always: HashReport,
    vnet_random: random.Random,
) -> None:
    frame = bytes(SHAPES[shape])
    with Readers.random(vnet_random) as readers:
        assert readers.native(frame, types).report == literal
        assert readers.native(frame, types, ex_types_always=True).report == always
