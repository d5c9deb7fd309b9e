# SPDX-License-Identifier: MIT
"""The axes of a case, read off the headers that were built and not off the plan.

So the matrix counts what was sent, not what was meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyvnet.spec.rss import ALL_HASH_TYPES, hash_type_names
from pyvnet.testing import frames
from tests.differential.axes import (
    ABSENT,
    CHAIN_LENGTHS,
    OPTION_CAP,
    OPTION_HEADERS,
    PLAIN_TYPES,
    WINDOW,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.differential.axes import Plan
    from tests.differential.cases import Case

_HOME_ADDRESS: Final = bytes([frames.OPTION_HOME_ADDRESS, 16])


def observe(case: Case) -> Plan:
    """The value of every axis."""
    ip = case.ip
    chain = ip.extensions if isinstance(ip, frames.Ipv6) else ()
    names = [header.name for header in chain]
    base = 14 + 4 * len(case.vlans)
    header = case.frame.data[base:]
    end = base + 40 + sum(len(extension.data) for extension in chain)
    version = 4 if isinstance(ip, frames.Ipv4) else 6
    return {
        "types": _types(case.hash_types),
        "order": "ex-types-always" if case.ex_types_always else "literal",
        "ip": f"v{version}",
        "l4": case.l4.layout[0][0].split(".")[0].replace("payload", "other"),
        "vlan": _vlan(case.vlans),
        "ihl": _ihl(header) if version == 4 else ABSENT,
        "version": "right" if header[0] >> 4 == version else "wrong",
        "fragment": _fragment(header[6:8]) if version == 4 else _fragment_header(chain),
        "chain": _chain_length(len(chain)),
        "first": names[0] if names else ABSENT,
        "middle": ABSENT if case.middle is None else names[case.middle],
        "last": names[-1] if len(names) > 1 else ABSENT,
        "options": _options(chain),
        "home": _home(chain),
        "rh2": _rh2(chain),
        "window": _window(end) if chain else "inside",
        "cut": _cut(case),
    }


def _types(types: int) -> str:
    if types.bit_count() == 1:
        return hash_type_names(types)[0]
    names = {0: "no types", PLAIN_TYPES: "plain types", int(ALL_HASH_TYPES): "all types"}
    return names.get(types, "random mask")


def _vlan(vlans: Sequence[frames.Vlan]) -> str:
    tpids = {tag.tpid for tag in vlans}
    if not tpids:
        return "0"
    return f"{len(vlans)} " + (f"{tpids.pop():x}" if len(tpids) == 1 else "mixed")


def _ihl(header: bytes) -> str:
    ihl = header[0] & 15
    if ihl < 5:
        return "below 5"
    return "beyond frame" if ihl * 4 > len(header) else str(ihl)


def _fragment(field: bytes) -> str:
    """The 16 bits of IPv4; an atomic datagram is one that may not be fragmented."""
    value = int.from_bytes(field, "big")
    more, offset = value >> 13 & 1, value & 0x1FFF
    if offset:
        return "middle" if more else "last"
    if more:
        return "first"
    return "atomic" if value >> 14 & 1 else "no"


def _fragment_header(chain: Sequence[frames.Extension]) -> str:
    for header in chain:
        if header.kind == frames.FRAGMENT:
            value = int.from_bytes(header.data[2:4], "big")
            if value >> 3:
                return "middle" if value & 1 else "last"
            return "first" if value & 1 else "atomic"
    return "no"


def _chain_length(size: int) -> str:
    return next(name for name, (low, high) in CHAIN_LENGTHS.items() if low <= size <= high)


def _tlvs(header: frames.Extension) -> Iterator[tuple[int, int | None]]:
    """Type and length of each option; length None for a malformed one, the last."""
    body = header.data[2:]
    while body:
        if body[0] == 0:
            yield 0, 0
            body = body[1:]
        elif len(body) < 2 or body[1] > len(body) - 2:
            yield body[0], None
            return
        else:
            yield body[0], body[1]
            body = body[2 + body[1] :]


def _options(chain: Sequence[frames.Extension]) -> str:
    lengths = [
        length for header in chain if header.name in OPTION_HEADERS for _, length in _tlvs(header)
    ]
    if None in lengths:
        at = lengths.index(None)
        return "cap, then malformed" if at == OPTION_CAP else "malformed"
    caps = {0: "no", OPTION_CAP - 1: "cap-1", OPTION_CAP: "cap", OPTION_CAP + 1: "cap+1"}
    return caps.get(len(lengths), "few")


def _home(chain: Sequence[frames.Extension]) -> str:
    """Home addresses wherever they stand, also behind what ends a walk."""
    found = [
        (header.name, length == 16)
        for header in chain
        if header.name in OPTION_HEADERS
        for kind, length in _tlvs(header)
        if kind == frames.OPTION_HOME_ADDRESS and length is not None
    ]
    if any(name == "hopopts" for name, _ in found):
        return "in hopopts"
    # One whose address is cut off is no more than a malformed option.
    behind = (h.data.rfind(_HOME_ADDRESS) for h in chain if h.name == "dstopts")
    lengths = (len(h.data) for h in chain if h.name == "dstopts")
    if not found and any(0 < at <= n - 18 for at, n in zip(behind, lengths, strict=True)):
        return "behind malformed"
    return _qualities([valid for _, valid in found], bad="bad length")


def _rh2(chain: Sequence[frames.Extension]) -> str:
    headers = [h.data for h in chain if h.kind == frames.ROUTING and h.data[2] == 2]
    valid = [data[1] == 2 and data[3] == 1 for data in headers]
    bad = "bad segments" if any(data[1] == 2 for data in headers) else "bad hdrlen"
    return _qualities(valid, bad=bad)


def _qualities(valid: list[bool], *, bad: str) -> str:
    names = {(): "no", (True,): "valid", (False,): bad, (True, True): "two valid",
             (False, True): "bad, valid"}  # fmt: skip
    return names[tuple(valid)]


def _window(end: int) -> str:
    if end > WINDOW:
        return "header cut"
    if end > WINDOW - 4:
        return "ports cut"
    return "ports just in" if end > WINDOW - 12 else "inside"


def _cut(case: Case) -> str:
    name = case.frame.field_at(len(case.data))
    if name is None:
        return "whole"
    return "other.payload" if name == "payload" else name
