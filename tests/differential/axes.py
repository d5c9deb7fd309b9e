# SPDX-License-Identifier: MIT
"""The coverage matrix: what frames differ in, and which differences exclude each other.

A *plan* gives one value to every axis.  Two values that can stand in one plan are a
reachable pair; ``RULES`` is the whole list of pairs that cannot, with reasons, and
``covering_array`` proves the rest reachable by finding a plan for each of them.

Axes are properties of the frame before it is cut, except ``cut`` itself.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from pyvnet.spec.rss import ALL_HASH_TYPES, hash_type_names

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

Plan: TypeAlias = dict[str, str]
Value: TypeAlias = tuple[str, str]
Axes: TypeAlias = dict[str, tuple[str, ...]]
_Partners: TypeAlias = dict[Value, set[Value]]

HEADER_CAP: Final = 16
OPTION_CAP: Final = 64
WINDOW: Final = 1024
# What Linux enables: no type for extension headers.
PLAIN_TYPES: Final = 0x3F

ABSENT: Final = "-"
CHAINED: Final = ("hopopts", "routing", "fragment", "ah", "dstopts", "mobility", "hip", "shim6")
KINDS: Final = (*CHAINED, "esp", "none")
POSITIONS: Final = ("first", "middle", "last")
# Headers whose size is free and whose content no other axis speaks of.
GROWABLE: Final = ("ah", "mobility", "hip", "shim6")
OPTION_HEADERS: Final = ("hopopts", "dstopts")

CHAIN_LENGTHS: Final = {
    "0": (0, 0), "1": (1, 1), "2": (2, 2), "3": (3, 3), "4-14": (4, 14),
    "cap-1": (HEADER_CAP - 1,) * 2, "cap": (HEADER_CAP,) * 2, "cap+1": (HEADER_CAP + 1,) * 2,
}  # fmt: skip

_L4_FIELDS: Final = {
    "tcp": ("tcp.sport", "tcp.dport", "tcp.rest"),
    "udp": ("udp.sport", "udp.dport", "udp.rest"),
    "icmp": ("icmp.header",),
    "sctp": ("sctp.sport", "sctp.dport", "sctp.rest"),
    "other": ("other.payload",),
}
_ETHERNET_FIELDS: Final = ("eth.dst", "eth.src", "eth.type")
_VLAN_FIELDS: Final = ("vlan.tci", "vlan.type")
_IPV4_FIELDS: Final = tuple(
    f"ipv4.{name}"
    for name in ("version_ihl", "tos", "total_length", "id", "fragment", "ttl", "protocol",
                 "checksum", "src", "dst", "options")
)  # fmt: skip
_IPV6_FIELDS: Final = tuple(
    f"ipv6.{name}"
    for name in ("version", "payload_length", "next_header", "hop_limit", "src", "dst")
)
_EXTENSION_FIELDS: Final = (
    *(f"{kind}.{part}" for kind in CHAINED for part in ("next_header", "length", "body")),
    "esp.body",
)

AXES: Final[Axes] = {
    "types": (
        "no types", *hash_type_names(ALL_HASH_TYPES), "plain types", "all types", "random mask",
    ),
    "order": ("literal", "ex-types-always"),
    "ip": ("v4", "v6"),
    "l4": ("tcp", "udp", "icmp", "sctp", "other"),
    "vlan": (
        "0", "1 8100", "1 88a8", "1 9100", "2 8100", "2 88a8", "2 9100", "2 mixed",
        "3 8100", "3 88a8", "3 9100", "3 mixed",
    ),
    "ihl": (ABSENT, "5", "6", "15", "below 5", "beyond frame"),
    "version": ("right", "wrong"),
    "fragment": ("no", "first", "middle", "last", "atomic"),
    "chain": tuple(CHAIN_LENGTHS),
    "first": (ABSENT, *KINDS),
    "middle": (ABSENT, *KINDS),
    "last": (ABSENT, *KINDS),
    "options": ("no", "few", "cap-1", "cap", "cap+1", "malformed", "cap, then malformed"),
    "home": ("no", "valid", "bad length", "in hopopts", "two valid", "bad, valid",
             "behind malformed"),
    "rh2": ("no", "valid", "bad hdrlen", "bad segments", "two valid", "bad, valid"),
    "window": ("inside", "ports just in", "ports cut", "header cut"),
    "cut": (
        "whole", *_ETHERNET_FIELDS, *_VLAN_FIELDS, *_IPV4_FIELDS, *_IPV6_FIELDS,
        *_EXTENSION_FIELDS, *itertools.chain.from_iterable(_L4_FIELDS.values()),
    ),
}  # fmt: skip


# Where most frames end unclassified little is compared, so parts of the matrix are
# covered for themselves.  In HASHED every frame has a hash, which shows the addresses
# used; in PORTS every frame has an L4 type, so the walk got through to the ports; in each
# of LIMITS one thing alone, named by the key, keeps a frame from its L4 type.
HASHED: Final[Axes] = {
    **AXES,
    "types": ("plain types", "all types"),
    "vlan": tuple(name for name in AXES["vlan"] if name[0] != "3"),
    "ihl": (ABSENT, "5", "6", "15"),
    "version": ("right",),
    "cut": ("whole", *_EXTENSION_FIELDS, *itertools.chain.from_iterable(_L4_FIELDS.values())),
}
_WALKED: Final = (ABSENT, *(kind for kind in CHAINED if kind != "fragment"))
PORTS: Final[Axes] = {
    **HASHED,
    "l4": ("tcp", "udp"),
    "fragment": ("no",),
    "chain": tuple(name for name in CHAIN_LENGTHS if name != "cap+1"),
    **dict.fromkeys(POSITIONS, _WALKED),
    "options": ("no", "few", "cap-1", "cap", "malformed"),
    "window": ("inside", "ports just in"),
    "cut": ("whole", "tcp.rest", "udp.rest"),
}
LIMITS: Final[dict[str, Axes]] = {
    "one header too many": {**PORTS, "chain": ("cap+1",)},
    "one option too many": {**PORTS, "options": ("cap+1",)},
    "one malformed option too many": {**PORTS, "options": ("cap, then malformed",)},
    "ports cut by the window": {**PORTS, "window": ("ports cut",)},
    "header cut by the window": {**PORTS, "window": ("header cut",)},
    "ports cut by the frame": {
        **PORTS, "cut": ("tcp.sport", "tcp.dport", "udp.sport", "udp.dport"),
    },
    "extension header cut": {**PORTS, "cut": _EXTENSION_FIELDS[:-1]},
    "IPv4 fragment": {**PORTS, "ip": ("v4",), "fragment": ("first", "middle", "last")},
    "Fragment header": {
        **PORTS, "ip": ("v6",), "fragment": AXES["fragment"][1:],
        **dict.fromkeys(POSITIONS, (*_WALKED, "fragment")),
    },
    "end of the walk": {**PORTS, "ip": ("v6",), "last": ("esp", "none")},
    "no port protocol": {**PORTS, "l4": ("icmp", "sctp", "other")},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """No frame has one of ``left``'s and one of ``right``'s values at once."""

    reason: str
    left: tuple[str, tuple[str, ...]]
    right: tuple[str, tuple[str, ...]]


def _but(axis: str, *values: str) -> tuple[str, tuple[str, ...]]:
    return axis, tuple(value for value in AXES[axis] if value not in values)


def _rules() -> Iterator[Rule]:
    v4, v6 = ("ip", ("v4",)), ("ip", ("v6",))
    yield Rule("every IPv4 header has an IHL", v4, ("ihl", (ABSENT,)))
    yield Rule("IPv6 has no IHL", v6, _but("ihl", ABSENT))
    for axis, nothing in (
        ("chain", "0"), ("first", ABSENT), ("middle", ABSENT), ("last", ABSENT),
        ("options", "no"), ("home", "no"), ("rh2", "no"), ("window", "inside"),
    ):  # fmt: skip
        yield Rule("IPv4 has no extension headers", v4, _but(axis, nothing))
        # The same through the IHL, which only IPv4 has.
        yield Rule("IPv4 has no extension headers", _but("ihl", ABSENT), _but(axis, nothing))
    foreign = ("cut", (*_IPV6_FIELDS, *_EXTENSION_FIELDS))
    yield Rule("the field is IPv6's", v4, foreign)
    yield Rule("the field is IPv6's", _but("ihl", ABSENT), foreign)
    yield Rule("the field is IPv4's", v6, ("cut", _IPV4_FIELDS))
    yield Rule("the field is IPv4's", ("ihl", (ABSENT,)), ("cut", _IPV4_FIELDS))
    for axis, nothing in (
        ("chain", "0"), ("first", ABSENT), ("middle", ABSENT), ("last", ABSENT),
        ("options", "no"), ("home", "no"), ("rh2", "no"), ("window", "inside"),
    ):  # fmt: skip
        yield Rule(
            "a chain is IPv6's, the field IPv4's", _but(axis, nothing), ("cut", _IPV4_FIELDS)
        )
    yield Rule("no options behind this IHL", _but("ihl", "6", "15"), ("cut", ("ipv4.options",)))
    yield Rule("no tag to cut", ("vlan", ("0",)), ("cut", _VLAN_FIELDS))
    for l4 in _L4_FIELDS:
        for protocol, fields in _L4_FIELDS.items():
            if protocol != l4:
                yield Rule("the field is another protocol's", ("l4", (l4,)), ("cut", fields))
    yield from _chain_rules()


def _chain_rules() -> Iterator[Rule]:
    shortest = {"first": 1, "middle": 3, "last": 2}  # a last header is one that is not the first
    for position, size in shortest.items():
        short = tuple(name for name, (_, most) in CHAIN_LENGTHS.items() if most < size)
        long = tuple(name for name in CHAIN_LENGTHS if name not in short)
        yield Rule("the chain is too short", ("chain", short), _but(position, ABSENT))
        yield Rule("the chain has this position", ("chain", long), (position, (ABSENT,)))
    for inner, outer in (("last", "first"), ("middle", "first"), ("middle", "last")):
        yield Rule("a longer chain has both positions", _but(inner, ABSENT), (outer, (ABSENT,)))
    empty: tuple[Value, ...] = (("chain", "0"), ("first", ABSENT))
    needs_chain = (_but("options", "no"), _but("home", "no"), _but("rh2", "no"),
                   _but("window", "inside"), ("cut", _EXTENSION_FIELDS))  # fmt: skip
    for axis, value in empty:
        for needing in needs_chain:
            yield Rule("it needs an extension header", (axis, (value,)), needing)
    two = ("rh2", ("two valid", "bad, valid"))
    yield Rule("two headers need two places", ("chain", ("1",)), two)
    yield Rule("two headers need two places", ("last", (ABSENT,)), two)
    for position in POSITIONS:
        yield Rule("a header of options has one", (position, OPTION_HEADERS), ("options", ("no",)))
        yield Rule("a Fragment header makes a fragment", (position, ("fragment",)),
                   ("fragment", ("no",)))  # fmt: skip
    option_fields = tuple(f for f in _EXTENSION_FIELDS if f.split(".")[0] in OPTION_HEADERS)
    yield Rule("a header of options has one", ("cut", option_fields), ("options", ("no",)))
    yield Rule("the address is an option", _but("home", "no"), ("options", ("no",)))
    yield Rule(
        "no option is malformed", ("home", ("behind malformed",)), _but("options", "malformed")
    )
    fragment_fields = tuple(f for f in _EXTENSION_FIELDS if f.startswith("fragment."))
    yield Rule(
        "a Fragment header makes a fragment", ("cut", fragment_fields), ("fragment", ("no",))
    )


RULES: Final = tuple(_rules())


def impossible_pairs() -> dict[frozenset[Value], str]:
    """Every pair of values no frame can have, with the reason."""
    pairs: dict[frozenset[Value], str] = {}
    for rule in RULES:
        (left, left_values), (right, right_values) = rule.left, rule.right
        for a, b in itertools.product(left_values, right_values):
            pairs.setdefault(frozenset(((left, a), (right, b))), rule.reason)
    return pairs


def needed_headers(plan: Plan) -> Counter[str]:
    """Kinds of header a plan cannot do without, whatever stands at its three positions."""
    need: Counter[str] = Counter()
    if plan.get("ip") == "v4":
        return need
    if plan.get("fragment", "no") != "no":
        need["fragment"] = 1
    home = plan.get("home", "no")
    if home != "no":
        need["hopopts" if home == "in hopopts" else "dstopts"] = 1
    rh2 = plan.get("rh2", "no")
    if rh2 != "no":
        need["routing"] = 2 if "," in rh2 or "two" in rh2 else 1
    kind = plan.get("cut", "whole").split(".")[0]
    if kind in KINDS and not need[kind]:
        need[kind] = 1
    if needs_odd_ah(plan) and not need["ah"]:
        need["ah"] = 1
    return need


def needs_odd_ah(plan: Plan) -> bool:
    """Whether only an AH, a multiple of 4 bytes, lets the chain end 2 bytes before the window.

    The base header ends at 54 + 4 · tags, the chain must end at 1022, and all other
    headers are multiples of 8.
    """
    return plan.get("window") == "ports cut" and int(plan.get("vlan", "0")[0]) % 2 == 1


def missing_headers(plan: Plan, present: Counter[str]) -> list[str]:
    """What must be added to ``present``; ``options`` and ``growable`` stand for any of a kind."""
    need = needed_headers(plan)
    missing = [kind for kind in need for _ in range(need[kind] - present.get(kind, 0))]
    there = {*present, *need}
    if plan.get("options", "no") != "no" and not there.intersection(OPTION_HEADERS):
        missing.append("options")
    if plan.get("window", "inside") != "inside" and not there.intersection(GROWABLE):
        missing.append("growable")
    return missing


def _fits(plan: Plan) -> bool:
    """Whether the headers a (partial) plan needs find places in its chain."""
    if plan.get("ip") == "v4":
        return True
    present = Counter(plan[p] for p in POSITIONS if plan.get(p, ABSENT) != ABSENT)
    _, most = CHAIN_LENGTHS[plan.get("chain", "cap+1")]
    if "chain" not in plan and plan.get("first") == ABSENT:
        most = 0
    return len(missing_headers(plan, present)) <= most - present.total()


class Planner:
    """Draws plans from all the axes or a part of them, the pairs not yet drawn first.

    A part may exclude pairs by more than two axes at once (a chain of one header that must
    hold two); unless ``strict``, such pairs are taken out of ``reachable`` when met.
    """

    def __init__(self, rng: random.Random, axes: Axes = AXES, *, strict: bool = True) -> None:
        self._rng = rng
        self._strict = strict
        self._bad: dict[Value, set[Value]] = {(a, v): set() for a in AXES for v in AXES[a]}
        for a, b in (tuple(pair) for pair in impossible_pairs()):
            self._bad[a].add(b)
            self._bad[b].add(a)
        self._axes = self._consistent(axes)
        values = {(axis, value) for axis, names in self._axes.items() for value in names}
        self.reachable = {
            frozenset((a, b))
            for a, b in itertools.combinations(self._bad, 2)
            if a[0] != b[0] and b not in self._bad[a] and {a, b} <= values
        }

    def _consistent(self, axes: Axes) -> Axes:
        """Without the values for which another axis has no value left."""
        kept = {
            axis: tuple(
                value
                for value in names
                if all(
                    axis == other or any((other, v) not in self._bad[axis, value] for v in others)
                    for other, others in axes.items()
                )
            )
            for axis, names in axes.items()
        }
        return kept if kept == axes else self._consistent(kept)

    def covering_array(self) -> list[Plan]:
        """Plans in which every reachable pair stands at least once."""
        uncovered: _Partners = defaultdict(set)
        for a, b in map(tuple, self.reachable):
            uncovered[a].add(b)
            uncovered[b].add(a)
        plans = []
        # By content, not by hash order, or the seed would not fix the outcome.
        order = sorted(self.reachable, key=sorted)
        self._rng.shuffle(order)
        for pair in order:
            a, b = pair
            if b in uncovered[a]:
                plan = self._complete(pair, uncovered)
                if plan is None:
                    self.reachable.discard(pair)
                    continue
                plans.append(plan)
                for value in plan.items():
                    uncovered[value].difference_update(plan.items())
        return plans

    def _complete(self, pair: frozenset[Value], uncovered: _Partners) -> Plan | None:
        for _ in range(500 if self._strict else 30):
            plan = self._try_complete(pair, uncovered)
            if plan is not None:
                return plan
        if not self._strict:
            return None
        raise AssertionError(f"no rule forbids {sorted(pair)}, but no frame was found for it")

    def _try_complete(self, pair: frozenset[Value], uncovered: _Partners) -> Plan | None:
        plan: Plan = dict(pair)
        forbidden = set().union(*(self._bad[value] for value in pair))
        rest = [axis for axis in AXES if axis not in plan]
        self._rng.shuffle(rest)
        for axis in rest:
            taken = plan.items()
            ranked = sorted(
                (-len(uncovered[axis, v] & taken), self._rng.random(), v)
                for v in self._axes[axis]
                if (axis, v) not in forbidden
            )
            for _, _, value in ranked:
                plan[axis] = value
                if _fits(plan):
                    break
            else:
                return None
            forbidden |= self._bad[axis, plan[axis]]
        return plan


def pairs_of(plan: Plan) -> Iterator[frozenset[Value]]:
    """The pairs a plan covers."""
    return map(frozenset, itertools.combinations(plan.items(), 2))
