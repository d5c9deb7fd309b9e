# SPDX-License-Identifier: MIT
"""The virtio network device, sans-IO: bytes in, answers and effects out.

Theory of operation
    Everything a driver can observe is one frozen ``DeviceState``.  A method
    that would change it computes a ``Transition`` — the next state and the
    effects it needs in the world — and changes nothing.  The caller applies the
    effects in order and then calls ``commit``:

        transition = device.write_status(value)
        apply(transition.effects)
        device.commit(transition)

    If the effects of a control command cannot be applied, the caller undoes
    what it did, commits ``device.refuse(transition)`` instead and answers ERR:
    nothing but counters has changed (U-07).  If a ring cannot be started on
    DRIVER_OK, the caller commits all the same and reports ``ring_broken``.

    One transition at a time: ``commit`` refuses one computed from a state that
    is no longer the current one.

    The driver's errors are never exceptions here: they are ignored or answered
    ERR, and counted.  Exceptions are for the caller: UsageError for calls that
    make no sense, its subclass StateError for a state that cannot be put back.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from pyvnet.device import controlq, lifecycle, negotiation
from pyvnet.device._checks import StateError
from pyvnet.device.effects import Activate, ConfigChanged, Deactivate, Effect, SetPolicy
from pyvnet.device.queue import QueueConfig, QueueFds
from pyvnet.device.settings import (
    DEFAULT_OFFER,
    EX_TYPES_ALWAYS,
    LENIENT_HASH_TYPES,
    RSS_SURVIVES_VQ_PAIRS,
    DeviceSettings,
)
from pyvnet.device.state import DeviceState
from pyvnet.device.steering import Policy, Rules, SteeringMode, make_policy
from pyvnet.device.transition import ControlTransition, Transition
from pyvnet.errors import HostError, UsageError
from pyvnet.spec.ctrl import Ack
from pyvnet.spec.features import Feature
from pyvnet.spec.status import DeviceStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyvnet.spec.transport import QueueSetup

__all__ = [
    "DEFAULT_OFFER",
    "ControlTransition",
    "DeviceSettings",
    "SteeringOwner",
    "Transition",
    "VirtioNetDevice",
]

_MAX_CONFIG_READ: Final = 4096


class SteeringOwner(StrEnum):
    """Who may decide the receive queue (U-45)."""

    DEVICE = "device"  # the driver's commands, carried out by this device
    USER_PROGRAM = "user-program"  # a steering program the operator attached


class VirtioNetDevice:
    """One virtio network device; see the module for how its methods are used."""

    def __init__(self, settings: DeviceSettings) -> None:
        self._settings = settings
        self._state = DeviceState(settings.max_virtqueue_pairs, settings.mac)
        self._rules = Rules(
            settings.max_virtqueue_pairs,
            LENIENT_HASH_TYPES in settings.compat,
            RSS_SURVIVES_VQ_PAIRS in settings.compat,
        )

    # What it is and where it stands.

    @property
    def settings(self) -> DeviceSettings:
        """As given."""
        return self._settings

    @property
    def state(self) -> DeviceState:
        """The current state; taking it is reading this."""
        return self._state

    @property
    def status(self) -> DeviceStatus:
        """What the driver reads as device status."""
        return self._state.status

    @property
    def offered(self) -> Feature:
        """Feature bits the driver may choose from."""
        return self._settings.offered

    @property
    def features(self) -> Feature:
        """The negotiated features: none before FEATURES_OK."""
        return self._state.features

    @property
    def policy(self) -> Policy:
        """The policy that belongs to the current state."""
        return self._policy(self._state)

    @property
    def steering_owner(self) -> SteeringOwner:
        """Who decides the receive queue now (U-45)."""
        return SteeringOwner.USER_PROGRAM if self._state.user_program else SteeringOwner.DEVICE

    @property
    def queue_count(self) -> int:
        """Virtqueues of the negotiated layout; before FEATURES_OK, of what is offered."""
        return negotiation.queue_count(self._settings.max_virtqueue_pairs, self._layout)

    @property
    def controlq_index(self) -> int | None:
        """Virtqueue index of the controlq, 2N; None without one.

        N is ``max_virtqueue_pairs`` with MQ or RSS and 1 otherwise, as
        negotiated; before FEATURES_OK, as offered.
        """
        return negotiation.controlq_index(self._settings.max_virtqueue_pairs, self._layout)

    @property
    def _layout(self) -> Feature:
        agreed = self._state.status & DeviceStatus.FEATURES_OK
        return self._state.features if agreed else self._settings.offered

    @property
    def config_generation(self) -> int:
        """Changes, modulo 2**32, whenever a configuration change was announced."""
        return self._state.counters.config_changes & 0xFFFFFFFF

    def read_config(self, offset: int, length: int) -> bytes:
        """Read configuration space as the driver does.

        Each field of an *offered* feature is there from the start (VIO-CFG-01);
        others, and everything beyond byte 28, read as zero.  Raises UsageError
        for a negative offset or a length outside 0…4096.
        """
        if offset < 0 or not 0 <= length <= _MAX_CONFIG_READ:
            raise UsageError(f"cannot read {length} bytes of configuration space at {offset}")
        return self._settings.config_space().pack()[offset : offset + length].ljust(length, b"\0")

    # What the driver does.

    def write_driver_features(self, bits: int) -> Transition:
        """The driver chose features; judged at FEATURES_OK, ignored after it."""
        frozen = self._state.status & DeviceStatus.FEATURES_OK
        if frozen or not 0 <= bits < 1 << negotiation.FEATURE_BITS:
            return self._counted(feature_writes_ignored=1)
        return self._transition(replace(self._state, driver_features=int(bits)))

    def write_status(self, value: int) -> Transition:
        """The driver wrote the status field; ``lifecycle`` decides what that comes to."""
        state = self._state
        acceptable = negotiation.refusal(self._settings, state.driver_features) is None
        write = lifecycle.StatusWrite(state.status, value)
        verdict, status = write.judge(features_acceptable=acceptable)
        if verdict is lifecycle.Verdict.RESET:
            return self.reset()
        if verdict is lifecycle.Verdict.ILLEGAL:
            return self._counted(status_illegal_writes=1)
        counters = state.counters
        if verdict is lifecycle.Verdict.FEATURES_REFUSED:
            counters = counters.add(features_refused=1)
        reached = replace(state, status=status, counters=counters)
        if status & ~state.status & DeviceStatus.DRIVER_OK:
            return self._start(reached)
        return self._transition(reached)

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
        others = [other for other in state.queues if other.index != queue.index]
        queues = sorted([*others, queue], key=lambda each: each.index)
        return self._transition(replace(state, queues=tuple(queues)))

    def reset(self) -> Transition:
        """Back to the initial state (VIO-RST-01); only counters and the operator's choices stay."""
        state = DeviceState(
            self._settings.max_virtqueue_pairs,
            self._settings.mac,
            counters=self._state.counters.add(resets=1),
            user_program=self._state.user_program,
        )
        return self._transition(state, Deactivate(), SetPolicy(self._policy(state)))

    def control(self, request: bytes, writable: int) -> ControlTransition:
        """The driver sent a control command.

        Args:
            request: all device-readable bytes of the chain.
            writable: how many device-writable bytes follow them.

        A command can only come while the controlq runs.  If one does come
        otherwise, which takes a runtime that pops from a stopped ring, it is
        not executed, has no answer, and is counted.
        """
        state = self._state
        running = state.status & DeviceStatus.DRIVER_OK and state.features & Feature.CTRL_VQ
        if not running:
            counters = state.counters.add(control_not_running=1)
            note = "control command without a running control queue"
            return ControlTransition(state, replace(state, counters=counters), note=note)
        situation = controlq.Situation(
            state.features, state.steering, state.user_program, self._rules
        )
        match controlq.execute(situation, request, writable):
            case controlq.Executed(steering, surplus, remark):
                counters = state.counters.add(control_commands=1, control_surplus_bytes=surplus)
                after = replace(state, steering=steering, counters=counters)
                effects = (SetPolicy(self._policy(after)),)
                return ControlTransition(state, after, effects, bytes([Ack.OK]), remark)
            case controlq.Refused(note, short):
                return self._refused(note, control_short=int(short))
            case controlq.Unanswerable(note, malformed):
                counters = state.counters.add(
                    control_malformed=int(malformed), control_no_ack=int(not malformed)
                )
                return ControlTransition(state, replace(state, counters=counters), note=note)

    def refuse(self, transition: ControlTransition, reason: str = "") -> ControlTransition:
        """What to commit and answer instead when a good command's effects could not be applied.

        ``reason`` goes to the note.  Raises UsageError for a stale transition.
        """
        self._check_current(transition)
        note = f"not applied: {reason}" if reason else "not applied"
        return self._refused(note, control_not_applied=1)

    def _refused(self, note: str, **events: int) -> ControlTransition:
        counters = self._state.counters.add(control_commands=1, control_failures=1, **events)
        after = replace(self._state, counters=counters)
        return ControlTransition(self._state, after, (), bytes([Ack.ERR]), note)

    # What the world does.

    def ring_broken(self, index: int) -> Transition:
        """The engine stopped a ring it cannot go on with, or could not start it (VIO-STAT-02).

        Ignored and counted for a ring that was reset away in the meantime.
        """
        state = self._state
        if not state.status or index not in {queue.index for queue in state.queues}:
            return self._counted(ring_events_stale=1)
        return self._needs_reset(replace(state, counters=state.counters.add(rings_broken=1)))

    def _needs_reset(self, state: DeviceState) -> Transition:
        """Set DEVICE_NEEDS_RESET; a driver that is running is told once (VIO-STAT-03)."""
        if state.status & DeviceStatus.DEVICE_NEEDS_RESET:
            return self._transition(state)
        state = replace(state, status=state.status | DeviceStatus.DEVICE_NEEDS_RESET)
        if not state.status & DeviceStatus.DRIVER_OK:
            return self._transition(state)
        counters = state.counters.add(config_changes=1)
        return self._transition(replace(state, counters=counters), ConfigChanged())

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

    def restore(self, state: DeviceState, fds: Mapping[int, QueueFds] | None = None) -> Transition:
        """Put a state back, as taken from this device or from one like it.

        ``fds`` gives eventfds per virtqueue index; without it queues keep those
        they have in ``state``, which are none after ``DeviceState.from_dict``.
        Rings that ran run again, from their recorded positions.  Raises
        StateError, before anything changed, for a state this device cannot be in.
        """
        fds = fds or {}
        queues = tuple(
            replace(queue, fds=fds.get(queue.index, queue.fds)) for queue in state.queues
        )
        state = replace(state, queues=queues, user_program=self._state.user_program)
        state.check(self._settings)
        running = state.status & DeviceStatus.DRIVER_OK
        broken = state.status & DeviceStatus.DEVICE_NEEDS_RESET
        if running and not broken:
            return self._transition(state, Deactivate(), *self._start_effects(state))
        return self._transition(state, Deactivate(), SetPolicy(self._policy(state)))

    def set_steering_owner(self, owner: SteeringOwner) -> Transition:
        """The operator attaches or detaches a steering program of their own (U-45).

        Survives device reset.  Raises HostError with EBUSY while RSS is active.
        """
        program = owner is SteeringOwner.USER_PROGRAM
        if program and self._state.steering.mode is SteeringMode.RSS:
            raise HostError(
                "cannot attach a steering program while the driver uses RSS",
                errno.EBUSY,
                "detach it before the driver configures RSS, or do not offer rss",
            )
        return self._transition(replace(self._state, user_program=program))

    # How it changes.

    def commit(self, transition: Transition) -> None:
        """Install a transition; raises UsageError if another came in between."""
        self._check_current(transition)
        self._state = transition.state

    def _check_current(self, transition: Transition) -> None:
        if transition.base is not self._state:
            raise UsageError("stale transition: the device has moved on since it was computed")

    def _transition(self, state: DeviceState, *effects: Effect) -> Transition:
        return Transition(self._state, state, effects)

    def _counted(self, **events: int) -> Transition:
        counters = self._state.counters.add(**events)
        return self._transition(replace(self._state, counters=counters))

    def _policy(self, state: DeviceState) -> Policy:
        return make_policy(
            state.steering,
            state.features,
            receiveqs=state.receiveqs,
            ex_types_always=EX_TYPES_ALWAYS in self._settings.compat,
        )
