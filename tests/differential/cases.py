# SPDX-License-Identifier: MIT
"""A plan of the coverage matrix made into a frame; what the plan leaves open is random."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pyvnet.spec.rss import ALL_HASH_TYPES, hash_types_from_names
from pyvnet.testing import frames
from tests.differential.axes import (
    ABSENT,
    CHAIN_LENGTHS,
    GROWABLE,
    OPTION_HEADERS,
    PLAIN_TYPES,
    POSITIONS,
    WINDOW,
    missing_headers,
    needs_odd_ah,
)
from tests.differential.options import deal_options

if TYPE_CHECKING:
    import random

    from tests.differential.axes import Plan

KIND_NUMBERS: Final = {name: kind for kind, name in frames.HEADER_NAMES.items()}
# Fill places no axis speaks of: neither options, nor fragments, nor an end of the walk.
FILLERS: Final = ("routing", "ah", "mobility", "hip", "shim6")
# All headers end 2 bytes off a multiple of 4.
_PORTS_CUT_END: Final = 1022


@dataclass(slots=True)
class Case:
    """A cut frame, what to hash it with, and what it was made of."""

    data: bytes
    hash_types: int
    ex_types_always: bool
    frame: frames.Frame
    ip: frames.Ipv4 | frames.Ipv6
    l4: frames.L4
    vlans: list[frames.Vlan]
    middle: int | None


def build_case(plan: Plan, rng: random.Random) -> Case:
    """A frame as planned."""
    vlans = _vlans(plan["vlan"], rng)
    l4 = _l4(plan, rng)
    middle = None
    ip: frames.Ipv4 | frames.Ipv6
    if plan["ip"] == "v4":
        ip = _ipv4(plan, rng)
    else:
        names = _chain(plan, rng)
        if plan["middle"] != ABSENT:
            places = [i for i in range(1, len(names) - 1) if names[i] == plan["middle"]]
            middle = rng.choice(places)
        ip = frames.Ipv6(
            src=rng.randbytes(16),
            dst=rng.randbytes(16),
            extensions=_extensions(plan, names, rng),
            version=6 if plan["version"] == "right" else _but(6, 16, rng),
            payload_length=_lie(rng),
        )
    frame = frames.build(ip, l4, vlans=vlans, checksums=False)
    return Case(
        data=frame.data[: _cut(plan, frame, rng)],
        hash_types=_hash_types(plan["types"], rng),
        ex_types_always=plan["order"] != "literal",
        frame=frame, ip=ip, l4=l4, vlans=vlans, middle=middle,
    )  # fmt: skip


def _lie(rng: random.Random) -> int | None:
    """A length field no one may believe, now and then."""
    return rng.randrange(0x10000) if rng.random() < 0.1 else None


def _but(value: int, end: int, rng: random.Random) -> int:
    """Any number below ``end`` but one."""
    return (value + rng.randrange(1, end)) % end


def _offset(rng: random.Random) -> int:
    """Of a fragment, not the first; any single bit makes one."""
    return rng.choice((1 << rng.randrange(13), rng.randrange(1, 0x2000)))


def _hash_types(name: str, rng: random.Random) -> int:
    if name == "no types":
        return 0
    if name == "all types":
        return int(ALL_HASH_TYPES)
    if name == "plain types":
        return PLAIN_TYPES
    if name == "random mask":
        return sum(1 << bit for bit in rng.sample(range(9), rng.choice((2, 3, 4, 5, 7, 8))))
    return int(hash_types_from_names(name))


def _vlans(name: str, rng: random.Random) -> list[frames.Vlan]:
    if name == "0":
        return []
    count, kind = name.split()
    if kind == "mixed":
        tpids = rng.choices(frames.VLAN_TPIDS, k=int(count))
        if len(set(tpids)) == 1:
            tpids[-1] = rng.choice([t for t in frames.VLAN_TPIDS if t != tpids[0]])
    else:
        tpids = [int(kind, 16)] * int(count)
    return [frames.Vlan(rng.randrange(4096), rng.randrange(8), tpid=tpid) for tpid in tpids]


def _l4(plan: Plan, rng: random.Random) -> frames.L4:
    sport, dport = rng.randrange(0x10000), rng.randrange(0x10000)
    # Short enough for an IHL of 15 to point beyond the frame, long enough for "ports cut".
    payload = rng.randbytes(rng.randrange(16))
    match plan["l4"]:
        case "tcp":
            return frames.tcp(sport, dport, payload)
        case "udp":
            return frames.udp(sport, dport, payload)
        case "icmp":
            return frames.icmp(rng.choice((8, 128)), payload=payload)
        case "sctp":
            return frames.sctp(sport, dport, payload)
    protocol = rng.choice((2, 4, 41, 46, 47, 89, 103, 112, 136, 253, 255))
    return frames.other(protocol, rng.randbytes(4) + payload)


def _ipv4(plan: Plan, rng: random.Random) -> frames.Ipv4:
    fragment = plan["fragment"]
    header_sizes = {"6": 1, "15": 10}
    ihl = {"below 5": rng.randrange(5), "beyond frame": 15}.get(plan["ihl"])
    return frames.Ipv4(
        src=rng.randbytes(4),
        dst=rng.randbytes(4),
        options=rng.randbytes(4 * header_sizes.get(plan["ihl"], 0)),
        offset=_offset(rng) if fragment in ("middle", "last") else 0,
        more_fragments=fragment in ("first", "middle"),
        dont_fragment=fragment == "atomic",
        identification=rng.randrange(0x10000),
        ihl=ihl,
        version=4 if plan["version"] == "right" else _but(4, 16, rng),
        total_length=_lie(rng),
    )


def _chain(plan: Plan, rng: random.Random) -> list[str]:
    """Names of the headers: the three positions planned, what the plan needs, random others."""
    fixed = Counter(plan[p] for p in POSITIONS if plan[p] != ABSENT)
    inner = missing_headers(plan, fixed)
    inner = [
        rng.choice({"options": OPTION_HEADERS, "growable": GROWABLE}.get(name, (name,)))
        for name in inner
    ]
    shortest, longest = CHAIN_LENGTHS[plan["chain"]]
    size = rng.randint(max(shortest, fixed.total() + len(inner)), longest)
    if plan["middle"] != ABSENT:
        inner.append(plan["middle"])
    ends = [plan[p] for p in ("first", "last") if plan[p] != ABSENT]
    inner += rng.choices(FILLERS, k=size - len(ends) - len(inner))
    rng.shuffle(inner)
    return [*ends[:1], *inner, *ends[1:]]


def _extensions(plan: Plan, names: list[str], rng: random.Random) -> list[frames.Extension]:
    options = deal_options(plan, names, rng)
    roles = _routing_roles(plan["rh2"], names, rng)
    # Long chains are made of short headers, or they would leave the window by themselves.
    units = 3 if len(names) < 8 else 1
    chain = []
    for at, name in enumerate(names):
        match name:
            case "hopopts" | "dstopts":
                header = frames.extension(KIND_NUMBERS[name], options[at])
            case "routing":
                header = _routing(roles.get(at), units, rng)
            case "fragment":
                header = _fragment(plan["fragment"], rng)
            case "esp":
                header = frames.esp(rng.getrandbits(32), rng.getrandbits(32))
            case "none":
                header = frames.no_next_header()
            case _:
                # An AH of an even number of words, so that the chain stays a multiple of 8.
                body = rng.randbytes(6 + 8 * rng.randrange(units))
                header = frames.extension(KIND_NUMBERS[name], body)
        chain.append(header)
    return _grown(plan, chain, rng)


def _routing_roles(rh2: str, names: list[str], rng: random.Random) -> dict[int, str]:
    places = [at for at, name in enumerate(names) if name == "routing"]
    several = {"no": [], "two valid": ["valid", "valid"], "bad, valid": ["bad", "valid"]}
    roles = several.get(rh2, [rh2])
    return dict(zip(sorted(rng.sample(places, len(roles))), roles, strict=True))


def _routing(role: str | None, units: int, rng: random.Random) -> frames.Extension:
    if role == "bad":
        role = rng.choice(("bad hdrlen", "bad segments"))
    if role == "valid":
        return frames.routing_type2(rng.randbytes(16))
    if role == "bad segments":
        return frames.routing_type2(rng.randbytes(16), segments_left=rng.choice((0, 2, 255)))
    if role == "bad hdrlen":
        return frames.routing(2, 1, rng.randbytes(rng.choice((4, 12, 28, 36))))
    # Any other routing type, also of type 2's length.
    kind = rng.choice((0, 1, 3, 4, 253))
    return frames.routing(kind, 1, rng.randbytes(4 + 8 * rng.randrange(units)))


def _fragment(kind: str, rng: random.Random) -> frames.Extension:
    return frames.fragment_header(
        _offset(rng) if kind in ("middle", "last") else 0,
        more=kind in ("first", "middle"),
        identification=rng.getrandbits(32),
    )


def _grown(plan: Plan, chain: list[frames.Extension], rng: random.Random) -> list[frames.Extension]:
    """Stretch headers until the chain ends where the ``window`` axis wants it."""
    growable = [at for at, header in enumerate(chain) if header.name in GROWABLE]
    odd = plan["window"] == "ports cut" and needs_odd_ah(plan)
    if odd:
        at = rng.choice([at for at in growable if chain[at].name == "ah"])
        chain[at] = frames.extension(frames.AH, chain[at].data[2:] + bytes(4))
    if plan["window"] == "inside":
        return chain
    start = 54 + 4 * int(plan["vlan"][0])
    size = sum(len(header.data) for header in chain)
    target = {
        "ports just in": WINDOW - 4 - start - (WINDOW - 4 - start - size) % 8,
        "ports cut": _PORTS_CUT_END - start,
        "header cut": WINDOW - start + rng.choice((2, 6, 10, 40)),
    }[plan["window"]]
    units = -((size - target) // 8)
    while units:
        # The rest goes into one header half of the time.
        part = units if rng.random() < 0.5 else rng.randint(1, units)
        at = rng.choice(growable)
        old = chain[at]
        room = (len(old.data) + 8 * part) <= (1028 if old.kind == frames.AH else 2048)
        if room:
            chain[at] = frames.extension(old.kind, old.data[2:] + bytes(8 * part))
            units -= part
    return chain


def _cut(plan: Plan, frame: frames.Frame, rng: random.Random) -> int:
    name = plan["cut"].replace("other.", "")
    if name == "whole":
        return len(frame)
    spans = [(start, end) for field, start, end in frame.fields() if field == name]
    return rng.randrange(*rng.choice(spans))
