# SPDX-License-Identifier: MIT
"""What comes from outside the driver: its front-end, the link, and the operator."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

from pyvnet.device import negotiation
from pyvnet.device.control import CAN_ANNOUNCE, ControlState
from pyvnet.device.core import SteeringOwner
from pyvnet.device.effects import ConfigChanged, Deactivate, SetPolicy
from pyvnet.device.link import config_space
from pyvnet.device.rings import DeviceRings
from pyvnet.device.state import DeviceState
from pyvnet.device.steering import SteeringMode
from pyvnet.errors import FrontendError, HostError
from pyvnet.spec.config import MAX_MTU, MIN_MTU
from pyvnet.spec.features import Feature
from pyvnet.spec.status import DeviceStatus

if TYPE_CHECKING:
    from pyvnet.device.effects import Effect
    from pyvnet.device.transition import Transition

_NEGOTIATED = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK


class DeviceFrontend(DeviceRings):
    """The part of ``VirtioNetDevice`` that answers front-end, link and operator."""

    def negotiate(self, features: int) -> Transition:
        """The front-end hands over the features its driver chose; status follows.

        The set that is in force already changes nothing.  Another one begins
        from nothing, as after a reset.  Raises FrontendError, before anything
        changed, for a set this device cannot run with.
        """
        state = self._state
        if state.status & DeviceStatus.FEATURES_OK and features == state.driver_features:
            return self._transition(state)
        reason = "more bits than there are features"
        if 0 <= features < 1 << negotiation.FEATURE_BITS:
            reason = negotiation.refusal(self._settings, features) or ""
        if reason:
            raise FrontendError(f"features {features:#x} refused: {reason}")
        after = replace(
            DeviceState.initial(self._settings, state.counters, state.host),
            status=_NEGOTIATED,
            driver_features=int(features),
            control=ControlState.initial(self._settings.mac, Feature(features)),
        )
        return self._transition(after, Deactivate(), SetPolicy(self._policy(after)))

    def begin_anew(self) -> Transition:
        """The driver behind the front-end began anew: what commands set is cleared (U-59).

        DEVICE_NEEDS_RESET too; features and rings stay.
        """
        state = self._state
        after = replace(
            state,
            status=state.status & ~DeviceStatus.DEVICE_NEEDS_RESET,
            control=ControlState.initial(self._settings.mac, state.features),
            counters=state.counters.add(resets=1),
        )
        effects: tuple[Effect, ...] = (SetPolicy(self._policy(after)),)
        if config_space(self._settings, after) != config_space(self._settings, state):
            effects += (ConfigChanged(),)
        return self._transition(after, *effects)

    def set_frontend_mtu(self, mtu: int | None) -> Transition:
        """The front-end told its MTU (NET_SET_MTU); it holds if MTU is negotiated.

        Kept whatever the driver does; None: a new front-end, which has told
        none yet.  Raises FrontendError unless it is in 68…65535 and no larger
        than the MTU that is offered.
        """
        if mtu is not None:
            highest = self._settings.mtu or MAX_MTU
            if not MIN_MTU <= mtu <= highest:
                raise FrontendError(f"MTU {mtu} is outside {MIN_MTU}…{highest}")
        host = replace(self._state.host, frontend_mtu=mtu)
        after = replace(self._state, host=host)
        return self._transition(after, *self._policy_change(after))

    def set_link(self, *, up: bool) -> Transition:
        """The link came or went (NET-LNK-01); survives reset.

        A driver that negotiated STATUS is told of a change; for others there is
        no link state.
        """
        after = replace(self._state, host=replace(self._state.host, link_up=up))
        told = after != self._state and self._driver_has(Feature.STATUS)
        return self._transition(after, *((ConfigChanged(),) if told else ()))

    def announce(self) -> Transition:
        """Ask the driver to announce itself on its network (NET-ANN-02).

        Without effects where no driver runs that could be asked: it takes
        GUEST_ANNOUNCE, STATUS to read the request and CTRL_VQ to answer it.
        """
        if not self._driver_has(CAN_ANNOUNCE):
            return self._transition(self._state)
        control = replace(self._state.control, announce=True)
        return self._transition(replace(self._state, control=control), ConfigChanged())

    def _driver_has(self, features: Feature) -> bool:
        """Whether a driver runs and negotiated all of these."""
        runs = bool(self._state.status & DeviceStatus.DRIVER_OK)
        return runs and self._state.features & features == features

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
        host = replace(self._state.host, user_program=program)
        return self._transition(replace(self._state, host=host))
