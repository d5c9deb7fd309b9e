# SPDX-License-Identifier: MIT
"""When rings run: started by a kick fd, stopped by GET_VRING_BASE, enabled or not in between."""

from __future__ import annotations

import pytest

from pyvnet.errors import FrontendError
from pyvnet.spec.vhost_user import F_PROTOCOL_FEATURES, Request, VringState, pack_u64
from pyvnet.transport.vhost_user import actions
from tests.vhost_user.support import CONTROLQ, OFFER, Conversation


def started(front: Conversation) -> list[tuple[int, bool]]:
    """(ring, enabled) of every start since the last look."""
    return [
        (action.setup.index, action.enabled)
        for action in front.took()
        if isinstance(action, actions.StartRing)
    ]


def test_a_ring_waits_for_the_word_on_whether_it_is_enabled(front: Conversation) -> None:
    """So that what was kicked for before SET_VRING_ENABLE is still there afterwards."""
    front.ready()
    front.describe(0)
    front.kick(0)
    assert started(front) == []
    front.enable(0)
    assert started(front) == [(0, True)]


def test_enabled_before_it_is_started(front: Conversation) -> None:
    front.ready()
    front.enable(0)
    front.describe(0)
    assert started(front) == []
    front.kick(0)
    assert started(front) == [(0, True)]


@pytest.mark.requirement("U-42")
def test_a_ring_explicitly_disabled_runs_and_throws_away(front: Conversation) -> None:
    front.ready()
    front.start(0)
    front.took()
    front.describe(1)
    front.kick(1)
    front.enable(1, on=False)
    assert started(front) == [(1, False)]
    front.enable(1)
    assert front.took() == [actions.EnableRing(1, enabled=True)]
    front.enable(1)
    assert front.took() == []
    front.enable(1, on=False)
    assert front.took() == [actions.EnableRing(1, enabled=False)]


def test_without_the_protocol_bit_rings_are_enabled_from_the_start(front: Conversation) -> None:
    front.tell(Request.SET_FEATURES, int(OFFER))
    front.give_memory()
    front.describe(0)
    front.kick(0)
    assert started(front) == [(0, True)]


def test_features_without_the_protocol_bit_enable_what_waits(front: Conversation) -> None:
    front.ready()
    front.describe(0)
    front.kick(0)
    front.tell(Request.SET_FEATURES, int(OFFER))
    assert started(front) == [(0, True)]


def test_features_never_disable_a_ring(front: Conversation) -> None:
    front.ready()
    front.start(0)
    front.took()
    front.tell(Request.SET_FEATURES, int(OFFER) | F_PROTOCOL_FEATURES)
    assert front.took() == [actions.Negotiate(int(OFFER))]


def test_stop_and_start_again(front: Conversation) -> None:
    """Pause and resume: enable is remembered, the position too unless another is set."""
    front.ready()
    front.start(0)
    front.positions = {0: 42}
    assert front.base(0) == 42
    front.took()
    front.kick(0)
    (again,) = (action for action in front.took() if isinstance(action, actions.StartRing))
    assert (again.setup.avail_base, again.enabled) == (42, True)


def test_enable_of_a_stopped_ring_with_stale_addresses_starts_nothing(front: Conversation) -> None:
    front.ready()
    front.start(0)
    front.base(0)
    front.took()
    front.enable(0)
    front.enable(1)
    assert front.took() == []


def test_a_front_end_that_writes_the_status_field_starts_rings_with_driver_ok(
    front: Conversation,
) -> None:
    front.ready()
    front.tell(Request.SET_STATUS, 11)
    front.start(0, 1)
    assert started(front) == []
    front.tell(Request.SET_STATUS, 15)
    assert started(front) == [(0, True), (1, True)]
    front.took()
    front.tell(Request.SET_STATUS, 0)
    assert front.took() == [actions.StopRing(0), actions.StopRing(1)]


def test_status_is_taken_back_if_a_ring_cannot_start(front: Conversation) -> None:
    front.ready()
    front.tell(Request.SET_STATUS, 11)
    front.start(0)
    front.fails[actions.StartRing] = FrontendError("misaligned")
    with pytest.raises(FrontendError):
        front.tell(Request.SET_STATUS, 15)
    assert front.ask(Request.GET_STATUS) == 11


@pytest.mark.requirement("VIO-STAT-01")
def test_no_ring_runs_if_one_cannot_start_with_driver_ok(front: Conversation) -> None:
    front.ready()
    front.tell(Request.SET_STATUS, 11)
    front.start(0, 1)
    front.take_out_memory_of(1)
    front.took()
    with pytest.raises(FrontendError, match="vring 1"):
        front.tell(Request.SET_STATUS, 15)
    assert [type(action) for action in front.took()[-2:]] == [actions.StartRing, actions.StopRing]
    assert not front.state.ring(0).running


def test_a_ring_without_kick_fd_starts_at_once(front: Conversation) -> None:
    front.ready()
    front.describe(0)
    front.enable(0)
    front.kick(0, fd=False)
    assert started(front) == [(0, True)]


def test_the_end_of_the_conversation_stops_every_ring_and_lets_go_of_memory(
    front: Conversation,
) -> None:
    front.ready()
    front.start(0, 1, CONTROLQ)
    front.took()
    front.close()
    assert front.took() == [
        actions.StopRing(0),
        actions.StopRing(1),
        actions.StopRing(CONTROLQ),
        actions.SetMemory(()),
    ]


@pytest.mark.requirement("U-59")
@pytest.mark.parametrize("base", [0, 5])
class TestWhatMayHaveBeenAReset:
    """Armed by several things; decided by where the control queue starts."""

    def resumes(self, front: Conversation, base: int) -> None:
        """The control queue comes last, and decides."""
        front.took()
        front.start(0, 1)  # rings whose position says nothing: initial
        assert actions.BeginAnew() not in front.took()
        front.describe(CONTROLQ, base=base)
        front.kick(CONTROLQ)
        front.enable(CONTROLQ)
        kinds = [type(action) for action in front.took()]
        if base:
            assert kinds == [actions.StartRing]
        else:
            assert kinds == [actions.BeginAnew, actions.StartRing]

    def running(self, front: Conversation) -> None:
        front.ready()
        front.start(0, 1, CONTROLQ)
        front.positions = {0: 0, 1: 0, CONTROLQ: 5}

    def test_every_ring_stopped(self, front: Conversation, base: int) -> None:
        self.running(front)
        for index in (0, 1, CONTROLQ):
            front.base(index)
        self.resumes(front, base)

    def test_every_ring_disabled_then_features(self, front: Conversation, base: int) -> None:
        self.running(front)
        for index in (CONTROLQ, 1, 0):
            front.enable(index, on=False)
        front.took()
        front.tell(Request.SET_FEATURES, int(OFFER) | F_PROTOCOL_FEATURES)
        assert front.took() == [actions.Negotiate(int(OFFER))]
        self.resumes(front, base)

    def test_status_zero(self, front: Conversation, base: int) -> None:
        self.running(front)
        front.tell(Request.SET_STATUS, 0)
        self.resumes(front, base)

    def test_another_conversation(self, front: Conversation, base: int) -> None:
        front.ready()
        self.resumes(front, base)

    def test_decided_at_the_first_ring_when_all_are_described_first(
        self, front: Conversation, base: int
    ) -> None:
        front.ready()
        front.describe(CONTROLQ, base=base)
        front.describe(0)
        front.took()
        front.kick(0)
        front.enable(0)
        kinds = [type(action) for action in front.took()]
        assert kinds == ([] if base else [actions.BeginAnew]) + [actions.StartRing]

    def test_without_a_control_queue_every_ring_decides(
        self, front: Conversation, base: int
    ) -> None:
        features = int(OFFER) & ~(1 << 17)
        front.ready(features=features)
        front.describe(0)
        front.describe(1, base=base)
        front.took()
        front.kick(0)
        front.enable(0)
        kinds = [type(action) for action in front.took()]
        assert kinds == ([] if base else [actions.BeginAnew]) + [actions.StartRing]


@pytest.mark.requirement("U-59", "VIO-RST-02")
def test_once_every_ring_is_disabled_none_is_looked_at(front: Conversation) -> None:
    """A driver may free its rings then without another word, so they are not even drained."""
    front.ready()
    front.start(0, 1)
    front.positions = {0: 7, 1: 9}
    front.took()
    front.enable(1, on=False)
    front.enable(0, on=False)
    stops = [actions.StopRing(0), actions.StopRing(1)]
    assert front.took() == [
        actions.EnableRing(1, enabled=False),
        actions.EnableRing(0, enabled=False),
        *stops,
    ]
    front.enable(1, on=False)
    assert front.took() == []
    # It was none: both go on where they stood, the one still disabled too.
    front.enable(0)
    again = [action for action in front.took() if isinstance(action, actions.StartRing)]
    assert [(a.setup.index, a.setup.avail_base, a.enabled) for a in again] == [
        (0, 7, True),
        (1, 9, False),
    ]


def test_rings_that_cannot_go_on_leave_all_of_them_disabled(front: Conversation) -> None:
    front.ready()
    front.start(0, 1)
    front.enable(1, on=False)
    front.enable(0, on=False)
    front.fails[actions.StartRing] = FrontendError("outside guest memory")
    with pytest.raises(FrontendError, match="outside guest memory"):
        front.enable(0)
    assert not any(ring.running for ring in front.state.in_order())
    assert front.state.ring(0).enabled is False


@pytest.mark.requirement("U-59")
def test_a_pause_of_some_rings_is_no_reset(front: Conversation) -> None:
    front.ready()
    front.start(0, 1, CONTROLQ)
    front.positions = {CONTROLQ: 3}
    front.base(CONTROLQ)
    front.describe(CONTROLQ)
    front.took()
    front.kick(CONTROLQ)
    assert [type(action) for action in front.took()] == [actions.StartRing]


@pytest.mark.requirement("U-59")
def test_disabled_before_they_started_is_no_reset(front: Conversation) -> None:
    """Features repeated per queue pair, with rings that were disabled while stopped."""
    front.ready()
    front.enable(0, on=False)
    front.describe(0)
    front.kick(0)
    front.took()
    front.tell(Request.SET_FEATURES, int(OFFER) | F_PROTOCOL_FEATURES)
    assert front.took() == [actions.Negotiate(int(OFFER))]
    assert front.state.ring(0).running


def test_get_base_of_a_ring_between_stop_and_kick(front: Conversation) -> None:
    """A front-end may begin with stops and disables of rings it never started."""
    front.ready()
    for index in (0, 1):
        front.send(Request.SET_VRING_ENABLE, VringState(index, 0).pack())
        assert front.base(index) == 0
    front.start(0, 1)
    assert started(front) == [(0, False), (1, False)]
    front.tell(Request.SET_VRING_CALL, 0x100)
    front.send(Request.SET_VRING_ERR, pack_u64(0x101))
