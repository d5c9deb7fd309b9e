# SPDX-License-Identifier: MIT
"""What a message asks of the device below the session.

A handler that asks for nothing just returns its answer.  Any other is a
generator: it yields actions, is given each one's result, and has the error of
one that failed raised at its ``yield`` (FrontendError for the front-end's fault,
HostError for the machine's).  So it can put its own state right before it lets
the message be refused.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pyvnet.spec.transport import MemoryRegion, QueueSetup
    from pyvnet.transport.vhost_user.fds import Fd


@dataclass(frozen=True, slots=True)
class Negotiate:
    """Take the front-end's feature set, protocol bits taken away."""

    features: int


@dataclass(frozen=True, slots=True)
class SetMemory:
    """Swap the guest memory table; none: let go of all guest memory."""

    regions: tuple[MemoryRegion, ...]


@dataclass(frozen=True, slots=True)
class StartRing:
    """Start a ring that does not run."""

    setup: QueueSetup
    enabled: bool


@dataclass(frozen=True, slots=True)
class StopRing:
    """Stop a running ring; the result is its (avail_base, used_base)."""

    index: int


@dataclass(frozen=True, slots=True)
class EnableRing:
    """Let a running ring carry frames, or throw away what comes (U-42)."""

    index: int
    enabled: bool


@dataclass(frozen=True, slots=True)
class MoveRing:
    """Give a running ring other addresses, in guest physical ones."""

    index: int
    desc_table: int
    avail_ring: int
    used_ring: int


@dataclass(frozen=True, slots=True)
class ReplaceKick:
    """Give a running ring another kick fd; -1: none."""

    index: int
    kick_fd: int


@dataclass(frozen=True, slots=True)
class ReplaceCalls:
    """Give a running ring other call and err fds; -1: none."""

    index: int
    call_fd: int
    err_fd: int


@dataclass(frozen=True, slots=True)
class BeginAnew:
    """The driver was reset: clear what it had set (U-59)."""


@dataclass(frozen=True, slots=True)
class ResetDevice:
    """Back to the initial state, features included."""


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """The result is ``size`` bytes of configuration space."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class ReadStatus:
    """The result is the device status field."""


@dataclass(frozen=True, slots=True)
class SetMtu:
    """The front-end's NET_SET_MTU."""

    mtu: int


@dataclass(frozen=True, slots=True)
class SendRarp:
    """Tell the host's side of the wire where a guest's address is now."""

    mac: bytes


@dataclass(frozen=True, slots=True)
class OpenBackendChannel:
    """Requests to the front-end go here from now on; the fd changes hands."""

    fd: Fd


Action: TypeAlias = (
    Negotiate
    | SetMemory
    | StartRing
    | StopRing
    | EnableRing
    | MoveRing
    | ReplaceKick
    | ReplaceCalls
    | BeginAnew
    | ResetDevice
    | ReadConfig
    | ReadStatus
    | SetMtu
    | SendRarp
    | OpenBackendChannel
)

# A handler's answer is the payload of the reply, None for messages that have none of their own.
Answer: TypeAlias = bytes | None
Steps: TypeAlias = Generator[Action, Any, Answer]
SubSteps: TypeAlias = Generator[Action, Any, None]
