# SPDX-License-Identifier: MIT
"""Random control commands of every class QEMU has: right ones, and wrong ones of all kinds."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pyvnet.driver.control import CtrlLayout
from pyvnet.spec.ctrl import CtrlClass, MqCommand, pack_mac_table
from pyvnet.spec.features import Feature
from pyvnet.spec.offloads import GUEST_OFFLOADS
from pyvnet.spec.rss import HashConfig, RssConfig

if TYPE_CHECKING:
    import random

PAIRS: Final = 4
_MASKS: Final = (1, 2, 3, 8, 16, 64, 127, 128, 129, 256)


def some(rng: random.Random, *usual: int, below: int) -> int:
    """One of the usual values, or any other."""
    return rng.choice(usual) if rng.random() < 0.8 else rng.randrange(below)


def random_types(rng: random.Random) -> int:
    """All, those of Linux, any subset, now and then a type that does not exist."""
    return some(rng, 0x1FF, 0x3F, rng.randrange(1, 0x200), 0, 0, below=1 << 32)


def random_key(rng: random.Random) -> bytes:
    """Mostly as long as it may be, now and then none at all."""
    if rng.random() < 0.1:
        return b""
    return rng.randbytes(some(rng, 40, 40, 40, 40, 16, rng.randrange(41), below=256))


def rss_config(rng: random.Random) -> bytes:
    """MQ_RSS_CONFIG: right, with one thing wrong, or with anything anywhere."""
    if rng.random() < 0.1:
        return RssConfig(0, (3, 2, 1, 0), b"", rng.randrange(PAIRS), PAIRS).pack()
    wrong = rng.choices(
        ("nothing", "anything", "entry", "types", "size", "key"), (9, 4, 2, 2, 1, 2)
    )[0]
    anything = wrong == "anything"
    size = rng.choice(_MASKS) if anything or wrong == "size" else 1 << rng.randrange(8)
    table = tuple(rng.randrange(PAIRS) for _ in range(size))
    if wrong == "entry":
        table = (*table[1:], some(rng, PAIRS, 0x8000, 0xFFFF, below=0x10000))
    return RssConfig(
        random_types(rng) if anything or wrong == "types" else rng.choice((0x1FF, 0x3F)),
        table,
        random_key(rng) if anything or wrong == "key" else rng.randbytes(40),
        some(rng, 0, PAIRS - 1, PAIRS, 0x8000, below=0x10000) if anything else rng.randrange(PAIRS),
        some(rng, 1, 2, PAIRS, 0, PAIRS + 1, below=0x10000) if anything else rng.choice((1, PAIRS)),
        0xFFFF if anything and rng.random() < 0.1 else None,
    ).pack()


def hash_config(rng: random.Random) -> bytes:
    """MQ_HASH_CONFIG, what is reserved in it zero or not."""
    reserved = [0] * 4 if rng.random() < 0.5 else [rng.randrange(0x10000) for _ in range(4)]
    a, b, c, d = reserved
    return HashConfig(random_types(rng), random_key(rng), (a, b, c, d)).pack()


def mac_table(rng: random.Random) -> bytes:
    """MAC_TABLE_SET; counts that do not fit what follows, up to those that wrap in 32 bits."""
    sizes = [some(rng, 0, 1, 2, 63, 64, 65, below=80) for _ in range(2)]
    unicast, multicast = ([rng.randbytes(6) for _ in range(size)] for size in sizes)
    data = bytearray(pack_mac_table(unicast, multicast))
    if rng.random() < 0.6:
        at = rng.choice((0, 4 + 6 * sizes[0]))
        wrapped = (1 << 31) + sizes[at > 0]  # six times that is the right size, modulo 2^32
        struct.pack_into("<I", data, at, some(rng, wrapped, wrapped, 0xFFFF_FFFF, below=1 << 32))
    return bytes(data)


def _mac(rng: random.Random) -> tuple[int, bytes]:
    if rng.random() < 0.5:
        return 0, mac_table(rng)
    return 1, rng.choice((b"\x02", b"\x02", b"\x01", b"\0")) + rng.choice(
        (rng.randbytes(5), bytes(5))
    )


def _mq(rng: random.Random) -> tuple[int, bytes]:
    code = rng.choices(list(MqCommand), (2, 6, 3))[0]
    if code == MqCommand.RSS_CONFIG:
        return code, rss_config(rng)
    if code == MqCommand.HASH_CONFIG:
        return code, hash_config(rng)
    return code, struct.pack("<H", some(rng, 1, 2, 3, 4, 0, 5, below=0x10000))


def _offloads(rng: random.Random) -> tuple[int, bytes]:
    usual = Feature.GUEST_CSUM | Feature.GUEST_TSO4 | Feature.GUEST_TSO6
    bits = rng.choice((usual, usual, Feature.GUEST_CSUM, GUEST_OFFLOADS))
    mask = sum(int(bit) for bit in bits if rng.random() < 0.5)
    if rng.random() < 0.5:
        mask |= 1 << rng.choice((0, 2, 46, 54, 61, 61, 61, 61, 63))
    return 0, struct.pack("<Q", mask)


def random_command(rng: random.Random) -> bytes:
    """The readable bytes of one command."""
    match ctrl_class := rng.choices(range(7), (3, 8, 3, 2, 14, 6, 1))[0]:
        case CtrlClass.RX:
            code, data = rng.randrange(6), bytes([some(rng, 1, 1, 0, below=256)])
        case CtrlClass.MAC:
            code, data = _mac(rng)
        case CtrlClass.VLAN:
            vid = some(rng, 0, 1, 100, 4095, 4096, below=0x10000)
            code, data = rng.randrange(2), struct.pack("<H", vid)
        case CtrlClass.MQ:
            code, data = _mq(rng)
        case CtrlClass.GUEST_OFFLOADS:
            code, data = _offloads(rng)
        case CtrlClass.ANNOUNCE:
            code, data = 0, b""
        case _:
            ctrl_class, code, data = rng.randrange(256), rng.randrange(8), rng.randbytes(8)
    return _damaged(bytes([ctrl_class, code]) + data, rng)


def _damaged(request: bytes, rng: random.Random) -> bytes:
    """As it is most of the time; else cut, too long, with another code, or with a byte changed."""
    match rng.randrange(10):
        case 0:
            return request[: rng.randrange(2, len(request) + 1)]
        case 1 | 2:
            return request + rng.randbytes(rng.choice((1, 1, 2, 6, 40)))
        case 3 if rng.random() < 0.5:
            return request[:1] + bytes([rng.randrange(256)]) + request[2:]
        case 4 if len(request) > 2:
            at = rng.randrange(2, len(request))
            return request[:at] + rng.randbytes(1) + request[at + 1 :]
    return request


def random_layout(request: bytes, rng: random.Random) -> CtrlLayout:
    """Any cut of the request, and none in front of the ack."""
    cuts = tuple(rng.randrange(1, len(request) + 2) for _ in range(rng.randrange(4)))
    return CtrlLayout(request=cuts)
