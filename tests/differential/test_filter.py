# SPDX-License-Identifier: MIT
"""The frame path's filter against the reference: random filters, frames made to hit and miss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from pyvnet.datapath.filter import Filter, FilterMode
from pyvnet.datapath.policy import Policy
from pyvnet.reference.filter import BROADCAST, Wanted, wants

if TYPE_CHECKING:
    import random

FILTERS: Final = 500
FRAMES: Final = 60
MAX: Final = 4096
SIZES: Final = (0, 0, 0, 1, 1, 2, 3, 8, 63, 64, 65, MAX - 1, MAX)
TPIDS: Final = (0x8100, 0x88A8, 0x9100, 0x9200, 0x0800)
CUTS: Final = (0, 1, 5, 6, 12, 13, 14, 15, 16, 17, 18)


def random_table(rng: random.Random, *, group: bool) -> tuple[bytes, ...]:
    """Addresses of a class; some share their first bytes, so that a search must look at all six."""
    count = rng.choice(SIZES)
    first = bytes([rng.choice((1, 0x33, 0xFF) if group else (0, 2, 0xFE))])
    stem = first + rng.randbytes(3)
    return tuple(
        stem + rng.randbytes(2) if rng.random() < 0.7 else first + rng.randbytes(5)
        for _ in range(count)
    )


def random_filter(rng: random.Random) -> tuple[Filter, Wanted]:
    """The same filter in both shapes."""
    on = {name: rng.random() < 0.25 for name in FilterMode.__members__}
    on["PROMISC"] = rng.random() < 0.05
    on["VLAN"] = rng.random() < 0.5
    unicast, multicast = (random_table(rng, group=group) for group in (False, True))
    # Tables hold what the driver gave, whatever list it was in (U-37).
    if rng.random() < 0.1:
        unicast = (*unicast[1:], b"\x01" + rng.randbytes(5))
    vlans = frozenset(rng.sample(range(4096), rng.choice((0, 1, 2, 64, 4000))))
    mac = b"\x02" + rng.randbytes(5)
    modes = sum(FilterMode[name] for name, value in on.items() if value)
    wanted = Wanted(
        promisc=on["PROMISC"],
        allmulti=on["ALLMULTI"],
        alluni=on["ALLUNI"],
        nomulti=on["NOMULTI"],
        nouni=on["NOUNI"],
        nobcast=on["NOBCAST"],
        mac=mac,
        unicast=frozenset(unicast),
        multicast=frozenset(multicast),
        unicast_overflow=on["UNI_OVERFLOW"],
        multicast_overflow=on["MULTI_OVERFLOW"],
        vlans=vlans if on["VLAN"] else None,
    )
    return Filter(modes, unicast, multicast, vlans, mac), wanted


def random_destination(rng: random.Random, rx_filter: Filter) -> bytes:
    table = rng.choice((rx_filter.unicast, rx_filter.multicast))
    choice = rng.randrange(8)
    if choice < 3 and table:
        address = rng.choice((min(table), max(table), rng.choice(table)))
        if choice == 0:  # a neighbour
            number = int.from_bytes(address, "big") + rng.choice((-1, 1, 256))
            return (number % (1 << 48)).to_bytes(6, "big")
        return address
    if choice == 3:
        return rx_filter.mac
    if choice == 4:
        return BROADCAST
    if choice == 5:
        return BROADCAST[:5] + b"\xfe"
    return rng.randbytes(6)


def random_frame(rng: random.Random, rx_filter: Filter) -> bytes:
    frame = random_destination(rng, rx_filter) + rng.randbytes(6)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        vids = (0, 1, 4095, rng.randrange(4096), *list(rx_filter.vlans)[:3])
        tci = rng.choice(vids) | rng.randrange(16) << 12
        frame += rng.choice(TPIDS).to_bytes(2, "big") + tci.to_bytes(2, "big")
    frame += b"\x08\x00" + rng.randbytes(46)
    return frame[: rng.choice(CUTS)] if rng.random() < 0.1 else frame


@pytest.mark.requirement(
    "NET-FLT-02", "NET-FLT-03", "NET-FLT-05", "NET-FLT-06", "NET-FLT-07", "NET-FLT-08",
    "NET-FLT-12", "NET-FLT-13", "NET-VLAN-01", "NET-VLAN-02", "NET-VLAN-03",
    "U-34", "U-35", "U-36",
)  # fmt: skip
def test_c_and_the_reference_agree_on_who_sees_what(vnet_random: random.Random) -> None:
    rng = vnet_random
    verdicts = {True: 0, False: 0}
    for _ in range(FILTERS):
        rx_filter, wanted = random_filter(rng)
        with Policy.create(mode="automatic", hash_types=0, key=b"", rx_filter=rx_filter) as policy:
            for _ in range(FRAMES):
                frame = random_frame(rng, rx_filter)
                expected = wants(wanted, frame)
                assert policy.passes(frame) is expected, (wanted, frame.hex())
                verdicts[expected] += 1
    assert min(verdicts.values()) > FILTERS * FRAMES // 5


@pytest.mark.requirement("U-36", "NET-FLT-12")
def test_every_address_of_a_full_table_is_found_and_its_neighbours_are_not(
    vnet_random: random.Random,
) -> None:
    rng = vnet_random
    stem = b"\x02\x00\x00"
    inside = [stem + (2 * i + 1).to_bytes(3, "big") for i in range(MAX)]
    rng.shuffle(inside)
    rx_filter = Filter(0, tuple(inside), tuple(b"\x03" + mac[1:] for mac in inside))
    with Policy.create(mode="automatic", hash_types=0, key=b"", rx_filter=rx_filter) as policy:
        for i in range(2 * MAX + 2):
            frame = stem + i.to_bytes(3, "big") + bytes(54)
            assert policy.passes(frame) is (i % 2 == 1 and i < 2 * MAX)
            assert policy.passes(b"\x03" + frame[1:]) is (i % 2 == 1 and i < 2 * MAX)
