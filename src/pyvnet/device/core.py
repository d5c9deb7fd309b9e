# SPDX-License-Identifier: MIT
"""The device's current state, what can be read from it, and how it is replaced."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from pyvnet.device import negotiation
from pyvnet.device.counters import Counters
from pyvnet.device.effects import ConfigChanged, Effect, SetPolicy
from pyvnet.device.link import config_space, mtu_in_force
from pyvnet.device.settings import EX_TYPES_ALWAYS, DeviceSettings
from pyvnet.device.state import DeviceState, HostSide
from pyvnet.device.steering import Policy, make_policy
from pyvnet.device.transition import Transition
from pyvnet.errors import UsageError
from pyvnet.spec.status import DeviceStatus

if TYPE_CHECKING:
    from pyvnet.spec.features import Feature

_MAX_CONFIG_READ: Final = 4096


class SteeringOwner(StrEnum):
    """Who may decide the receive queue (U-45)."""

    DEVICE = "device"  # the driver's commands, carried out by this device
    USER_PROGRAM = "user-program"  # a steering program the operator attached


class DeviceCore:
    """The part of ``VirtioNetDevice`` all its sides share: state, reading it, committing."""

    def __init__(self, settings: DeviceSettings) -> None:
        self._settings = settings
        self._state = DeviceState.initial(settings, Counters(), HostSide())

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
        program = self._state.host.user_program
        return SteeringOwner.USER_PROGRAM if program else SteeringOwner.DEVICE

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
        """Differs, modulo 2**32, from what it was before configuration space last changed."""
        return self._state.counters.config_changes & 0xFFFFFFFF

    def read_config(self, offset: int, length: int) -> bytes:
        """Read configuration space as the driver does.

        Each field of an *offered* feature is there from the start (VIO-CFG-01);
        others, and everything beyond byte 28, read as zero.  Raises UsageError
        for a negative offset or a length outside 0…4096.
        """
        if offset < 0 or not 0 <= length <= _MAX_CONFIG_READ:
            raise UsageError(f"cannot read {length} bytes of configuration space at {offset}")
        space = config_space(self._settings, self._state).pack()
        return space[offset : offset + length].ljust(length, b"\0")

    # How it changes.

    def commit(self, transition: Transition) -> None:
        """Install a transition; raises UsageError if another came in between."""
        self._check_current(transition)
        self._state = transition.state

    def _check_current(self, transition: Transition) -> None:
        if transition.base is not self._state:
            raise UsageError("stale transition: the device has moved on since it was computed")

    def _transition(self, state: DeviceState, *effects: Effect) -> Transition:
        return Transition(self._state, self._counting_config(state, effects), effects)

    def _counting_config(self, state: DeviceState, effects: tuple[Effect, ...]) -> DeviceState:
        """The same state, with its configuration generation moved on if that is due."""
        if ConfigChanged() not in effects and self._same_config(state):
            return state
        return replace(state, counters=state.counters.add(config_changes=1))

    def _same_config(self, state: DeviceState) -> bool:
        now = self._state
        if state.control is now.control and state.host is now.host:
            return True  # all that it is made of beside the settings
        return config_space(self._settings, state) == config_space(self._settings, now)

    def _counted(self, **events: int) -> Transition:
        counters = self._state.counters.add(**events)
        return self._transition(replace(self._state, counters=counters))

    def _policy(self, state: DeviceState) -> Policy:
        return make_policy(
            state.control,
            state.features,
            receiveqs=state.receiveqs,
            ex_types_always=EX_TYPES_ALWAYS in self._settings.compat,
            mtu=mtu_in_force(self._settings, state),
        )

    def _policy_change(self, state: DeviceState) -> tuple[SetPolicy, ...]:
        """The effect that is due if ``state`` comes to another policy than the current one."""
        policy = self._policy(state)
        return () if policy == self._policy(self._state) else (SetPolicy(policy),)
