# SPDX-License-Identifier: MIT
"""Class MAC: the table of addresses to receive, and the device's own address."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvnet.device.rxfilter import RxFilter
from pyvnet.spec.ctrl import pack_mac_table
from pyvnet.spec.features import Feature
from tests.device.support import (
    ERR,
    MAC,
    OK,
    commit,
    group,
    mac_address,
    mac_table,
    new_policy,
    running,
    rx_mode,
    send,
    start,
    station,
    touched,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.device.device import Transition

LIMIT = 4
addresses = st.lists(st.binary(min_size=6, max_size=6), max_size=2 * LIMIT)


@pytest.mark.requirement("NET-FLT-10", "NET-FLT-12")
def test_table_comes_with_the_answer() -> None:
    """Both lists, in the driver's order, and nothing else changes."""
    target = running()
    send(target, rx_mode(0, 0))
    before = target.policy
    uni, multi = (station(2), station(1)), (group(9),)
    policy = new_policy(send(target, mac_table(uni, multi)))
    filtered = replace(before.rx_filter, unicast=uni, multicast=multi)
    assert policy == replace(before, rx_filter=filtered)


def test_a_table_replaces_the_one_before() -> None:
    target = running()
    send(target, mac_table((station(1),), (group(1), group(2))))
    send(target, mac_table((), (group(3),)))
    rx_filter = target.policy.rx_filter
    assert (rx_filter.unicast, rx_filter.multicast) == ((), (group(3),))
    assert send(target, mac_table()).answer == OK
    assert target.policy.rx_filter == RxFilter()


@pytest.mark.requirement("CVE-2014-0150", "OUR-CVQ-10", "U-04")
@pytest.mark.parametrize(
    "counts",
    [
        (0xFFFFFFFF, 0),
        (0, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (1, 0xFFFFFFFF),
        (0xFFFFFFFF, 2),
        (0x80000000, 0x80000000),
        # 6 * n wraps around 32 bits to 4, 2, 0 and 6.
        (0x2AAAAAAB, 0),
        (0x2AAAAAAB, 0x2AAAAAAB),
        (0xAAAAAAAB, 0),
        (0x80000001, 0x80000000),
        (3, 0),
        (2, 1),
        (0, 4),
    ],
)
@pytest.mark.parametrize("writable", [1, 65536])
def test_count_that_promises_more_than_follows(counts: tuple[int, int], writable: int) -> None:
    """ERR, and the table in force stays, whatever the counts come to when multiplied."""
    target = running()
    send(target, mac_table((station(8),), (group(8),)))
    before = target.state
    request = mac_table((station(1), station(2)), (), counts=counts)
    transition = send(target, request, writable)
    assert (transition.answer, transition.effects) == (ERR, ())
    assert target.state.control == before.control
    assert target.state.counters.control_short == 1


@pytest.mark.requirement("U-06")
def test_second_count_may_not_be_missing_but_bytes_may_follow() -> None:
    target = touched()
    before = target.state.control
    whole = mac_table((station(1),), (group(1),))
    assert send(target, whole[:12]).answer == ERR
    assert target.state.control == before
    assert send(target, whole + b"\xee" * 7).answer == OK
    assert target.policy.rx_filter.multicast == (group(1),)
    assert target.state.counters.control_surplus_bytes == 7


@pytest.mark.requirement("U-36", "NET-FLT-13")
@pytest.mark.parametrize(("uni", "multi"), [(0, 4), (4, 4), (5, 4), (4, 5), (6, 9), (64, 0)])
def test_class_that_overflows_is_received_whole(uni: int, multi: int) -> None:
    """As many as the device keeps are kept; one more, and the class overflows, alone."""
    target = running(max_macs=LIMIT)
    stations = tuple(station(number) for number in range(uni))
    groups = tuple(group(number) for number in range(multi))
    transition = send(target, mac_table(stations, groups))
    assert transition.answer == OK
    assert new_policy(transition).rx_filter == RxFilter(
        unicast=stations if uni <= LIMIT else (),
        multicast=groups if multi <= LIMIT else (),
        unicast_overflow=uni > LIMIT,
        multicast_overflow=multi > LIMIT,
    )
    assert bool(transition.note) == (uni > LIMIT or multi > LIMIT)
    assert send(target, mac_table((station(1),), (group(1),))).answer == OK
    assert target.policy.rx_filter == RxFilter(unicast=(station(1),), multicast=(group(1),))


@pytest.mark.requirement("U-36")
def test_sixty_four_of_each_are_kept_by_default() -> None:
    target = running()
    for many, overflow in ((64, False), (65, True)):
        stations = tuple(station(number) for number in range(many))
        send(target, mac_table(stations, stations))
        rx_filter = target.policy.rx_filter
        assert rx_filter.unicast_overflow is overflow
        assert rx_filter.multicast_overflow is overflow


@pytest.mark.requirement("U-36")
def test_largest_table() -> None:
    target = running(max_macs=4096)
    stations = tuple(station(number) for number in range(4096))
    assert send(target, mac_table(stations, stations)).answer == OK
    assert target.policy.rx_filter.unicast == stations


@pytest.mark.requirement("U-37")
def test_table_entries_are_stored_as_given() -> None:
    """A multicast, broadcast or zero address in either list, or one twice: the driver's choice."""
    target = running()
    odd = (group(1), b"\xff" * 6, bytes(6), station(1), station(1))
    assert send(target, mac_table(odd, odd)).answer == OK
    assert target.policy.rx_filter == RxFilter(unicast=odd, multicast=odd)


@given(uni=addresses, multi=addresses, surplus=st.binary(max_size=5))
def test_any_table(uni: list[bytes], multi: list[bytes], surplus: bytes) -> None:
    """Also by the codec drivers use, which agrees with ours byte for byte."""
    target = running(max_macs=2 * LIMIT)
    request = mac_table(tuple(uni), tuple(multi))
    assert request == b"\1\0" + pack_mac_table(uni, multi)
    assert send(target, request + surplus).answer == OK
    assert target.policy.rx_filter == RxFilter(unicast=tuple(uni), multicast=tuple(multi))


@pytest.mark.requirement("NET-FLT-09", "PF-D-02")
def test_table_is_empty_after_reset() -> None:
    target = running()
    send(target, mac_table((station(1),)))
    assert new_policy(commit(target, target.reset())).rx_filter == RxFilter()
    start(target)
    assert target.policy.rx_filter == RxFilter()


@pytest.mark.requirement("NET-FLT-11")
def test_own_address_comes_with_the_answer() -> None:
    """The frame path and configuration space have it before the command is completed."""
    target = running()
    generation = target.config_generation
    transition = target.control(mac_address(station(5)), 1)
    assert new_policy(transition).mac == station(5)
    assert target.read_config(0, 6) == MAC
    target.commit(transition)
    assert target.read_config(0, 6) == station(5)
    assert target.config_generation == generation + 1
    assert target.state.mac == MAC


@pytest.mark.requirement("NET-FLT-11")
def test_own_address_again_is_no_change_of_configuration() -> None:
    target = running()
    generation = target.config_generation
    assert send(target, mac_address(MAC)).answer == OK
    assert target.config_generation == generation


@pytest.mark.requirement("U-37")
@pytest.mark.parametrize(
    "address", [bytes(6), b"\1" + bytes(5), group(1), b"\xff" * 6, b"\3" + MAC[1:]]
)
def test_own_address_that_is_no_station(address: bytes) -> None:
    target = running()
    send(target, mac_address(station(5)))
    transition = send(target, mac_address(address))
    assert (transition.answer, transition.effects) == (ERR, ())
    assert target.policy.mac == target.read_config(0, 6) == station(5)


@pytest.mark.requirement("U-06")
@pytest.mark.parametrize("surplus", [b"\0", bytes(2), b"\xff" * 100])
def test_own_address_with_bytes_behind_it(surplus: bytes) -> None:
    target = running()
    assert send(target, mac_address(station(5)) + surplus).answer == OK
    assert target.policy.mac == station(5)


@pytest.mark.requirement("U-48", "VIO-RST-01")
def test_own_address_goes_back_to_the_devices_own() -> None:
    """On reset, on another negotiation, and when a driver begins anew."""
    target = running()
    ways: tuple[Callable[[], Transition], ...] = (
        target.reset,
        lambda: target.negotiate(1 << 32),
        target.begin_anew,
    )
    for back in ways:
        commit(target, target.reset())
        start(target)
        send(target, mac_address(station(5)))
        generation = target.config_generation
        assert new_policy(commit(target, back())).mac == MAC
        assert target.read_config(0, 6) == MAC
        assert target.config_generation == generation + 1


def test_own_address_where_the_mac_is_not_offered() -> None:
    """The filter knows it; configuration space has no such field."""
    target = running(without(Feature.MAC), offered=Feature(without(Feature.MAC)))
    assert send(target, mac_address(station(5))).answer == OK
    assert target.policy.mac == station(5)
    assert target.read_config(0, 6) == bytes(6)
