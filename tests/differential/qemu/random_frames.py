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
_CHAINED: Final = 200
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
    planned += [_chained(rng) for _ in range(_CHAINED)]
    rng.shuffle(planned)
    yield from planned
    for frame in planned:
        for _ in range(copies):
            yield _damaged(frame, rng)


def _chained(rng: random.Random) -> bytes:
    """A frame whose chain both walk alike, to ports they both see."""
    padding = frames.padn(rng.randrange(2, 12))
    chain = rng.choices(
        (
            frames.hop_by_hop(padding),
            frames.destination_options(padding),
            frames.destination_options(frames.home_address(rng.randbytes(16))),
            frames.routing_type2(rng.randbytes(16)),
            frames.extension(frames.MOBILITY, rng.randbytes(14)),
        ),
        k=rng.randrange(1, 4),
    )
    ip = frames.Ipv6(src=rng.randbytes(16), dst=rng.randbytes(16), extensions=chain)
    ports = rng.randrange(0x10000), rng.randrange(0x10000)
    return frames.build(ip, rng.choice((frames.tcp, frames.udp))(*ports)).data


def _damaged(frame: bytes, rng: random.Random) -> bytes:
    changed = bytearray(frame)
    reach = min(len(changed), 160)
    for _ in range(rng.randrange(1, 4)):
        changed[rng.randrange(12, reach)] = rng.choice((*_NUMBERS, rng.randrange(256)))
    if rng.random() < 0.2:
        del changed[rng.randrange(_ETHERNET, len(changed) + 1) :]
    return bytes(changed)
