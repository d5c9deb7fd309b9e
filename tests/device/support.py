# SPDX-License-Identifier: MIT
"""A driver's hand on a sans-IO device: raw commands, and the usual way to DRIVER_OK.

Commands are packed here byte by byte from the standard's structures, not by
the codecs under test.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, TypeVar

from pyvnet.device.device import DeviceSettings, Transition, VirtioNetDevice
from pyvnet.device.effects import SetPolicy
from pyvnet.device.settings import DEFAULT_OFFER
from pyvnet.spec.features import Feature
from pyvnet.spec.transport import QueueSetup

if TYPE_CHECKING:
    from pyvnet.device.device import ControlTransition
    from pyvnet.device.steering import Policy

T = TypeVar("T", bound=Transition)

MAC = bytes.fromhex("525400c0ffee")
KEY = bytes(range(1, 41))
OK, ERR = b"\0", b"\1"
PAIRS = 4
OFFER = DEFAULT_OFFER


def device(
    pairs: int = PAIRS,
    *,
    offered: Feature = OFFER,
    compat: str = "",
    relaxed: bool = False,
    **settings: Any,
) -> VirtioNetDevice:
    """A device no driver has touched."""
    switches = frozenset(compat.split())
    return VirtioNetDevice(
        DeviceSettings(
            pairs, MAC, offered, compat=switches, relaxed_dependencies=relaxed, **settings
        )
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


def start(target: VirtioNetDevice, features: int = int(OFFER)) -> Transition:
    """Negotiate, set up every queue of the layout, and go to DRIVER_OK."""
    negotiate(target, features)
    for index in range(target.queue_count):
        commit(target, target.configure_queue(ring(index)))
    return commit(target, target.write_status(15))


def running(
    features: int = int(OFFER), pairs: int = PAIRS, *, compat: str = "", **settings: Any
) -> VirtioNetDevice:
    """A device at DRIVER_OK."""
    target = device(pairs, compat=compat, **settings)
    start(target, features)
    return target


def without(*dropped: Feature) -> int:
    """The offer less some bits."""
    return int(OFFER) & ~sum(int(bit) for bit in dropped)


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


def rx_mode(command: int, value: int) -> bytes:
    return bytes([0, command, value])


def mac_table(
    unicast: tuple[bytes, ...] = (),
    multicast: tuple[bytes, ...] = (),
    *,
    counts: tuple[int, int] | None = None,
) -> bytes:
    first, second = counts or (len(unicast), len(multicast))
    tables = struct.pack("<I", first), *unicast, struct.pack("<I", second), *multicast
    return b"\1\0" + b"".join(tables)


def mac_address(address: bytes) -> bytes:
    return b"\1\1" + address


def vlan_add(vid: int) -> bytes:
    return struct.pack("<BBH", 2, 0, vid)


def vlan_delete(vid: int) -> bytes:
    return struct.pack("<BBH", 2, 1, vid)


def guest_offloads(mask: int) -> bytes:
    return struct.pack("<BBQ", 5, 0, mask)


def station(number: int) -> bytes:
    """A unicast address of its own."""
    return b"\2\xaa" + struct.pack(">I", number)


def group(number: int) -> bytes:
    """A multicast address of its own."""
    return b"\x33\x33" + struct.pack(">I", number)


ANNOUNCE_ACK = b"\3\0"

# One good command of each kind that changes something, and the feature it needs.
COMMANDS: dict[str, tuple[bytes, Feature]] = {
    "RX_PROMISC": (rx_mode(0, 0), Feature.CTRL_RX),
    "RX_ALLMULTI": (rx_mode(1, 1), Feature.CTRL_RX),
    "RX_ALLUNI": (rx_mode(2, 1), Feature.CTRL_RX_EXTRA),
    "RX_NOMULTI": (rx_mode(3, 1), Feature.CTRL_RX_EXTRA),
    "RX_NOUNI": (rx_mode(4, 1), Feature.CTRL_RX_EXTRA),
    "RX_NOBCAST": (rx_mode(5, 1), Feature.CTRL_RX_EXTRA),
    "MAC_TABLE_SET": (mac_table((station(1), station(2)), (group(1),)), Feature.CTRL_RX),
    "MAC_ADDR_SET": (mac_address(station(9)), Feature.CTRL_MAC_ADDR),
    "VLAN_ADD": (vlan_add(7), Feature.CTRL_VLAN),
    "VLAN_DEL": (vlan_delete(100), Feature.CTRL_VLAN),
    "ANNOUNCE_ACK": (ANNOUNCE_ACK, Feature.GUEST_ANNOUNCE),
    "VQ_PAIRS_SET": (vq_pairs(2), Feature.MQ),
    "RSS_CONFIG": (rss(), Feature.RSS),
    "HASH_CONFIG": (hash_config(), Feature.HASH_REPORT),
    "GUEST_OFFLOADS_SET": (guest_offloads(2), Feature.CTRL_GUEST_OFFLOADS),
}


def touched(features: int = int(OFFER), **settings: Any) -> VirtioNetDevice:
    """A running device on which each command of ``COMMANDS`` changes something."""
    target = running(features, **settings)
    commit(target, target.announce())
    for request in (hash_config(1, b"\7" * 40), vlan_add(100), mac_table((station(3),))):
        target.commit(target.control(request, 1))
    return target


def begin_anew(target: VirtioNetDevice) -> Transition:
    """A front-end found that its driver began anew."""
    return commit(target, target.begin_anew())


def new_policy(transition: Transition) -> Policy:
    """The policy a transition asks for; there must be exactly one."""
    (policy,) = [effect.policy for effect in transition.effects if isinstance(effect, SetPolicy)]
    return policy
