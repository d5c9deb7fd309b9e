# SPDX-License-Identifier: MIT
"""What goes wrong on the driver's side of the ring, by blame.

::

    PyvnetError
    ├── DeviceViolation   the device broke a rule of the standard
    ├── CommandError      the device answered a control command with ERR
    ├── NegotiationError  device and driver do not come together
    ├── RefusedError      the back-end answered a message of the front-end with a failure
    └── UsageError        you (pyvnet.errors)
        └── RingFullError no descriptors or buffers free just now

`pyvnet.errors.DriverError` is the same street seen from the other end: there
a device blames its driver.
"""

from __future__ import annotations

from pyvnet.errors import PyvnetError, UsageError
from pyvnet.spec.ctrl import Ack, command_name


class DeviceViolation(PyvnetError):  # noqa: N818 (a verdict on the peer, not an error of ours)
    """The device did what the standard forbids; the message says what was seen."""


class NegotiationError(PyvnetError):
    """Feature bits, FEATURES_OK or queue counts do not fit together."""


class CommandError(PyvnetError):
    """A control command was answered ERR.

    Attributes:
        ctrl_class: class byte of the command.
        command: command byte.
        ack: what the device answered.
    """

    def __init__(self, ctrl_class: int, command: int, ack: Ack) -> None:
        self.ctrl_class = ctrl_class
        self.command = command
        self.ack = ack
        super().__init__(ctrl_class, command, ack)

    def __str__(self) -> str:
        name = command_name(self.ctrl_class, self.command)
        return f"the device answered {self.ack.name} to {name}"


class RefusedError(PyvnetError):
    """The vhost-user back-end refused a message and said so; the connection goes on.

    Attributes:
        request: the protocol's name of the message.
    """

    def __init__(self, request: str, why: str) -> None:
        self.request = request
        super().__init__(f"the back-end refused {request}: {why}")


class RingFullError(UsageError):
    """No free descriptors or buffers; wait for the device to give some back."""
