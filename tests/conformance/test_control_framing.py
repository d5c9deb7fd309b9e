# SPDX-License-Identifier: MIT
"""Control queue in general: framing, answers, and what a refused command may touch."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvnet.device import controlq
from pyvnet.device.counters import Counters
from pyvnet.device.effects import SetPolicy
from pyvnet.device.state import DeviceState
from pyvnet.spec.features import Feature
from tests.device.support import (
    COMMANDS,
    ERR,
    OK,
    PAIRS,
    commit,
    device,
    negotiate,
    rss,
    running,
    send,
    start,
    touched,
    vq_pairs,
    without,
)

REQUESTS = [request for request, _ in COMMANDS.values()]
BY_NAME = pytest.mark.parametrize("request_", REQUESTS, ids=COMMANDS)
KNOWN = {(request[0], request[1]) for request in REQUESTS}


@BY_NAME
def test_each_command_of_the_table_changes_something(request_: bytes) -> None:
    """What the tests below say of commands that are not carried out means something."""
    target = touched()
    before = target.state.control
    assert send(target, request_).answer == OK
    assert target.state.control != before


def test_every_command_the_device_knows_is_in_the_table() -> None:
    assert set(controlq.COMMANDS) == KNOWN


@pytest.mark.requirement("NET-CVQ-01")
@BY_NAME
def test_answer_is_one_byte(request_: bytes) -> None:
    """The ack is the first device-writable byte: 0 for success, 1 for failure."""
    for writable in (1, 2, 64, 65536):
        assert send(running(), request_, writable).answer == OK
        assert send(running(), request_[:1] + b"\xff" + request_[2:], writable).answer == ERR


@pytest.mark.requirement("OUR-CVQ-08", "NET-MQ-03", "U-41")
@BY_NAME
def test_effect_comes_with_the_answer(request_: bytes) -> None:
    """The policy to apply before the answer is in the same transition, and is the only effect."""
    target = running()
    transition = target.control(request_, 1)
    (effect,) = transition.effects
    target.commit(transition)
    assert effect == SetPolicy(target.policy)


@pytest.mark.requirement("U-05", "OUR-CVQ-07")
@BY_NAME
def test_without_room_for_the_answer_nothing_is_executed(request_: bytes) -> None:
    """The chain goes back with length 0 and is counted; the device does not need a reset."""
    target = running()
    before = target.state
    transition = send(target, request_, 0)
    assert transition.answer is None
    assert transition.effects == ()
    assert target.status == 15
    assert target.state.control == before.control
    assert target.state.counters == before.counters.add(control_no_ack=1)


@pytest.mark.requirement("U-05")
@pytest.mark.parametrize("request_", [b"", b"\4"])
@pytest.mark.parametrize("writable", [0, 1, 100])
def test_without_class_or_command_there_is_no_answer(request_: bytes, writable: int) -> None:
    target = running()
    before = target.state
    transition = send(target, request_, writable)
    assert (transition.answer, transition.effects) == (None, ())
    assert target.state.counters == before.counters.add(control_malformed=1)
    assert target.status == 15


@pytest.mark.requirement("OUR-CVQ-05", "U-40")
def test_unknown_class_or_command_is_answered_err() -> None:
    """A wrong OK hides faults; checked for every class and command byte."""
    target = running()
    before = target.state
    unknown = [(c, n) for c in range(256) for n in range(256) if (c, n) not in KNOWN]
    for ctrl_class, command in unknown:
        transition = send(target, bytes([ctrl_class, command]) + rss()[2:])
        assert (transition.answer, transition.effects) == (ERR, ())
    many = len(unknown)
    assert target.state.control == before.control
    assert target.state.counters == before.counters.add(
        control_commands=many, control_failures=many
    )


@pytest.mark.requirement("OUR-CVQ-04", "U-16", "U-33", "NET-RSS-07")
@pytest.mark.parametrize("name", COMMANDS)
def test_command_without_its_feature(name: str) -> None:
    """Not negotiated: ERR without side effects, and those of other features still work."""
    request, feature = COMMANDS[name]
    target = running(without(feature))
    before = target.state.control
    transition = send(target, request)
    assert (transition.answer, transition.effects) == (ERR, ())
    assert str(feature.name).lower() in str(transition.note)
    assert target.state.control == before
    for other, needed in COMMANDS.values():
        fresh = running(without(feature))
        assert send(fresh, other).answer == (ERR if needed == feature else OK)


@pytest.mark.requirement("U-04", "OUR-CVQ-06", "OUR-CVQ-10", "U-07")
@pytest.mark.parametrize(
    "request_", [*REQUESTS, rss((0,) * 128, key=bytes(1))], ids=[*COMMANDS, "long table"]
)
def test_every_truncation(request_: bytes) -> None:
    """Short data: ERR, the old state stays, counted as short."""
    target = touched()
    before = target.state
    lengths = range(2, len(request_))
    for length in lengths:
        transition = send(target, request_[:length])
        assert (transition.answer, transition.effects) == (ERR, ()), length
        assert "cut short" in str(transition.note)
        assert re.search(r"short: \d+ of .*bytes|is cut to \d+$", str(transition.note))
    many = len(lengths)
    assert target.state.control == before.control
    assert target.state.counters == before.counters.add(
        control_commands=many, control_failures=many, control_short=many
    )


@pytest.mark.requirement("U-07", "OUR-CVQ-06")
@given(name=st.sampled_from(sorted(COMMANDS)), payload=st.binary(max_size=300))
def test_garbage_is_carried_out_or_changes_nothing(name: str, payload: bytes) -> None:
    """Any payload behind a known command: OK, or ERR and only counters differ."""
    target = touched()
    before = target.state
    transition = send(target, COMMANDS[name][0][:2] + payload)
    if transition.answer != OK:
        assert (transition.answer, transition.effects) == (ERR, ())
        assert replace(target.state, counters=before.counters) == before
    assert DeviceState.from_dict(target.state.to_dict()) == target.state
    device().restore(target.state)  # what a command leaves can be put back


@pytest.mark.requirement("U-06")
@pytest.mark.parametrize("surplus", [1, 2, 3, 4, 8, 63, 64, 4096, 65000])
@BY_NAME
def test_surplus_bytes_are_tolerated_and_counted(request_: bytes, surplus: int) -> None:
    """One DPDK driver sends a byte too many in RSS_CONFIG; only missing bytes are an error."""
    exact, longer = touched(), touched()
    send(exact, request_)
    assert send(longer, request_ + b"\xff" * surplus).answer == OK
    assert longer.state.control == exact.state.control
    assert longer.state.counters.control_surplus_bytes == surplus


@pytest.mark.requirement("U-07", "OUR-CVQ-06", "OUR-CVQ-08")
@BY_NAME
def test_command_whose_effects_fail_is_answered_err(request_: bytes) -> None:
    """When the host cannot apply it, the driver gets ERR and the device is as before."""
    target = running()
    before = target.state
    good = target.control(request_, 1)
    assert good.answer == OK
    instead = commit(target, target.refuse(good, "tap queue 3: too many open files"))
    assert (instead.answer, instead.effects) == (ERR, ())
    assert "too many open files" in str(instead.note)
    assert target.state.control == before.control
    assert target.state.counters == before.counters.add(
        control_commands=1, control_failures=1, control_not_applied=1
    )


@pytest.mark.requirement("VIO-STAT-01")
def test_command_before_driver_ok_is_not_executed() -> None:
    """No buffer is consumed before DRIVER_OK, so no answer is given either."""
    target = device()
    for features in (0, without()):
        negotiate(target, features)
        before = target.state
        transition = send(target, vq_pairs(2))
        assert (transition.answer, transition.effects) == (None, ())
        assert target.state.counters == before.counters.add(control_not_running=1)
        assert target.state.control == before.control


def test_command_without_a_control_queue_is_not_executed() -> None:
    target = device(relaxed=True)
    start(target, int(Feature.VERSION_1 | Feature.MQ))
    assert send(target, vq_pairs(2)).answer is None
    assert target.state.counters == Counters(control_not_running=1)


@pytest.mark.requirement("OUR-CVQ-08")
def test_commands_take_effect_in_order() -> None:
    target = running()
    for pairs in (1, PAIRS, 2, 3):
        assert send(target, vq_pairs(pairs)).answer == OK
        assert target.policy.pairs == pairs
