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

from dataclasses import replace
from typing import TYPE_CHECKING

from pyvnet.device import controlq, lifecycle, negotiation
from pyvnet.device.command import Rules
from pyvnet.device.control import ControlState
from pyvnet.device.core import SteeringOwner
from pyvnet.device.effects import Deactivate, SetPolicy
from pyvnet.device.frontend import DeviceFrontend
from pyvnet.device.settings import (
    DEFAULT_OFFER,
    LENIENT_HASH_TYPES,
    RSS_SURVIVES_VQ_PAIRS,
    DeviceSettings,
)
from pyvnet.device.state import DeviceState
from pyvnet.device.transition import ControlTransition, Transition
from pyvnet.spec.ctrl import Ack
from pyvnet.spec.features import Feature
from pyvnet.spec.status import DeviceStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyvnet.device.queue import QueueFds

__all__ = [
    "DEFAULT_OFFER",
    "ControlTransition",
    "DeviceSettings",
    "SteeringOwner",
    "Transition",
    "VirtioNetDevice",
]


class VirtioNetDevice(DeviceFrontend):
    """One virtio network device; see the module for how its methods are used.

    What follows is what a driver does and what is done with the whole state.
    Reading is in ``core``, virtqueues are in ``rings``, and front-end, link and
    operator in ``frontend``.
    """

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
        if status & ~state.status & DeviceStatus.FEATURES_OK:
            control = ControlState.initial(state.mac, reached.features)
            reached = replace(reached, control=control)
        if status & ~state.status & DeviceStatus.DRIVER_OK:
            return self._start(reached)
        return self._transition(reached)

    def reset(self) -> Transition:
        """Back to the initial state (VIO-RST-01); only counters and the operator's choices stay."""
        counters = self._state.counters.add(resets=1)
        state = DeviceState.initial(self._settings, counters, self._state.host)
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
        situation = controlq.Situation(state.control, state.host.user_program, self._rules)
        match controlq.execute(situation, request, writable):
            case controlq.Executed(control, surplus, remark):
                counters = state.counters.add(control_commands=1, control_surplus_bytes=surplus)
                after = replace(state, control=control, counters=counters)
                effects = (SetPolicy(self._policy(after)),)
                after = self._counting_config(after, effects)
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

    @property
    def _rules(self) -> Rules:
        return Rules(
            self._settings.max_virtqueue_pairs,
            self._settings.max_macs,
            LENIENT_HASH_TYPES in self._settings.compat,
            RSS_SURVIVES_VQ_PAIRS in self._settings.compat,
            self._state.features,
        )

    # What is taken and put back.

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
        state = replace(state, queues=queues, host=self._state.host)
        state.check(self._settings)
        running = state.status & DeviceStatus.DRIVER_OK
        broken = state.status & DeviceStatus.DEVICE_NEEDS_RESET
        if running and not broken:
            return Transition(self._state, state, (Deactivate(), *self._start_effects(state)))
        return Transition(self._state, state, (Deactivate(), SetPolicy(self._policy(state))))
