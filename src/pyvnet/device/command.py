# SPDX-License-Identifier: MIT
"""What the handlers of control commands are given, and what they give back.

A handler has the signature ``handler(current, data, rules) -> Outcome``:
``current`` is the one part of ``ControlState`` it may replace, ``data`` the
request behind class and command.  It raises ShortPayloadError for missing bytes
and StateError for what no device may do, and changes nothing (U-07).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from pyvnet.spec.rss import ShortPayloadError

if TYPE_CHECKING:
    import struct

    from pyvnet.spec.features import Feature

T = TypeVar("T")


class Rules(NamedTuple):
    """What of the settings and of the negotiation the handlers go by."""

    max_pairs: int
    max_macs: int  # addresses of one class in the MAC table
    lenient_hash_types: bool
    rss_survives_vq_pairs: bool
    features: Feature


class Outcome(NamedTuple, Generic[T]):
    """A command that may be committed: the new value, bytes beyond its end, remarks for the log."""

    value: T
    surplus: int = 0
    remarks: tuple[str, ...] = ()


def take(layout: struct.Struct, data: bytes) -> tuple[tuple[Any, ...], int]:
    """Unpack a fixed payload and count the bytes behind it; raises ShortPayloadError."""
    if len(data) < layout.size:
        raise ShortPayloadError(f"{len(data)} of {layout.size} bytes")
    return layout.unpack_from(data), len(data) - layout.size
