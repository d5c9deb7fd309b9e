# SPDX-License-Identifier: MIT
"""Options for the headers of a planned chain, exact in number, home addresses among them."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING

from pyvnet.testing import frames
from tests.differential.axes import OPTION_CAP, OPTION_HEADERS

if TYPE_CHECKING:
    from tests.differential.axes import Plan


def deal_options(plan: Plan, names: list[str], rng: random.Random) -> dict[int, bytes]:
    """Body of each option header of the chain, by its place."""
    places = [at for at, name in enumerate(names) if name in OPTION_HEADERS]
    if not places:
        return {}
    homes = _deal_homes(plan["home"], names, rng)
    counts = {at: 1 + len(homes[at]) for at in places}
    caps = {"cap-1": OPTION_CAP - 1, "cap": OPTION_CAP, "cap+1": OPTION_CAP + 1,
            "cap, then malformed": OPTION_CAP}  # fmt: skip
    total = caps.get(plan["options"], rng.randint(1, 6))
    # One header may take them all, or all of them share.
    takers = places if rng.random() < 0.5 else [rng.choice(places)]
    for at in rng.choices(takers, k=max(0, total - sum(counts.values()))):
        counts[at] += 1
    broken = None
    place = "last" if rng.random() < 0.3 else "behind homes"
    if plan["options"] == "malformed":
        broken = rng.choice(places)
    if plan["options"] == "cap, then malformed":
        broken, place = places[-1], "last"
    if plan["home"] == "behind malformed":
        broken, place = next(at for at in places if homes[at]), "before homes"
    return {
        at: b"".join(
            _broken_options(counts[at], homes[at], place, rng)
            if at == broken
            else _options(counts[at], homes[at], 0, rng)
        )
        for at in places
    }


def _deal_homes(home: str, names: list[str], rng: random.Random) -> dict[int, list[bytes]]:
    homes: dict[int, list[bytes]] = defaultdict(list)
    wanted = {
        "no": (), "bad length": ("bad",), "two valid": ("good", "good"),
        "bad, valid": ("bad", "good"),
    }.get(home, ("good",))  # fmt: skip
    kind = "hopopts" if home == "in hopopts" else "dstopts"
    places = [at for at, name in enumerate(names) if name == kind]
    chosen = sorted(rng.choice(places) for _ in wanted)
    for at, quality in zip(chosen, wanted, strict=True):
        size = 16 if quality == "good" else rng.choice((0, 4, 15, 17, 20))
        homes[at].append(frames.option(frames.OPTION_HOME_ADDRESS, _data(size, rng)))
    return homes


def _options(count: int, homes: list[bytes], extra: int, rng: random.Random) -> list[bytes]:
    """``count`` options that, with ``extra`` bytes, fill a header to a multiple of 8.

    One of them is made as long as that takes.
    """
    largest = 8 if count < 16 else 3
    options = rng.choices(_pool(largest), k=count - len(homes) - 1)
    stretch = rng.randrange(len(options) + 1)
    missing = -(2 + extra + sum(map(len, options)) + sum(map(len, homes))) % 8
    data = bytes((missing or 8) - 2) if missing != 1 else b""
    options.insert(
        stretch, frames.PAD1 if missing == 1 else frames.option(rng.randrange(1, 200), data)
    )
    # Home addresses last to first, so that they keep their order.
    end = len(options)
    for home in reversed(homes):
        end = rng.randrange(end + 1)
        options.insert(end, home)
    return options


def _broken_options(count: int, homes: list[bytes], place: str, rng: random.Random) -> list[bytes]:
    """``count`` well-formed options and a malformed one at its ``place``."""
    if place == "last" and rng.random() < 0.3:
        # A type without a length.
        return [*_options(count, homes, 1, rng), bytes([rng.randrange(1, 256)])]
    data = _data(rng.randrange(4), rng)
    options = _options(count, homes, 2 + len(data), rng)
    found = [at for at, option in enumerate(options) if option in homes]
    at = {
        "before homes": rng.randint(0, min(found, default=len(options))),
        "behind homes": rng.randint(max(found, default=-1) + 1, len(options)),
    }.get(place, len(options))
    left = len(data) + sum(map(len, options[at:]))
    kind, length = rng.randrange(1, 256), rng.randrange(left + 1, 256)
    if left < 16 and rng.random() < 0.5:
        kind, length = frames.OPTION_HOME_ADDRESS, 16  # as if the address went on behind
    options.insert(at, frames.option(kind, data, length=length))
    return options


def _data(size: int, rng: random.Random) -> bytes:
    """Bytes in which no home address option can be seen by accident."""
    return rng.randbytes(size).replace(bytes([frames.OPTION_HOME_ADDRESS]), b"\0")


@cache
def _pool(largest: int) -> tuple[bytes, ...]:
    """Options of all sorts but home addresses; drawing from a pool is quick."""
    rng = random.Random(largest)
    kinds = [kind for kind in range(1, 256) if kind != frames.OPTION_HOME_ADDRESS]
    tlvs = [frames.option(kind, _data(rng.randrange(largest), rng)) for kind in (*kinds, 1, 5, 5)]
    return (*tlvs, *[frames.PAD1] * (len(tlvs) // 2))
