# SPDX-License-Identifier: MIT
"""What every steerer offers.

A steerer puts frames on the tap queue of the receiveq they belong to, so that
the worker that reads a frame may place it.  It decides nothing: queue, hash and
report come from the C path alone, which hands over what a steerer put elsewhere.
So a steerer that is wrong, late or absent costs speed, and never an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pyvnet.datapath.policy import Policy


class Steerer(Protocol):
    """Steers one tap; called by one thread.

    Any of these raises HostError when it cannot steer any more: let it go then
    (``close()``) and do without.
    """

    @property
    def owner(self) -> str:
        """Its name in status output."""

    def publish(self, policy: Policy) -> None:
        """Steer by this policy, whose mode is RSS, from the next frame on.

        A frame under way meanwhile is steered by this policy or by the one
        before, never by a mixture.
        """

    def release(self) -> None:
        """Steer nothing: the kernel's own automatic steering is back; harmless to repeat."""

    def settle(self) -> None:
        """Return once no frame can be steered any more by what held before the last call."""

    def close(self) -> None:
        """Let go of the tap and of everything else; harmless to repeat, and never raises."""


class SteeringProgram(Protocol):
    """A program the operator brings."""

    @property
    def name(self) -> str:
        """What status output calls it."""

    def load(self) -> int:
        """Load it; returns an fd that is the caller's to close.

        Raises:
            HostError: the host lacks what it takes.
            UsageError: it is no such program.
        """
