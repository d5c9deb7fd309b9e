# SPDX-License-Identifier: MIT
"""Control virtqueue commands: classes, command codes, framing.

Request: ``u8 class, u8 command, data…`` (device-readable); answer: ``u8 ack,
result…`` (device-writable).  Payload codecs of RSS and hash configuration live
in ``rss.py``, the masks of class GUEST_OFFLOADS in ``offloads.py``.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

CTRL_HDR_SIZE: Final = 2
ACK_SIZE: Final = 1
MAC_SIZE: Final = 6
MAX_VLAN: Final = 4095  # highest VLAN id: 12 bits


class Ack(IntEnum):
    """First device-writable byte of every command."""

    OK = 0
    ERR = 1


class CtrlClass(IntEnum):
    """``VIRTIO_NET_CTRL_*`` classes."""

    RX = 0
    MAC = 1
    VLAN = 2
    ANNOUNCE = 3
    MQ = 4
    GUEST_OFFLOADS = 5
    NOTF_COAL = 6
    HASH_TUNNEL = 7
    STATS = 8
    RSS_CTX = 9


class RxCommand(IntEnum):
    """Commands of class RX; the first two come with CTRL_RX, the others with CTRL_RX_EXTRA."""

    PROMISC = 0
    ALLMULTI = 1
    ALLUNI = 2
    NOMULTI = 3
    NOUNI = 4
    NOBCAST = 5


class MacCommand(IntEnum):
    """Commands of class MAC."""

    TABLE_SET = 0
    ADDR_SET = 1


class VlanCommand(IntEnum):
    """Commands of class VLAN."""

    ADD = 0
    DEL = 1


class AnnounceCommand(IntEnum):
    """Commands of class ANNOUNCE."""

    ACK = 0


class GuestOffloadsCommand(IntEnum):
    """Commands of class GUEST_OFFLOADS."""

    SET = 0


class MqCommand(IntEnum):
    """Commands of class MQ."""

    VQ_PAIRS_SET = 0
    RSS_CONFIG = 1
    HASH_CONFIG = 2


# (class, command) -> the standard's name; used for logs, errors and reports.
COMMAND_NAMES: Final[dict[tuple[int, int], str]] = {
    (0, 0): "RX_PROMISC", (0, 1): "RX_ALLMULTI", (0, 2): "RX_ALLUNI", (0, 3): "RX_NOMULTI",
    (0, 4): "RX_NOUNI", (0, 5): "RX_NOBCAST", (1, 0): "MAC_TABLE_SET", (1, 1): "MAC_ADDR_SET",
    (2, 0): "VLAN_ADD", (2, 1): "VLAN_DEL", (3, 0): "ANNOUNCE_ACK", (4, 0): "MQ_VQ_PAIRS_SET",
    (4, 1): "MQ_RSS_CONFIG", (4, 2): "MQ_HASH_CONFIG", (5, 0): "GUEST_OFFLOADS_SET",
    (6, 0): "NOTF_COAL_TX_SET", (6, 1): "NOTF_COAL_RX_SET", (6, 2): "NOTF_COAL_VQ_SET",
    (6, 3): "NOTF_COAL_VQ_GET", (7, 0): "HASH_TUNNEL_SET", (8, 0): "STATS_QUERY",
    (8, 1): "STATS_GET", (9, 0): "RSS_CTX_CAP_GET", (9, 1): "RSS_CTX_ADD", (9, 2): "RSS_CTX_MOD",
    (9, 3): "RSS_CTX_DEL",
}  # fmt: skip


def command_name(ctrl_class: int, command: int) -> str:
    """The standard's name, or ``class N command M``."""
    return COMMAND_NAMES.get((ctrl_class, command), f"class {ctrl_class} command {command}")


def pack_vq_pairs(pairs: int) -> bytes:
    """Payload of MQ_VQ_PAIRS_SET."""
    return struct.pack("<H", pairs)


def pack_mac_table(unicast: Sequence[bytes], multicast: Sequence[bytes]) -> bytes:
    """Payload of MAC_TABLE_SET: two lists of 6-byte addresses, each behind its le32 count."""
    return b"".join(
        struct.pack("<I", len(addresses)) + b"".join(addresses)
        for addresses in (unicast, multicast)
    )


def pack_vlan(vid: int) -> bytes:
    """Payload of VLAN_ADD and VLAN_DEL."""
    return struct.pack("<H", vid)


def pack_guest_offloads(offloads: int) -> bytes:
    """Payload of GUEST_OFFLOADS_SET: the mask of what shall be on."""
    return struct.pack("<Q", offloads)
