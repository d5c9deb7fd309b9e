# SPDX-License-Identifier: MIT
"""A driver's hand on a sans-IO device: raw commands, and the usual way to DRIVER_OK.

Commands are packed here byte by byte from the standard's structures, not by
the codecs under test.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeVar

from pyvnet.device.device import DEFAULT_OFFER, DeviceSettings, Transition, VirtioNetDevice
from pyvnet.device.effects import SetPolicy
from pyvnet.spec.transport import QueueSetup

if TYPE_CHECKING:
    from pyvnet.device.device import ControlTransition
    from pyvnet.device.steering import Policy
    from pyvnet.spec.features import Feature

T = TypeVar("T", bound=Transition)

MAC = bytes.fromhex("525400c0ffee")
KEY = bytes(range(1, 41))
OK, ERR = b"\0", b"\1"
PAIRS = 4


def device(
    pairs: int = PAIRS,
    *,
    offered: Feature = DEFAULT_OFFER,
    compat: str = "",
    relaxed: bool = False,
) -> VirtioNetDevice:
    """A device no driver has touched."""
    switches = frozenset(compat.split())
    return VirtioNetDevice(
        DeviceSettings(pairs, MAC, offered, compat=switches, relaxed_dependencies=relaxed)
    )


def commit(target: VirtioNetDevice, transition: T) -> T:
    """What a runtime does whose world takes every effect."""
    target.commit(transition)
    return transition


def ring(index: int, **changes: int) -> QueueSetup:
    """A well-formed ring of 256 descriptors in an area of its own."""
    base = 0x10000 * (index + 1)
    layout = {"desc_table": base, "avail_ring": base + 0x1000, "used_ring": base + 0x2000}
    return QueueSetup(**{"index": index, "size": 256, **layout, **changes})


def negotiate(target: VirtioNetDevice, features: int) -> None:
    """Climb to FEATURES_OK, or to where the device leaves it off."""
    commit(target, target.write_status(1))
    commit(target, target.write_status(3))
    commit(target, target.write_driver_features(features))
    commit(target, target.write_status(11))


def start(target: VirtioNetDevice, features: int = int(DEFAULT_OFFER)) -> Transition:
    """Negotiate, set up every queue of the layout, and go to DRIVER_OK."""
    negotiate(target, features)
    for index in range(target.queue_count):
        commit(target, target.configure_queue(ring(index)))
    return commit(target, target.write_status(15))


def running(
    features: int = int(DEFAULT_OFFER), pairs: int = PAIRS, *, compat: str = ""
) -> VirtioNetDevice:
    """A device at DRIVER_OK."""
    target = device(pairs, compat=compat)
    start(target, features)
    return target


def without(*dropped: Feature) -> int:
    """The default offer less some bits."""
    return int(DEFAULT_OFFER) & ~sum(int(bit) for bit in dropped)


def send(target: VirtioNetDevice, request: bytes, writable: int = 1) -> ControlTransition:
    """Have a control command executed and committed."""
    return commit(target, target.control(request, writable))


def vq_pairs(pairs: int) -> bytes:
    return struct.pack("<BBH", 4, 0, pairs)


def rss(
    table: tuple[int, ...] = (0, 1, 2, 3),
    *,
    types: int = 0x3F,
    mask: int | None = None,
    unclassified: int = 0,
    max_tx_vq: int = PAIRS,
    key: bytes = KEY,
    key_length: int | None = None,
) -> bytes:
    mask = len(table) - 1 if mask is None else mask
    length = len(key) if key_length is None else key_length
    head = struct.pack("<BBIHH", 4, 1, types, mask, unclassified)
    entries = struct.pack(f"<{len(table)}H", *table)
    return head + entries + struct.pack("<HB", max_tx_vq, length) + key


def hash_config(
    types: int = 0x3F,
    key: bytes = KEY,
    *,
    key_length: int | None = None,
    reserved: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> bytes:
    length = len(key) if key_length is None else key_length
    return struct.pack("<BBI4HB", 4, 2, types, *reserved, length) + key


def new_policy(transition: Transition) -> Policy:
    """The policy a transition asks for; there must be exactly one."""
    (policy,) = [effect.policy for effect in transition.effects if isinstance(effect, SetPolicy)]
    return policy
