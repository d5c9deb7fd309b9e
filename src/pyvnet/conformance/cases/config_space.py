# SPDX-License-Identifier: MIT
"""Configuration space: "Device configuration layout"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyvnet.conformance.case import case
from pyvnet.conformance.cases._rings import exceeds
from pyvnet.spec.config import (
    CONFIG_SIZE,
    DUPLEX_FULL,
    DUPLEX_HALF,
    DUPLEX_UNKNOWN,
    MAX_MTU,
    MAX_QUEUE_PAIRS,
    MAX_SPEED,
    MIN_MTU,
    MIN_MTU_OFFERED,
    SPEED_UNKNOWN,
    LinkStatus,
    NetConfig,
)
from pyvnet.spec.features import Feature
from pyvnet.spec.rss import ALL_HASH_TYPES
from pyvnet.testing.frames import Ipv4, build, udp

if TYPE_CHECKING:
    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver

_ETHERNET: Final = 14
_HASHING: Final = Feature.RSS | Feature.HASH_REPORT
# Field → offset, size, and the features any of which makes it exist.
_FIELDS: Final = {
    "mac": (0, 6, Feature.MAC),
    "status": (6, 2, Feature.STATUS),
    "max_virtqueue_pairs": (8, 2, Feature.MQ | Feature.RSS),
    "mtu": (10, 2, Feature.MTU),
    "speed": (12, 4, Feature.SPEED_DUPLEX),
    "duplex": (16, 1, Feature.SPEED_DUPLEX),
    "rss_max_key_size": (17, 1, _HASHING),
    "rss_max_indirection_table_length": (18, 2, Feature.RSS),
    "supported_hash_types": (20, 4, _HASHING),
}


def _kept(t: Trial, drv: Driver) -> NetConfig:
    """Configuration space, if anybody keeps one: without CONFIG the front-end makes it up."""
    frontend = getattr(drv.transport, "keeps_config", True)
    if not frontend:
        t.not_applicable("the back-end has no configuration space (CONFIG)")
    return t.config


def _existing(features: Feature) -> dict[str, tuple[int, int]]:
    return {
        name: (offset, size)
        for name, (offset, size, any_of) in _FIELDS.items()
        if features & any_of
    }


@case("VIO-CFG-01")
async def fields_can_be_read_before_negotiation(t: Trial) -> None:
    """Fields of offered features read the same before FEATURES_OK and in operation."""
    drv = await t.driver()
    _kept(t, drv)
    early = NetConfig.unpack(await drv.transport.read_config(0, CONFIG_SIZE))
    drv = await t.negotiate(t.offered & (Feature.MAC | Feature.MTU | Feature.SPEED_DUPLEX))
    later = await drv.read_config()
    for name in _existing(t.offered):
        if name != "status":  # the link may go
            t.equal(getattr(early, name), getattr(later, name), f"{name} before negotiation")


@case("VIO-CFG-01")
async def a_field_alone_reads_as_in_one_piece(t: Trial) -> None:
    """A read of one field, or of its last byte, gives the bytes a read of everything gives."""
    drv = await t.driver()
    _kept(t, drv)
    whole = await drv.transport.read_config(0, CONFIG_SIZE)
    for name, (offset, size) in _existing(t.offered & ~Feature.STATUS).items():
        field = await drv.transport.read_config(offset, size)
        t.equal(field, whole[offset : offset + size], f"{name} read alone")
        last = offset + size - 1
        t.equal(await drv.transport.read_config(last, 1), whole[last : last + 1], f"end of {name}")


@case("VIO-CFG-01", needs=Feature.MAC)
async def the_address_is_one_a_station_can_have(t: Trial) -> None:
    """The MAC address is neither zero nor that of a group."""
    _kept(t, await t.driver())
    mac = t.config.mac
    t.check(any(mac) and not mac[0] & 1, f"mac is {mac.hex(':')}")


@case("NET-CFG-01")
async def the_number_of_pairs_is_possible(t: Trial) -> None:
    """max_virtqueue_pairs is from 1 to 0x8000 with MQ or RSS."""
    _kept(t, await t.driver())
    if not t.offered & (Feature.MQ | Feature.RSS):
        t.not_applicable("not offered: mq, rss")
    pairs = t.config.max_virtqueue_pairs
    t.check(1 <= pairs <= MAX_QUEUE_PAIRS, f"max_virtqueue_pairs is {pairs}")


@case("NET-CFG-02", needs=Feature.MTU)
async def the_mtu_is_possible(t: Trial) -> None:
    """The MTU is from 68 to 65535."""
    _kept(t, await t.driver())
    t.check(MIN_MTU <= t.config.mtu <= MAX_MTU, f"mtu is {t.config.mtu}")


@case("NET-CFG-03", needs=Feature.MTU)
async def the_mtu_is_enough_for_ipv6(t: Trial) -> None:
    """The MTU is at least 1280."""
    _kept(t, await t.driver())
    t.check(t.config.mtu >= MIN_MTU_OFFERED, f"mtu is {t.config.mtu}")


@case("NET-CFG-04", needs=Feature.MTU)
async def the_mtu_stays(t: Trial) -> None:
    """The MTU is the same after negotiation and after a reset."""
    _kept(t, await t.driver())
    drv = await t.negotiate(Feature.MTU)
    t.equal((await drv.read_config()).mtu, t.config.mtu, "mtu in operation")
    await drv.reset()
    t.equal((await drv.read_config()).mtu, t.config.mtu, "mtu after a reset")


def _frame(t: Trial, size: int) -> bytes:
    """A frame of so many bytes, for the device's own address."""
    plain = len(bytes(build(Ipv4(), udp(7, 7))))
    mac = t.config.mac if t.offered & Feature.MAC else b"\x02\0\0\0\0\7"
    return mac + bytes(build(Ipv4(), udp(7, 7, bytes(size - plain))))[6:]


@case("NET-CFG-05", "U-51", needs=Feature.MTU, wire=True)
async def no_frame_beyond_the_mtu_is_received(t: Trial) -> None:
    """A frame one byte longer than MTU and Ethernet header does not come; the one after it does."""
    drv = await t.negotiate(Feature.MTU)
    exceeds(t, t.config.mtu)
    most = t.config.mtu + _ETHERNET
    await t.inject(_frame(t, most + 1))
    await t.inject(_frame(t, most - 1))
    t.equal(len((await t.receive(drv)).data), most - 1, "bytes of the first frame received")


@case("NET-CFG-06", needs=Feature.MTU, wire=True)
async def a_frame_as_long_as_the_mtu_passes_whole(t: Trial) -> None:
    """A frame of MTU and Ethernet header crosses in either direction, in one piece."""
    drv = await t.negotiate(Feature.MTU)
    longest = _frame(t, t.config.mtu + _ETHERNET)
    await t.inject(longest)
    t.equal((await t.receive(drv)).data, longest, "the frame received")
    await drv.send(longest)
    t.equal((await t.sent()).data, longest, "the frame on the wire")


@case("NET-CFG-07")
async def the_key_can_be_long_enough(t: Trial) -> None:
    """rss_max_key_size is at least 40 with RSS or HASH_REPORT."""
    _kept(t, await t.driver())
    if not t.offered & _HASHING:
        t.not_applicable("not offered: rss, hash_report")
    t.check(t.config.rss_max_key_size >= 40, f"rss_max_key_size is {t.config.rss_max_key_size}")


@case("NET-CFG-08", needs=Feature.RSS)
async def the_table_can_be_long_enough(t: Trial) -> None:
    """rss_max_indirection_table_length is at least 128."""
    _kept(t, await t.driver())
    length = t.config.rss_max_indirection_table_length
    t.check(length >= 128, f"rss_max_indirection_table_length is {length}")


@case("NET-REP-03", level="DESC")
async def hash_types_are_those_that_exist(t: Trial) -> None:
    """supported_hash_types has bits, and none beyond the nine types."""
    _kept(t, await t.driver())
    if not t.offered & _HASHING:
        t.not_applicable("not offered: rss, hash_report")
    types = t.config.supported_hash_types
    t.check(types and not types & ~ALL_HASH_TYPES, f"supported_hash_types is {types:#x}")


@case("NET-CFG-09", "NET-CFG-10", needs=Feature.SPEED_DUPLEX)
async def speed_and_duplex_are_possible(t: Trial) -> None:
    """Speed is up to 0x7fffffff or unknown; duplex is half, full or unknown."""
    _kept(t, await t.driver())
    speed, duplex = t.config.speed, t.config.duplex
    t.check(speed <= MAX_SPEED or speed == SPEED_UNKNOWN, f"speed is {speed:#x}")
    t.check(duplex in {DUPLEX_HALF, DUPLEX_FULL, DUPLEX_UNKNOWN}, f"duplex is {duplex:#x}")


@case("NET-CFG-11", needs=Feature.SPEED_DUPLEX | Feature.STATUS)
async def speed_and_duplex_stay_while_the_link_is_up(t: Trial) -> None:
    """Speed and duplex are the same after negotiation, as long as the link is up."""
    drv = await t.negotiate(Feature.SPEED_DUPLEX | Feature.STATUS)
    first = drv.config
    again = await drv.read_config()
    if not first.status & again.status & LinkStatus.LINK_UP:
        t.not_applicable("the link is down")
    seen = again.speed, again.duplex
    t.equal(seen, (first.speed, first.duplex), "speed and duplex, a little later")


@case("NET-CFG-15", needs=Feature.STATUS)
async def the_link_status_has_no_other_bits(t: Trial) -> None:
    """The status field has LINK_UP and ANNOUNCE at most."""
    drv = await t.negotiate(Feature.STATUS)
    other = drv.config.status & ~int(LinkStatus.LINK_UP | LinkStatus.ANNOUNCE)
    t.check(not other, f"status is {drv.config.status:#x}")
    t.check(not t.config.status & LinkStatus.ANNOUNCE, "ANNOUNCE is set before anybody asked")
