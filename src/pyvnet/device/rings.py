# SPDX-License-Identifier: MIT
"""Virtqueues: set up below DRIVER_OK, or started and stopped one by one.

Two kinds of transports meet here.  One carries the driver's own words: queues
are set up (``configure_queue``) and all start with DRIVER_OK.  The other's
front-end owns the status and starts, stops and switches each ring as it likes
(``start_queue``, ``stop_queue``, ``enable_queue``); a ring in
``DeviceState.queues`` is then one that runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pyvnet.device import negotiation
from pyvnet.device._checks import StateError
from pyvnet.device.core import DeviceCore
from pyvnet.device.effects import (
    Activate,
    ConfigChanged,
    Effect,
    EnableQueue,
    SetPolicy,
    StartQueue,
    StopQueue,
)
from pyvnet.device.queue import QueueConfig
from pyvnet.errors import FrontendError, UsageError
from pyvnet.spec.status import DeviceStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyvnet.device.state import DeviceState
    from pyvnet.device.transition import Transition
    from pyvnet.spec.transport import QueueSetup


class DeviceRings(DeviceCore):
    """The part of ``VirtioNetDevice`` that is about its virtqueues."""

    def configure_queue(self, setup: QueueSetup) -> Transition:
        """The driver laid out a virtqueue; it starts with DRIVER_OK and not before (VIO-STAT-01).

        A later set-up of the same queue replaces the earlier one.  A queue that
        does not exist is ignored and counted, as is one after DRIVER_OK.
        """
        state = self._state
        if not 0 <= setup.index < self.queue_count:
            return self._counted(queue_index_out_of_range=1)
        if state.status & DeviceStatus.DRIVER_OK:
            return self._counted(queue_setups_ignored=1)
        try:
            queue = QueueConfig.from_setup(setup)
        except StateError:
            return self._counted(queue_setups_ignored=1)
        return self._transition(_with_queue(state, queue))

    def start_queue(self, setup: QueueSetup, *, enabled: bool) -> Transition:
        """The front-end starts one ring; the first one to start sets DRIVER_OK.

        ``enabled``: False to keep it off until ``enable_queue``.  Raises
        FrontendError for a ring that cannot run or comes before ``negotiate``,
        UsageError for one that runs already.
        """
        state = self._state
        if setup.index in {queue.index for queue in state.queues}:
            raise UsageError(f"queue {setup.index} runs already")
        if not state.status & DeviceStatus.FEATURES_OK:
            raise FrontendError(f"queue {setup.index} is started before features were negotiated")
        try:
            queue = QueueConfig.from_setup(setup, enabled=enabled)
            active = queue.activate(
                queue_count=self.queue_count, max_queue_size=self._settings.max_queue_size
            )
        except StateError as error:
            raise FrontendError(str(error)) from error
        status = state.status | DeviceStatus.DRIVER_OK
        after = replace(_with_queue(state, queue), status=status)
        start = StartQueue(active, state.features, self.controlq_index, enabled)
        return self._transition(after, *self._policy_change(after), start)

    def stop_queue(self, index: int) -> Transition:
        """The front-end stops one ring; harmless for one that does not run.

        What it stood at is the engine's to tell.
        """
        state = self._state
        left = tuple(queue for queue in state.queues if queue.index != index)
        if left == state.queues:
            return self._transition(state)
        after = replace(state, queues=left)
        return self._transition(after, StopQueue(index), *self._policy_change(after))

    def enable_queue(self, index: int, *, enabled: bool) -> Transition:
        """The front-end switches a ring on or off (U-42); harmless for one that does not run.

        Without a control queue this decides which pairs are in force (U-60).
        """
        state = self._state
        (queue,) = [each for each in state.queues if each.index == index] or (None,)
        if queue is None or queue.enabled == enabled:
            return self._transition(state)
        after = _with_queue(state, replace(queue, enabled=enabled))
        policy, switch = self._policy_change(after), EnableQueue(index, enabled)
        # Nothing is steered to a ring while it is off, where that can be helped.
        if enabled:
            return self._transition(after, switch, *policy)
        return self._transition(after, *policy, switch)

    def ring_broken(self, index: int) -> Transition:
        """The engine stopped a ring it cannot go on with, or could not start it (VIO-STAT-02).

        Ignored and counted for a ring that was reset away in the meantime.
        """
        state = self._state
        if not state.status or index not in {queue.index for queue in state.queues}:
            return self._counted(ring_events_stale=1)
        return self._needs_reset(replace(state, counters=state.counters.add(rings_broken=1)))

    def record_queue_positions(self, positions: Mapping[int, tuple[int, int]]) -> Transition:
        """Note where stopped rings stand, so that a taken state carries it.

        ``positions``: virtqueue index to (avail_base, used_base), 16 bits each.
        Raises UsageError for a queue that was not set up or a value out of range.
        """
        unknown = positions.keys() - {queue.index for queue in self._state.queues}
        if unknown:
            raise UsageError(f"queues that were not set up: {sorted(unknown)}")
        queues = []
        for queue in self._state.queues:
            avail, used = positions.get(queue.index, (queue.avail_base, queue.used_base))
            queues.append(replace(queue, avail_base=avail, used_base=used))
        return self._transition(replace(self._state, queues=tuple(queues)))

    def _start(self, state: DeviceState) -> Transition:
        """DRIVER_OK: every ring that was set up starts, or the device needs a reset."""
        try:
            return self._transition(state, *self._start_effects(state))
        except StateError:
            counters = state.counters.add(queues_invalid=1)
            return self._needs_reset(replace(state, counters=counters))

    def _start_effects(self, state: DeviceState) -> tuple[Effect, ...]:
        queues = state.active_queues(self._settings)
        controlq = negotiation.controlq_index(state.max_virtqueue_pairs, state.features)
        return SetPolicy(self._policy(state)), Activate(state.features, queues, controlq)

    def _needs_reset(self, state: DeviceState) -> Transition:
        """Set DEVICE_NEEDS_RESET; a driver that is running is told once (VIO-STAT-03)."""
        if state.status & DeviceStatus.DEVICE_NEEDS_RESET:
            return self._transition(state)
        state = replace(state, status=state.status | DeviceStatus.DEVICE_NEEDS_RESET)
        if not state.status & DeviceStatus.DRIVER_OK:
            return self._transition(state)
        return self._transition(state, ConfigChanged())


def _with_queue(state: DeviceState, queue: QueueConfig) -> DeviceState:
    others = [other for other in state.queues if other.index != queue.index]
    queues = sorted([*others, queue], key=lambda each: each.index)
    return replace(state, queues=tuple(queues))
