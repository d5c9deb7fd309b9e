# SPDX-License-Identifier: MIT
"""A failed expectation as a picture: expected and seen side by side, and how it came about."""

from __future__ import annotations

from difflib import SequenceMatcher
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from pyvnet.reference import classify, steer
from pyvnet.testing.decode import Field, decode, in_words
from pyvnet.testing.expectation import HEADER_FIELDS, NOTHING, shown
from pyvnet.testing.explain import explain, hash_slip, queue_slip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyvnet.driver.receive import Frame
    from pyvnet.testing.expectation import Expected
    from pyvnet.testing.script import Vnet
    from pyvnet.testing.steering import Steering
    from pyvnet.testing.wire import SentFrame

_NAME: Final = 20
_CELL: Final = 36
_LISTED: Final = 8
_COMPARED: Final = 200
_PAYLOAD_ROWS: Final = 8
_PAYLOAD_ALONE: Final = 4

_REASONS: Final = {
    "rx_drop_overruns": "no receive buffer was free",
    "rx_drop_too_big": "longer than the receive buffers can ever hold",
    "rx_drop_bad_buffer": "a receive buffer was malformed",
    "rx_drop_queue_off": "the receiveq does not run, or is not in force",
    "rx_drop_handoff": "the other worker's inbound queue was full",
    "rx_drop_filtered": "receive modes, MAC table or VLAN table refuse it",
    "rx_drop_port": "the wire gave less than a header, or a cut-off frame",
    "rx_drop_offload": "its header asks for an offload that was not negotiated, or for nonsense",
    "rx_drop_mtu": "longer than the MTU",
    "tx_drop_malformed": "the chain was malformed",
    "tx_drop_port": "the wire refused it",
    "tx_drop_queue_off": "the ring is disabled",
    "rings_broken": "a ring was malformed, and stopped",
}


def failure(vnet: Vnet, wanted: Expected, seen: Sequence[Frame | SentFrame]) -> str:
    """What was expected, what came instead, and how the device should have come to it."""
    arriving = seen is vnet.received
    steering = vnet.steering if arriving else None
    lines: list[str] = []
    if seen:
        alike = [frame for frame in seen if frame.data == wanted.frame] or seen[:_COMPARED]
        closest = min(alike, key=lambda frame: _distance(wanted, frame))
        lines = [_headline(wanted, closest), "", *_side_by_side(wanted, closest)]
        others = [frame for frame in seen if frame is not closest]
        if steering is not None:
            lines += _explained(closest, steering, wanted)
        if others:
            lines += ["", "also there, and not it:", *_list(others)]
    else:
        lines = [f"expected {wanted.describe()}; no frame came{_lost(vnet.counters())}"]
        if wanted.frame is not None:
            lines += ["", "expected", *_one(wanted.frame)]
            if steering is not None:
                lines += ["", "by the reference", *_indent(explain(wanted.frame, steering))]
    return "\n".join(lines + _background(vnet))


def silence_broken(vnet: Vnet, seen: Sequence[Frame | SentFrame]) -> str:
    """What came where nothing should."""
    first = seen[0]
    lines = [f"expected nothing; came on queue {first.queue}: {in_words(first.data)}", ""]
    lines += _one(first.data)
    if first in vnet.received and vnet.steering is not None:
        lines += _explained(first, vnet.steering)
    if len(seen) > 1:
        lines += ["", "and then:", *_list(seen[1:])]
    return "\n".join(lines + _background(vnet))


# --- choosing and naming ------------------------------------------------------------------


def _distance(wanted: Expected, seen: Frame | SentFrame) -> tuple[float, int]:
    """How far a frame is from what was expected: its bytes first, then the rest."""
    differences = wanted.differences(seen)
    if "frame" not in differences or wanted.frame is None:
        return 0.0, len(differences)
    same = sum(a == b for a, b in zip(wanted.frame, seen.data, strict=False))
    return 1 - same / max(len(wanted.frame), len(seen.data), 1), len(differences)


def _headline(wanted: Expected, seen: Frame | SentFrame) -> str:
    parts = []
    for name in wanted.differences(seen):
        if name == "queue":
            parts.append(f"queue {seen.queue}, expected {wanted.queue}")
        elif name == "frame":
            parts.append("another frame")
        elif name == "where":
            parts.append("the condition `where` does not hold")
        else:
            is_, should = getattr(seen.header, name), wanted.header[name]
            parts.append(f"{name} {shown(name, is_)}, expected {shown(name, should)}")
    return f"not as expected: {'; '.join(parts)}"


def _lost(counters: Mapping[str, int]) -> str:
    lost = [
        f"{count} × {name} ({_REASONS[name]})"
        for name, count in counters.items()
        if name in _REASONS
    ]
    return f"; lost by the device: {', '.join(lost)}" if lost else ""


def _list(frames: Sequence[Frame | SentFrame]) -> Iterator[str]:
    for frame in frames[:_LISTED]:
        header = frame.header
        report = f", {shown('hash_report', header.hash_report)}" if header.hash_report else ""
        value = f", hash {shown('hash_value', header.hash_value)}" if header.hash_report else ""
        yield f"  queue {frame.queue}{value}{report}: {in_words(frame.data)}"
    if len(frames) > _LISTED:
        yield f"  … and {len(frames) - _LISTED} more"


def _background(vnet: Vnet) -> list[str]:
    lines = []
    if vnet.not_injected:
        lines.append(f"{vnet.not_injected} frames wait to go in: the device takes no more")
    if unread := vnet.wire.unread():
        lines.append(f"the device has not read all of the wire ({unread} bytes of memory)")
    if counters := vnet.counters():
        moved = ", ".join(f"{name} +{count}" for name, count in counters.items())
        lines.append(f"counters that moved: {moved}")
    return ["", *lines] if lines else []


def _indent(lines: Sequence[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


# --- how it came about ----------------------------------------------------------------------


def _explained(
    seen: Frame | SentFrame, steering: Steering, wanted: Expected = NOTHING
) -> list[str]:
    """The reference's way; and where seen or expected leave it, what slip leads there."""
    frame, header = seen.data, seen.header
    lines = ["", "the frame seen, by the reference", *_indent(explain(frame, steering))]
    types, always = int(steering.hash_types), steering.ex_types_always
    hashed = classify(frame, types, steering.key, ex_types_always=always)
    values = {"seen": header.hash_value if header.hash_report else None}
    values["expected"] = wanted.header.get("hash_value")
    for who, value in values.items():
        if value not in {None, hashed.value} and (slip := hash_slip(frame, steering, value)):
            lines.append(f"  {who:<9} 0x{value:08x} is {slip}")
    right = steer(hashed, steering.table, steering.unclassified_queue)
    for who, queue in {"seen": seen.queue, "expected": wanted.queue}.items():
        if queue not in {None, right} and (slip := queue_slip(frame, steering, queue)):
            lines.append(f"  {who:<9} receiveq {queue} is {slip}")
    return lines


# --- side by side -----------------------------------------------------------------------------


def _side_by_side(wanted: Expected, seen: Frame | SentFrame) -> Iterator[str]:
    yield _row(" ", "", "expected", "seen")
    if wanted.queue is not None:
        mark = _mark(wanted.queue == seen.queue)
        yield _row(mark, "queue", str(wanted.queue), str(seen.queue))
    else:
        yield _row(" ", "queue", "", str(seen.queue))
    for name in HEADER_FIELDS:
        value = getattr(seen.header, name)
        if name in wanted.header:
            should = wanted.header[name]
            yield _row(_mark(should == value), name, shown(name, should), shown(name, value))
        elif value:
            yield _row(" ", name, "", shown(name, value))
    yield ""
    if wanted.frame is None:
        yield from _one(seen.data)
    else:
        yield from _fields(decode(wanted.frame), decode(seen.data))


def _mark(same: bool) -> str:  # noqa: FBT001 - it is the only thing said
    return " " if same else "≠"


def _row(mark: str, name: str, left: str, right: str) -> str:
    return f"{mark} {name:<{_NAME}} {left:<{_CELL}} {right}".rstrip()


def _one(frame: bytes) -> list[str]:
    """A frame alone; of a long payload the beginning."""
    fields = decode(frame)
    lines = [] if fields else ["  (no bytes)"]
    payload = 0
    for field in fields:
        payload += field.name == "payload"
        if payload > _PAYLOAD_ALONE:
            lines.append(f"  … {len(frame) - field.start} more bytes")
            break
        cells = _cells(field)
        lines += [_row(" ", "" if i else _name(field), cell, "") for i, cell in enumerate(cells)]
    return lines


def _name(field: Field) -> str:
    return f"payload @{field.start}" if field.name == "payload" else field.name


def _cells(field: Field | None) -> list[str]:
    """What stands in a column for a field: hex and words, in one line where they fit."""
    if field is None:
        return ["—"]
    if field.name in {"eth.dst", "eth.src"} and field.text != "cut off":
        return [field.text]
    raw = field.data.hex(" ", -4)
    if not field.text:
        return [raw]
    if len(raw) + len(field.text) + 2 <= _CELL:
        return [f"{raw}  {field.text}"]
    return [raw, field.text]


def _fields(expected: list[Field], seen: list[Field]) -> Iterator[str]:
    """Rows of both; equal payload is folded, and so is what differs beyond a few rows."""
    same, differing = 0, 0
    for left, right in _aligned(expected, seen):
        field = left or right
        equal = left is not None and right is not None and left.data == right.data
        if field is not None and field.name == "payload":
            if equal:
                same += len(field.data)
                continue
            differing += 1
            if differing > _PAYLOAD_ROWS:
                continue
        if same:
            yield f"  … {same} equal bytes"
            same = 0
        yield from _pair(left, right, equal=equal)
    if same:
        yield f"  … {same} equal bytes"
    if differing > _PAYLOAD_ROWS:
        yield f"≠ … {differing - _PAYLOAD_ROWS} more rows of payload differ"


def _pair(left: Field | None, right: Field | None, *, equal: bool) -> Iterator[str]:
    field = left or right
    name = _name(field) if field is not None else ""
    both = left is not None and right is not None
    for number, (a, b) in enumerate(zip_longest(_cells(left), _cells(right), fillvalue="")):
        yield _row(_mark(equal or number > 0), "" if number else name, a, b)
        if both and not equal and not number and len(a) == len(b):
            raw = len(a.partition("  ")[0])  # words change with their bytes
            pointed = zip(a[:raw], b[:raw], strict=True)
            yield _row(" ", "", "", "".join(" " if x == y else "^" for x, y in pointed))


def _aligned(
    expected: list[Field], seen: list[Field]
) -> Iterator[tuple[Field | None, Field | None]]:
    """Fields of the same name beside each other, in order."""
    headers = [[field for field in side if field.name != "payload"] for side in (expected, seen)]
    left, right = ([field.name for field in side] for side in headers)
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    for verb, a, b, c, d in matcher.get_opcodes():
        if verb == "equal":
            yield from zip(expected[a:b], seen[c:d], strict=True)
            continue
        yield from ((field, None) for field in expected[a:b])
        yield from ((None, field) for field in seen[c:d])
    yield from zip_longest(expected[len(left) :], seen[len(right) :])
