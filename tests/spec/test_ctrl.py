# SPDX-License-Identifier: MIT
"""Payloads of control commands, byte by byte, and the masks of offloads."""

from __future__ import annotations

import pytest

from pyvnet.spec.ctrl import (
    COMMAND_NAMES,
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
from pyvnet.spec.features import Feature
from pyvnet.spec.offloads import GUEST_OFFLOADS, HOST_OFFLOADS, deliverable

FIRST, SECOND, GROUP = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2", b"\x33\x33\0\0\0\1"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (pack_vq_pairs(0x102), "0201"),
        (pack_vlan(0xFFE), "fe0f"),
        (pack_guest_offloads(1 << 54 | 2), "0200000000004000"),
        (pack_mac_table([], []), "0000000000000000"),
        (
            pack_mac_table([FIRST, SECOND], [GROUP]),
            "0200000002000000000102000000000201000000333300000001",
        ),
    ],
)
def test_payloads(payload: bytes, expected: str) -> None:
    assert payload.hex() == expected


@pytest.mark.parametrize(
    ("ctrl_class", "commands"),
    [
        (CtrlClass.RX, RxCommand),
        (CtrlClass.MAC, MacCommand),
        (CtrlClass.VLAN, VlanCommand),
        (CtrlClass.ANNOUNCE, AnnounceCommand),
        (CtrlClass.MQ, MqCommand),
        (CtrlClass.GUEST_OFFLOADS, GuestOffloadsCommand),
    ],
)
def test_commands_of_a_class_are_those_it_has_names_for(
    ctrl_class: CtrlClass, commands: type[RxCommand]
) -> None:
    """The enumerations and the list of names agree, number by number."""
    expected = {f"{ctrl_class.name}_{command.name}" for command in commands}
    names = {command_name(ctrl_class, command) for command in commands}
    of_class = {name for (number, _), name in COMMAND_NAMES.items() if number == ctrl_class}
    assert names == expected == of_class


def test_command_without_a_name() -> None:
    assert command_name(200, 3) == "class 200 command 3"


@pytest.mark.requirement("NET-OFL-02")
def test_masks_hold_the_positions_the_standard_gives() -> None:
    assert sum(1 << bit for bit in (1, 7, 8, 9, 10, 54, 55)) == GUEST_OFFLOADS
    assert sum(1 << bit for bit in (0, 11, 12, 13, 14, 56)) == HOST_OFFLOADS


@pytest.mark.requirement("NET-RX-12")
@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (0, 0),
        (Feature.GUEST_CSUM, Feature.GUEST_CSUM),
        (Feature.GUEST_TSO4 | Feature.GUEST_USO6, 0),
        (Feature.GUEST_CSUM | Feature.GUEST_ECN, Feature.GUEST_CSUM),
        (Feature.GUEST_ECN | Feature.GUEST_TSO6, 0),
        (GUEST_OFFLOADS, GUEST_OFFLOADS),
        (GUEST_OFFLOADS | 1 << 61 | 1 << 99, GUEST_OFFLOADS),
    ],
)
def test_offloads_that_others_stand_on(mask: int, expected: int) -> None:
    assert deliverable(mask) == expected
