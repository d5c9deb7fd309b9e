# SPDX-License-Identifier: MIT
"""How receiveq, hash and report of a frame come about, step by step, by `pyvnet.reference`.

And where a device said otherwise: which well-known slip would lead to what it said.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from pyvnet.reference import candidates, hash_input, parse, select, toeplitz
from pyvnet.spec.rss import ALL_HASH_TYPES, KEY_BYTES, HashReport, HashType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyvnet.reference import Flow
    from pyvnet.testing.steering import Steering

_V4: Final = HashType.IPV4 | HashType.TCPV4 | HashType.UDPV4
_TCP: Final = HashType.TCPV4 | HashType.TCPV6 | HashType.TCP_EX
_UDP: Final = HashType.UDPV4 | HashType.UDPV6 | HashType.UDP_EX
_EX: Final = HashType.IP_EX | HashType.TCP_EX | HashType.UDP_EX


def explain(frame: bytes, steering: Steering) -> list[str]:
    """Lines: the types tried, the input, the key bytes, the hash, the slot, the receiveq."""
    flow = parse(frame)
    if not steering.hash_types:
        return ["no hash types are enabled: no frame has a hash", *_queue(steering, None)]
    chosen = select(flow, steering.hash_types, ex_types_always=steering.ex_types_always)
    lines = _types(flow, steering, chosen)
    if not chosen:
        return [*lines, "hash      none: report NONE, value 0", *_queue(steering, None)]
    data = hash_input(flow, chosen)
    value = toeplitz(steering.key, data)
    used = KEY_BYTES[chosen]
    key = steering.key[:used].ljust(used, b"\0")
    for number, line in enumerate(_inputs(flow, chosen)):
        lines.append(f"{'' if number else 'input':<10}{line}")
    lines.append(f"key       {_groups(key)} (bytes 0 to {used - 1} of {len(steering.key)})")
    report = HashReport(int(chosen).bit_length())
    lines.append(f"hash      0x{value:08x}, report {report.name} ({int(report)})")
    return [*lines, *_queue(steering, value)]


def _types(flow: Flow, steering: Steering, chosen: HashType) -> list[str]:
    tried = candidates(flow, ex_types_always=steering.ex_types_always)
    lines = []
    for hash_type in tried:
        if hash_type == chosen:
            lines.append(f"type      {hash_type.name}: enabled, applies: taken")
            break
        lines.append(f"type      {hash_type.name}: applies, but is not enabled")
    later = [str(t.name) for t in tried[tried.index(chosen) + 1 :]] if chosen else []
    if later:
        lines.append(f"          {', '.join(later)}: would apply, tried later")
    reasons: dict[str, list[str]] = {}
    for hash_type in HashType:
        if hash_type & ALL_HASH_TYPES and hash_type not in tried:
            reasons.setdefault(_why_not(hash_type, flow), []).append(str(hash_type.name))
    return lines + [f"          {', '.join(names)}: {why}" for why, names in reasons.items()]


def _why_not(hash_type: HashType, flow: Flow) -> str:
    if not flow.l3:
        return f"no IP: {flow.why}"
    if (flow.l3 == 4) != bool(hash_type & _V4):
        return "not IPv4" if flow.l3 == 6 else "not IPv6"
    if hash_type & (_TCP | _UDP) and not flow.l4:
        return f"no ports: {flow.why}"
    if hash_type & _TCP and flow.l4 != 6:
        return "not TCP"
    if hash_type & _UDP and flow.l4 != 17:
        return "not UDP"
    return "no extension header"


def _inputs(flow: Flow, chosen: HashType) -> Iterator[str]:
    """Each part of the hash's input: hex, what it is, its value."""
    home, final = "", ""
    source, destination = flow.saddr, flow.daddr
    if chosen & _EX:
        source, destination = flow.saddr_ex, flow.daddr_ex
        home = ", of the home address option" if source != flow.saddr else ""
        final = ", of the type 2 routing header" if destination != flow.daddr else ""
    yield f"{_groups(source)} source address {ip_address(source)}{home}"
    yield f"{_groups(destination)} destination address {ip_address(destination)}{final}"
    if chosen & (_TCP | _UDP):
        yield f"{flow.sport:04x} {flow.dport:04x} ports {flow.sport} and {flow.dport}"


def _queue(steering: Steering, value: int | None) -> list[str]:
    if not steering.rss:
        return ["receiveq  automatic: RSS is not configured (MQ_RSS_CONFIG was not sent)"]
    if value is None:
        return [f"receiveq  {steering.unclassified_queue}, the unclassified_queue"]
    slot = value & (len(steering.table) - 1)
    shown = f"0x{value:08x} & 0x{len(steering.table) - 1:x} = {slot}"
    return [f"slot      {shown}", f"receiveq  {steering.table[slot]} = indirection_table[{slot}]"]


def _groups(data: bytes) -> str:
    return data.hex(" ", -4)


# --- slips ------------------------------------------------------------------------------


def hash_slip(frame: bytes, steering: Steering, seen: int | None) -> str:
    """What one would have to do wrong to get this hash; "" if nothing common leads there."""
    flow = parse(frame)
    for what, value in _slips(flow, steering):
        if value == seen:
            return what
    return ""


def _slips(flow: Flow, steering: Steering) -> Iterator[tuple[str, int]]:
    key = steering.key
    for hash_type in candidates(flow, ex_types_always=steering.ex_types_always):
        name = hash_type.name
        value = toeplitz(key, hash_input(flow, hash_type))
        yield f"the hash of type {name}", value
        yield f"the hash of type {name} with its bytes reversed", _reversed(value)
        for what, other in _turned(flow):
            yield (
                f"the hash of type {name} with {what}",
                toeplitz(key, hash_input(other, hash_type)),
            )
        yield f"the hash of type {name} with a key of zeros", 0
        yield (
            f"the hash of type {name} with the key's bytes reversed",
            toeplitz(key[::-1], hash_input(flow, hash_type)),
        )


def _turned(flow: Flow) -> Iterator[tuple[str, Flow]]:
    addresses = replace(
        flow, saddr=flow.daddr, daddr=flow.saddr, saddr_ex=flow.daddr_ex, daddr_ex=flow.saddr_ex
    )
    yield "source and destination address swapped", addresses
    yield "the ports swapped", replace(flow, sport=flow.dport, dport=flow.sport)
    yield (
        "addresses and ports swapped",
        replace(addresses, sport=flow.dport, dport=flow.sport),
    )


def _reversed(value: int) -> int:
    return int.from_bytes(value.to_bytes(4, "big"), "little")


def queue_slip(frame: bytes, steering: Steering, seen: int | None) -> str:
    """What one would have to do wrong to come to this queue; "" if nothing common leads there."""
    chosen = select(parse(frame), steering.hash_types, ex_types_always=steering.ex_types_always)
    table = steering.table
    if not steering.rss or not chosen:
        return ""
    value = toeplitz(steering.key, hash_input(parse(frame), chosen))
    bits = len(table).bit_length() - 1
    ways = {
        "the slot taken from the hash's upper bits": table[value >> (32 - bits)],
        "the slot of the hash with its bytes reversed": table[_reversed(value) & (len(table) - 1)],
        "the slot number instead of the table's entry": value & (len(table) - 1),
        "the unclassified_queue": steering.unclassified_queue,
    }
    return next((what for what, queue in ways.items() if queue == seen), "")
