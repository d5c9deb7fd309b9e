# SPDX-License-Identifier: MIT
"""Class ANNOUNCE: the device asks the driver to announce itself, the driver acknowledges."""

from __future__ import annotations

import struct

import pytest

from pyvnet.device.effects import ConfigChanged
from pyvnet.spec.features import Feature
from tests.device.support import (
    ANNOUNCE_ACK,
    ERR,
    OK,
    begin_anew,
    commit,
    device,
    negotiate,
    running,
    send,
    start,
    without,
)

LINK_UP, ANNOUNCE = 1, 2


def status_field(config: bytes) -> int:
    (status,) = struct.unpack("<H", config)
    return int(status)


@pytest.mark.requirement("NET-ANN-01", "NET-ANN-02")
def test_request_shows_in_the_status_field_until_it_is_acknowledged() -> None:
    """The bit, a notification, and the bit gone before the ACK command is completed."""
    target = running()
    generation = target.config_generation
    assert commit(target, target.announce()).effects == (ConfigChanged(),)
    assert status_field(target.read_config(6, 2)) == LINK_UP | ANNOUNCE
    assert target.config_generation == generation + 1
    transition = send(target, ANNOUNCE_ACK)
    assert transition.answer == OK
    assert ConfigChanged() not in transition.effects
    assert status_field(target.read_config(6, 2)) == LINK_UP
    assert target.config_generation == generation + 2


@pytest.mark.requirement("U-38")
def test_acknowledging_nothing_is_good() -> None:
    target = running()
    generation = target.config_generation
    for _ in range(2):
        assert send(target, ANNOUNCE_ACK).answer == OK
    assert send(target, ANNOUNCE_ACK + b"surplus").answer == OK
    assert target.config_generation == generation
    assert target.state.counters.control_surplus_bytes == 7


def test_asking_again_before_the_answer_asks_again() -> None:
    target = running()
    for _ in range(2):
        assert commit(target, target.announce()).effects == (ConfigChanged(),)
    send(target, ANNOUNCE_ACK)
    assert status_field(target.read_config(6, 2)) == LINK_UP


@pytest.mark.requirement("OUR-CVQ-04")
def test_acknowledgement_takes_the_feature() -> None:
    assert send(running(without(Feature.GUEST_ANNOUNCE)), ANNOUNCE_ACK).answer == ERR


@pytest.mark.parametrize("lacking", [Feature.GUEST_ANNOUNCE, Feature.STATUS])
def test_driver_that_cannot_read_the_request_is_not_asked(lacking: Feature) -> None:
    target = running(without(lacking))
    assert commit(target, target.announce()).effects == ()
    assert status_field(target.read_config(6, 2)) == LINK_UP


@pytest.mark.requirement("U-60")
def test_driver_whose_front_end_keeps_the_control_queue_is_not_asked() -> None:
    """It could not answer, and the request would stay for ever."""
    target = device(relaxed=True)
    start(target, int(Feature.VERSION_1 | Feature.GUEST_ANNOUNCE | Feature.STATUS))
    assert commit(target, target.announce()).effects == ()
    assert status_field(target.read_config(6, 2)) == LINK_UP


def test_driver_that_does_not_run_yet_is_not_asked() -> None:
    target = device()
    assert commit(target, target.announce()).effects == ()
    negotiate(target, without())
    assert commit(target, target.announce()).effects == ()
    assert status_field(target.read_config(6, 2)) == LINK_UP


@pytest.mark.requirement("U-59", "VIO-RST-01")
def test_request_does_not_outlive_the_driver() -> None:
    target = running()
    commit(target, target.announce())
    assert ConfigChanged() in begin_anew(target).effects
    assert status_field(target.read_config(6, 2)) == LINK_UP
    commit(target, target.announce())
    commit(target, target.reset())
    assert status_field(target.read_config(6, 2)) == LINK_UP
