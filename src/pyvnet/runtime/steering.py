# SPDX-License-Identifier: MIT
"""Who steers a device's frames, and the order in which everyone learns of a change.

Theory of operation
    The C path judges every frame by its policy.  Beside it a steerer
    (``offload.base``) may put frames on the right tap queue in advance.  A
    change of policy goes to both, and host port queues come and go with it:

        1. the engine attaches the queues that come, and judges anew (U-41)
        2. the steerer is told
        3. if queues go: wait until nothing is steered to them any more, then
           let the engine place what they hold and detach them, the last first

    In this order a queue is never taken away while somebody steers to it (U-62).
    Automatic steering is the kernel's own; but where queues go, the steerer
    spreads flows over those that stay until the others are detached, since the
    kernel gives no moment from which it leaves a queue alone.  While no ring
    runs no frame can be saved, and the queues just go.

    A steerer that fails is let go, at once and for good; the C path hands
    frames over as it does without one.  The driver's command is good all the
    same: what it asked for holds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pyvnet.datapath.policy import Policy
from pyvnet.device.steering import SteeringMode
from pyvnet.errors import HostError, UsageError
from pyvnet.netdev.finding import YES, Finding, no
from pyvnet.spec.rss import ALL_HASH_TYPES, MAX_TABLE_LENGTH, VERIFICATION_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.datapath.engine import Engine
    from pyvnet.device.steering import Policy as DevicePolicy
    from pyvnet.netdev import NetDevice
    from pyvnet.offload.base import Steerer

_log = logging.getLogger("pyvnet")

AUTOMATIC: Final = "kernel-auto"
SOFTWARE: Final = "software"
USER_PROGRAM: Final = "user-program"
OWNERS: Final = (AUTOMATIC, SOFTWARE, "ebpf", "kernel-hash", USER_PROGRAM)
ASKED: Final = ("auto", SOFTWARE, "ebpf", "kernel-hash")
_LATER: Final = no("not in this version", "use software steering, which gives the same answers")
_ALWAYS: Final = {AUTOMATIC: YES, SOFTWARE: YES}
_BY_NAME: Final = ("ebpf", "kernel-hash")  # steerers that can be asked for


@dataclass(frozen=True, slots=True)
class SteeringRequest:
    """What the operator wants; raises UsageError for what nobody can ask for.

    ``asked`` is ``auto``, or the owner wanted while RSS is the mode.
    """

    asked: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.asked not in ASKED:
            raise UsageError(f"steering {self.asked!r} is none of {', '.join(ASKED)}")


class Steering:
    """Steering of one open device; see the module.

    Args:
        engine: the data plane, with its policy from creation.
        netdev: the host port, open.
        request: what the operator wants.
    """

    def __init__(self, engine: Engine, netdev: NetDevice, request: SteeringRequest) -> None:
        self._engine = engine
        self._native = engine.native
        self._ports = netdev.queues
        self._attached = 1  # host port queues, from 0: as the engine begins
        self._asked = request.asked
        self._steerer: Steerer | None = None
        self._findings: dict[str, Finding] = {**_ALWAYS, **dict.fromkeys(_BY_NAME, _LATER)}
        self._told: _Told | None = None  # what the steerer steers by; None: nothing

    def close(self) -> None:
        """Let the tap go; the engine runs no more.  Harmless twice."""
        steerer, self._steerer = self._steerer, None
        if steerer is not None:
            steerer.close()

    def owner(self, mode: SteeringMode) -> str:
        """Who chooses the tap queue under a mode: one of ``OWNERS``."""
        if mode is SteeringMode.AUTOMATIC:
            return AUTOMATIC
        return SOFTWARE if self._steerer is None else self._steerer.owner

    def status(self, mode: SteeringMode) -> dict[str, Any]:
        """For status output: who was asked for, who it is, and why nobody else."""
        owners = {name: self._findings[name].as_json() for name in OWNERS if name in self._findings}
        return {"owner": self.owner(mode), "asked": self._asked, "owners": owners}

    def apply(self, policy: DevicePolicy, *, running: bool) -> None:
        """Let everyone go over to a policy; on return no frame is decided by the old one.

        ``running``: some ring runs, so that frames can be lost.  Raises HostError
        if a host port queue cannot be attached, with the old policy in force.
        """
        wanted = min(policy.port_queues, self._ports)
        with Policy.compile(policy, self._native) as compiled:
            if running and wanted < self._attached and self._steerer is not None:
                self._shrink(policy, compiled)
            else:
                self._engine.set_policy(compiled)
                self._steer(policy, compiled)
        self._attached = wanted

    def _shrink(self, policy: DevicePolicy, compiled: Policy) -> None:
        """Judge by the new policy, steer by it, and only then take the queues away."""
        staying = replace(policy, port_queues=self._attached)
        with Policy.compile(staying, self._native) as first:
            self._engine.set_policy(first)
        if policy.mode is SteeringMode.RSS:
            self._steer(policy, compiled)
        else:
            self._spread(min(policy.port_queues, self._ports))
        self._ask(lambda steerer: steerer.settle())
        # Nothing is attached now and the offloads are told: it cannot be refused.
        self._engine.set_policy(compiled)
        self._steer(policy, compiled)

    def _steer(self, policy: DevicePolicy, compiled: Policy) -> None:
        told = _Told.of(policy) if policy.mode is SteeringMode.RSS else None
        if told == self._told:
            return  # a command about something else
        if told is None:
            self._ask(lambda steerer: steerer.release())
        else:
            self._ask(lambda steerer: steerer.publish(compiled))
        self._told = told

    def _spread(self, queues: int) -> None:
        """Steer any flow to one of the first ``queues``, for the time being."""
        table = [index % queues for index in range(MAX_TABLE_LENGTH)]
        with Policy.create(
            mode=SteeringMode.RSS,
            hash_types=ALL_HASH_TYPES,
            key=VERIFICATION_KEY,
            indirection_table=table,
            native=self._native,
        ) as spread:
            self._ask(lambda steerer: steerer.publish(spread))
        self._told = _SPREAD

    def _ask(self, what: Callable[[Steerer], None]) -> None:
        """Ask the steerer, if there is one; it goes if it cannot."""
        if self._steerer is None:
            return
        try:
            what(self._steerer)
        except HostError as error:
            self._give_up(error)

    def _give_up(self, error: HostError) -> None:
        """The steerer cannot go on; the C path hands frames over in its place."""
        steerer, self._steerer = self._steerer, None
        if steerer is None:
            return
        steerer.close()
        self._findings[steerer.owner] = no(error.what, error.cure)
        level = logging.INFO if self._asked == "auto" else logging.WARNING
        _log.log(level, "steering by software instead of %s: %s", steerer.owner, error)


class _Told(NamedTuple):
    """Of a policy, what a steerer goes by: two that are equal steer alike."""

    hash_types: int
    key: bytes
    indirection_table: tuple[int, ...]
    unclassified_queue: int
    ex_types_always: bool

    @classmethod
    def of(cls, policy: DevicePolicy) -> _Told:
        return cls(*(getattr(policy, name) for name in cls._fields))


_SPREAD: Final = _Told(0, b"", (), 0, ex_types_always=False)  # like no policy's
