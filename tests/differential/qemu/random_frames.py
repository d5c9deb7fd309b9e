# SPDX-License-Identifier: MIT
"""Frames of the coverage matrix in short, and copies of them with bytes changed or cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyvnet.testing import frames
from tests.differential.axes import AXES, HASHED, LIMITS, PORTS, Axes, Planner
from tests.differential.cases import build_case

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

# QEMU sees through few tags, so most frames have none or one it knows.
_TAGS: Final = ("0", "1 8100", "1 88a8", "2 mixed")
_PARTS: Final[tuple[Axes, ...]] = (
    AXES,
    *(
        {**axes, "vlan": _TAGS}
        for axes in (
            HASHED, PORTS, LIMITS["one header too many"], LIMITS["ports cut by the frame"],
            LIMITS["extension header cut"], LIMITS["IPv4 fragment"], LIMITS["end of the walk"],
        )
    ),
)  # fmt: skip
_TELLING: Final = 300
_ETHERNET: Final = 14
# Numbers that mean something to whoever walks a chain.
_NUMBERS: Final = (0, 1, 2, 5, 6, 16, 17, 43, 44, 50, 51, 59, 60, 135, 139, 140, 201)


def random_frames(rng: random.Random, copies: int) -> Iterator[bytes]:
    """Every pair of the matrix once, then ``copies`` damaged ones of each.

    None is shorter than an Ethernet header, which a packet socket would not send.
    """
    planned = []
    for axes in _PARTS:
        for plan in Planner(rng, axes, strict=axes is AXES).covering_array():
            frame = build_case(plan, rng).data
            if len(frame) >= _ETHERNET:
                planned.append(frame)
    planned += [_telling(rng) for _ in range(_TELLING)]
    rng.shuffle(planned)
    yield from planned
    for frame in planned:
        for _ in range(copies):
            yield _damaged(frame, rng)


def _telling(rng: random.Random) -> bytes:
    """A frame with ports both see behind a chain both walk, or with what few others have."""
    home = frames.destination_options(frames.home_address(rng.randbytes(16)))
    routing = frames.routing_type2(rng.randbytes(16))
    padding = frames.padn(rng.randrange(2, 12))
    l4 = rng.choice((frames.tcp, frames.udp))(rng.randrange(0x10000), rng.randrange(0x10000))
    ip: frames.Ipv4 | frames.Ipv6
    match rng.randrange(6):
        case 0:
            ip = frames.Ipv4(src=rng.randbytes(4), ihl=rng.randrange(5))
        case 1:
            behind = rng.choice((home, routing))
            ip = frames.Ipv6(extensions=[frames.fragment_header(), behind])
        case _:
            known = (
                frames.hop_by_hop(padding), frames.destination_options(padding), home, routing,
                frames.extension(frames.MOBILITY, rng.randbytes(14)),
            )  # fmt: skip
            chain = rng.choices(known, k=rng.randrange(1, 4))
            ip = frames.Ipv6(src=rng.randbytes(16), dst=rng.randbytes(16), extensions=chain)
    return frames.build(ip, l4, checksums=False).data


def _damaged(frame: bytes, rng: random.Random) -> bytes:
    changed = bytearray(frame)
    reach = min(len(changed), 160)
    for _ in range(rng.randrange(1, 4)):
        changed[rng.randrange(12, reach)] = rng.choice((*_NUMBERS, rng.randrange(256)))
    if rng.random() < 0.2:
        del changed[rng.randrange(_ETHERNET, len(changed) + 1) :]
    return bytes(changed)
