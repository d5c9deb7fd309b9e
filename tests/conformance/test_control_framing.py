# SPDX-License-Identifier: MIT
"""Control queue in general: framing, answers, and what a refused command may touch."""

from __future__ import annotations

import pytest

from pyvnet.device.counters import Counters
from pyvnet.device.effects import SetPolicy
from pyvnet.spec.features import Feature
from tests.device.support import (
    ERR,
    OK,
    PAIRS,
    commit,
    device,
    hash_config,
    negotiate,
    rss,
    running,
    send,
    start,
    vq_pairs,
    without,
)

COMMANDS = {"VQ_PAIRS_SET": vq_pairs(2), "RSS_CONFIG": rss(), "HASH_CONFIG": hash_config()}
BY_NAME = pytest.mark.parametrize("request_", COMMANDS.values(), ids=COMMANDS)


@pytest.mark.requirement("NET-CVQ-01")
@BY_NAME
def test_answer_is_one_byte(request_: bytes) -> None:
    """The ack is the first device-writable byte: 0 for success, 1 for failure."""
    for writable in (1, 2, 64, 65536):
        assert send(running(), request_, writable).answer == OK
        assert send(running(), request_[:-1], writable).answer == ERR


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
    assert target.state.steering == before.steering
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
    unknown = [
        (c, n) for c in range(256) for n in range(256) if (c, n) not in {(4, 0), (4, 1), (4, 2)}
    ]
    for ctrl_class, command in unknown:
        transition = send(target, bytes([ctrl_class, command]) + rss()[2:])
        assert (transition.answer, transition.effects) == (ERR, ())
    many = len(unknown)
    assert target.state.steering == before.steering
    assert target.state.counters == before.counters.add(
        control_commands=many, control_failures=many
    )


@pytest.mark.requirement("OUR-CVQ-04", "U-16", "NET-RSS-07")
@pytest.mark.parametrize(
    ("request_", "dropped"),
    [(vq_pairs(2), Feature.MQ), (rss(), Feature.RSS), (hash_config(), Feature.HASH_REPORT)],
    ids=COMMANDS,
)
def test_command_without_its_feature(request_: bytes, dropped: Feature) -> None:
    """Not negotiated: ERR without side effects, and the others still work."""
    target = running(without(dropped))
    before = target.state
    assert send(target, request_).answer == ERR
    assert target.state.steering == before.steering
    others = [other for other in COMMANDS.values() if other != request_]
    assert send(target, others[0]).answer == OK
    target = running(without(dropped))
    assert send(target, others[1]).answer == OK


@pytest.mark.requirement("U-04", "OUR-CVQ-06", "U-07")
@pytest.mark.parametrize(
    "request_", [*COMMANDS.values(), rss((0,) * 128, key=bytes(1))], ids=[*COMMANDS, "long table"]
)
def test_every_truncation(request_: bytes) -> None:
    """Short data: ERR, the old state stays, counted as short."""
    target = running()
    send(target, hash_config(1, b"\7" * 40))
    before = target.state
    lengths = range(2, len(request_))
    for length in lengths:
        transition = send(target, request_[:length])
        assert (transition.answer, transition.effects) == (ERR, ()), length
        assert "cut short" in str(transition.note)
    many = len(lengths)
    assert target.state.steering == before.steering
    assert target.state.counters == before.counters.add(
        control_commands=many, control_failures=many, control_short=many
    )


@pytest.mark.requirement("U-06")
@pytest.mark.parametrize("surplus", [1, 2, 3, 4, 8, 63, 64, 4096, 65000])
@BY_NAME
def test_surplus_bytes_are_tolerated_and_counted(request_: bytes, surplus: int) -> None:
    """One DPDK driver sends a byte too many in RSS_CONFIG; only missing bytes are an error."""
    exact, longer = running(), running()
    send(exact, request_)
    assert send(longer, request_ + b"\xff" * surplus).answer == OK
    assert longer.state.steering == exact.state.steering
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
    assert target.state.steering == before.steering
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
        assert target.state.steering == before.steering


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
