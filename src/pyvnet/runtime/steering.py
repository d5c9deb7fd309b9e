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
    kernel gives no moment from which it leaves a queue alone.  While no
    receiveq runs no frame can be saved, and the queues just go.

    A steerer that fails is let go, at once and for good; the C path hands
    frames over as it does without one.  The driver's command is good all the
    same: what it asked for holds.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pyvnet.datapath.policy import Policy
from pyvnet.device.steering import SteeringMode
from pyvnet.errors import HostError
from pyvnet.netdev import tun_uapi
from pyvnet.netdev.finding import because
from pyvnet.offload.ebpf import attach
from pyvnet.offload.user_program import UserProgram
from pyvnet.runtime.owners import AUTO, AUTOMATIC, EBPF, OWNERS, SOFTWARE, USER_PROGRAM, choose
from pyvnet.spec.rss import ALL_HASH_TYPES, MAX_TABLE_LENGTH, VERIFICATION_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.datapath.engine import Engine
    from pyvnet.device.steering import Policy as DevicePolicy
    from pyvnet.netdev import NetDevice
    from pyvnet.offload.base import Steerer, SteeringProgram
    from pyvnet.runtime.owners import SteeringRequest

_log = logging.getLogger("pyvnet")


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
        self._netdev = netdev
        self._attached = 1  # host port queues, from 0: as the engine begins
        self._asked = request.asked
        self._told: _Told | None = None  # what the steerer steers by; None: nothing
        self._applied: DevicePolicy | None = None  # in force everywhere; None: not surely
        self._program: SteeringProgram | None = None
        self._let_kernel_steer()
        self._steerer, self._findings = choose(request, netdev, self._native)
        expected = EBPF if request.asked == AUTO else request.asked
        if self._steerer is None and expected != SOFTWARE and request.program is None:
            self._say_why_not(expected)

    def _let_kernel_steer(self) -> None:
        """Detach what may be attached to the tap: the kernel does not say whether anything is."""
        if self._netdev.kind == "tap":
            with suppress(OSError):  # a kernel too old for programs, or a tap that is gone
                tun_uapi.set_steering_program(self._netdev.fds[0], -1)

    def _say_why_not(self, owner: str) -> None:
        """One line: a warning about an owner who was asked for by name."""
        auto = self._asked == AUTO
        if auto and (self._netdev.kind != "tap" or self._netdev.queues == 1):
            return  # nobody could expect another owner here
        finding = self._findings[owner]
        said = f"{finding.reason}; {finding.cure}" if finding.cure else finding.reason
        level = logging.INFO if auto else logging.WARNING
        _log.log(level, "steering by software instead of %s: %s", owner, said)

    def close(self) -> None:
        """Let the tap go; the engine runs no more.  Harmless twice."""
        steerer, self._steerer = self._steerer, None
        if steerer is not None:
            steerer.close()
        self.detach_program()

    def owner(self, mode: SteeringMode) -> str:
        """Who chooses the tap queue under a mode: one of ``OWNERS``."""
        if self._program is not None:
            return USER_PROGRAM
        if mode is SteeringMode.AUTOMATIC:
            return AUTOMATIC
        return SOFTWARE if self._steerer is None else self._steerer.owner

    def status(self, mode: SteeringMode) -> dict[str, Any]:
        """For status output: who was asked for, who it is, and why nobody else."""
        owners = {name: self._findings[name].as_json() for name in OWNERS}
        program = {} if self._program is None else {"program": self._program.name}
        return {"owner": self.owner(mode), "asked": self._asked, **program, "owners": owners}

    def attach_program(self, program: str | SteeringProgram) -> None:
        """Let a program of the operator's choose tap queues in automatic mode (U-45).

        The caller sees to it that RSS is not the mode and cannot become it.

        Raises:
            HostError: one is attached already (EBUSY), the host port is no tap, it
                cannot be loaded, or the tap does not take it.
            UsageError: it is no such program.
        """
        if self._program is not None:
            raise HostError(
                f"the steering program {self._program.name} is attached",
                errno.EBUSY,
                "detach it first",
            )
        finding = self._findings[USER_PROGRAM]
        if not finding.available:
            raise HostError(finding.reason, cure=finding.cure)
        chosen = UserProgram(program) if isinstance(program, str) else program
        fd = chosen.load()
        try:
            attach(self._netdev.fds[0], fd)
        finally:
            os.close(fd)
        self._program = chosen
        self._applied = None
        _log.info("the steering program %s chooses the tap queues; RSS is refused", chosen.name)

    def detach_program(self) -> None:
        """Take the operator's program off; harmless when there is none."""
        program, self._program = self._program, None
        self._applied = None
        if program is not None:
            self._let_kernel_steer()
            _log.info("the steering program %s is detached", program.name)

    def apply(self, policy: DevicePolicy, *, receiving: bool) -> None:
        """Let everyone go over to a policy; on return no frame is decided by the old one.

        ``receiving``: some receiveq runs, so that frames can be lost.  Raises HostError
        if a host port queue cannot be attached, with the old policy in force.
        """
        if policy == self._applied:
            return  # a reset of a device that was reset, say
        self._applied = None
        wanted = min(policy.port_queues, self._netdev.queues)
        steers = self._steerer is not None and self._program is None
        with ExitStack() as made:
            compiled = made.enter_context(Policy.compile(policy, self._native))
            if receiving and wanted < self._attached and steers:
                staying = replace(policy, port_queues=self._attached)
                first = made.enter_context(Policy.compile(staying, self._native))
                away = compiled
                if policy.mode is not SteeringMode.RSS:
                    away = made.enter_context(self._spreading(wanted))
                self._engine.set_policy(first)
                self._steer_away(policy, away)
            # Where queues go nothing is attached, and the offloads are told: it is not refused.
            self._engine.set_policy(compiled)
            self._attached = wanted
            self._steer(policy, compiled)
        self._applied = policy

    def _steer_away(self, policy: DevicePolicy, away: Policy) -> None:
        """Return once no frame is steered to a queue that goes, if that can be had.

        ``away`` names none of them: the policy itself, or what stands in for automatic mode.
        """
        if policy.mode is SteeringMode.RSS:
            self._steer(policy, away)
        else:
            self._ask(lambda steerer: steerer.publish(away))
            self._told = _SPREAD
        self._ask(lambda steerer: steerer.settle())

    def _spreading(self, queues: int) -> Policy:
        """Any flow to one of the first ``queues``: for steering by, for the time being."""
        return Policy.create(
            mode=SteeringMode.RSS,
            hash_types=ALL_HASH_TYPES,
            key=VERIFICATION_KEY,
            indirection_table=[index % queues for index in range(MAX_TABLE_LENGTH)],
            native=self._native,
        )

    def _steer(self, policy: DevicePolicy, compiled: Policy) -> None:
        told = _Told.of(policy) if policy.mode is SteeringMode.RSS else None
        if told == self._told:
            return  # a command about something else
        if told is None:
            self._ask(lambda steerer: steerer.release())
        else:
            self._ask(lambda steerer: steerer.publish(compiled))
        self._told = told

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
        cure = error.cure or "none needed: software gives the same answers"
        self._findings[steerer.owner] = because(HostError(error.what, error.errno, cure))
        self._say_why_not(steerer.owner)


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
