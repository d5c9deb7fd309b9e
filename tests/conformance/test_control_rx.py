# SPDX-License-Identifier: MIT
"""Class RX: the receive modes, from the driver's side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pyvnet.device.rxfilter import RxFilter
from pyvnet.spec.features import Feature
from tests.device.support import (
    ERR,
    OK,
    begin_anew,
    commit,
    mac_table,
    new_policy,
    running,
    rx_mode,
    send,
    start,
    station,
    vlan_add,
    without,
)

BASIC = {0: "promisc", 1: "allmulti"}
EXTRA = {2: "alluni", 3: "nomulti", 4: "nouni", 5: "nobcast"}
MODES = BASIC | EXTRA


@pytest.mark.requirement("U-31", "NET-FLT-09")
@pytest.mark.parametrize("features", [without(), without(Feature.CTRL_RX), 1 << 32])
def test_everything_is_received_until_a_command_comes(features: int) -> None:
    """Promiscuous, all other modes off, tables empty: after initialisation and after reset."""
    target = running(features)
    assert target.policy.rx_filter == RxFilter(promisc=True)
    send(target, rx_mode(0, 0))
    send(target, rx_mode(3, 1))
    assert new_policy(commit(target, target.reset())).rx_filter == RxFilter()


@pytest.mark.requirement("NET-FLT-01", "NET-FLT-04")
@pytest.mark.parametrize("command", MODES)
def test_each_mode_is_switched_alone(command: int) -> None:
    """One byte on, one off; the other modes, the tables and the rest stay."""
    target = running()
    send(target, mac_table((station(1),)))
    send(target, vlan_add(5))
    before = target.policy
    for value in (1, 0, 0, 1, 1):
        policy = new_policy(send(target, rx_mode(command, value)))
        changes: dict[str, Any] = {MODES[command]: bool(value)}
        changed = replace(before.rx_filter, **changes)
        assert policy == replace(before, rx_filter=changed)


@pytest.mark.requirement("U-32")
@pytest.mark.parametrize("command", MODES)
@pytest.mark.parametrize("value", [2, 0x7F, 0x80, 0xFF])
def test_any_byte_but_zero_is_on(command: int, value: int) -> None:
    target = running()
    send(target, rx_mode(command, 0))
    assert send(target, rx_mode(command, value)).answer == OK
    assert getattr(target.policy.rx_filter, MODES[command]) is True


@pytest.mark.requirement("U-33", "OUR-CVQ-04", "NET-FLT-01", "NET-FLT-04")
def test_modes_come_with_their_feature() -> None:
    """The extra modes without CTRL_RX_EXTRA are ERR, and so are the basic without CTRL_RX."""
    for dropped, refused in ((Feature.CTRL_RX, BASIC), (Feature.CTRL_RX_EXTRA, EXTRA)):
        target = running(without(dropped))
        for command in MODES:
            answer = send(target, rx_mode(command, 1)).answer
            assert answer == (ERR if command in refused else OK)


@pytest.mark.requirement("OUR-CVQ-05")
@pytest.mark.parametrize("command", [6, 7, 0xFF])
def test_mode_that_does_not_exist(command: int) -> None:
    assert send(running(), rx_mode(command, 1)).answer == ERR


@pytest.mark.requirement("NET-FLT-09", "U-48")
def test_modes_do_not_outlive_the_driver() -> None:
    target = running()
    for command in MODES:
        send(target, rx_mode(command, MODES[command] != "promisc"))
    begin_anew(target)
    assert target.policy.rx_filter == RxFilter()
    for command in MODES:
        send(target, rx_mode(command, 1))
    commit(target, target.reset())
    start(target)
    assert target.policy.rx_filter == RxFilter()
