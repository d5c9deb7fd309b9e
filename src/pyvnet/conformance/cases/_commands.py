# SPDX-License-Identifier: MIT
"""One good command for everything a device may offer, and a way to see that one took effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pyvnet.spec.ctrl import (
    AnnounceCommand,
    CtrlClass,
    GuestOffloadsCommand,
    MacCommand,
    MqCommand,
    RxCommand,
    VlanCommand,
    command_name,
    pack_guest_offloads,
    pack_mac_table,
    pack_vlan,
    pack_vq_pairs,
)
from pyvnet.spec.features import NO_FEATURES, REQUIREMENTS, Feature
from pyvnet.spec.offloads import GUEST_OFFLOADS
from pyvnet.spec.rss import VERIFICATION_KEY, HashConfig, RssConfig

if TYPE_CHECKING:
    from pyvnet.conformance.trial import Trial
    from pyvnet.driver import Driver

STATION = bytes.fromhex("0250564e4501")
GROUP = bytes.fromhex("01005e010203")


class Command(NamedTuple):
    """A command, the feature that brings it, and a payload that is in order.

    ``always``: OK is the only answer; not so where a device may say that there is nothing to do.
    """

    ctrl_class: int
    command: int
    feature: Feature
    payload: bytes
    always: bool = True

    @property
    def name(self) -> str:
        """The standard's."""
        return command_name(self.ctrl_class, self.command)

    @property
    def request(self) -> bytes:
        """All readable bytes."""
        return bytes([self.ctrl_class, self.command]) + self.payload


def _rx(command: RxCommand, feature: Feature, on: int) -> Command:
    return Command(CtrlClass.RX, command, feature, bytes([on]))


# HASH_CONFIG before RSS_CONFIG: while RSS is the mode it would be refused.
ALL = (
    _rx(RxCommand.PROMISC, Feature.CTRL_RX, 1),
    _rx(RxCommand.ALLMULTI, Feature.CTRL_RX, 1),
    _rx(RxCommand.ALLUNI, Feature.CTRL_RX_EXTRA, 0),
    _rx(RxCommand.NOMULTI, Feature.CTRL_RX_EXTRA, 0),
    _rx(RxCommand.NOUNI, Feature.CTRL_RX_EXTRA, 0),
    _rx(RxCommand.NOBCAST, Feature.CTRL_RX_EXTRA, 0),
    Command(
        CtrlClass.MAC, MacCommand.TABLE_SET, Feature.CTRL_RX, pack_mac_table([STATION], [GROUP])
    ),
    Command(CtrlClass.MAC, MacCommand.ADDR_SET, Feature.CTRL_MAC_ADDR, STATION),
    Command(CtrlClass.VLAN, VlanCommand.ADD, Feature.CTRL_VLAN, pack_vlan(7)),
    Command(CtrlClass.VLAN, VlanCommand.DEL, Feature.CTRL_VLAN, pack_vlan(7)),
    Command(CtrlClass.ANNOUNCE, AnnounceCommand.ACK, Feature.GUEST_ANNOUNCE, b"", always=False),
    Command(
        CtrlClass.MQ,
        MqCommand.HASH_CONFIG,
        Feature.HASH_REPORT,
        HashConfig(1, VERIFICATION_KEY).pack(),
    ),
    Command(
        CtrlClass.MQ,
        MqCommand.RSS_CONFIG,
        Feature.RSS,
        RssConfig(1, (0, 0), VERIFICATION_KEY).pack(),
    ),
    Command(CtrlClass.MQ, MqCommand.VQ_PAIRS_SET, Feature.MQ, pack_vq_pairs(1)),
    Command(
        CtrlClass.GUEST_OFFLOADS,
        GuestOffloadsCommand.SET,
        Feature.CTRL_GUEST_OFFLOADS,
        pack_guest_offloads(0),
    ),
)

CARRIERS = NO_FEATURES
for _command in ALL:
    CARRIERS |= _command.feature


def consistent(t: Trial, *without: Feature) -> Feature:
    """What the device offers of what brings commands, and what that needs, but not ``without``."""
    chosen = t.offered & (CARRIERS | Feature.MAC | Feature.CTRL_VQ | GUEST_OFFLOADS)
    for feature in without:
        chosen &= ~feature
    while lacking := [
        bit
        for bit, groups in REQUIREMENTS.items()
        if chosen & bit and not all(chosen & group for group in groups)
    ]:
        for bit in lacking:
            chosen &= ~bit
    return chosen


def commands(drv: Driver) -> list[Command]:
    """Those whose feature was negotiated, and that are answered OK."""
    return [command for command in ALL if command.always and drv.features & command.feature]


async def all_commands(t: Trial) -> tuple[Driver, list[Command]]:
    """A driver with everything that brings commands; none on offer: not applicable."""
    features = consistent(t)
    if not features & CARRIERS:
        t.not_applicable("the device offers no feature that brings a command")
    drv = await t.negotiate(features, pairs=1, rx_buffers=8)
    return drv, commands(drv)


def stations(count: int) -> list[bytes]:
    """As many addresses, all different."""
    return [STATION[:3] + number.to_bytes(3) for number in range(1, count + 1)]
