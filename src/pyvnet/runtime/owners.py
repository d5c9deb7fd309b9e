# SPDX-License-Identifier: MIT
"""Who may steer a device: what the operator asks for, and what the host has (U-45)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev.finding import YES, Finding, because, no
from pyvnet.netdev.pair_fds import duplicate
from pyvnet.offload import ebpf, kernel_hash, program

if TYPE_CHECKING:
    from pyvnet.datapath.native import Native
    from pyvnet.netdev import NetDevice
    from pyvnet.offload.base import Steerer, SteeringProgram

AUTO: Final = "auto"
AUTOMATIC: Final = "kernel-auto"
SOFTWARE: Final = "software"
EBPF: Final = "ebpf"
KERNEL_HASH: Final = "kernel-hash"
USER_PROGRAM: Final = "user-program"
OWNERS: Final = (AUTOMATIC, SOFTWARE, EBPF, KERNEL_HASH, USER_PROGRAM)
ASKED: Final = (AUTO, SOFTWARE, EBPF, KERNEL_HASH)


@dataclass(frozen=True, slots=True)
class SteeringRequest:
    """What the operator wants; raises UsageError for what cannot be.

    Args:
        asked: ``auto``, or the owner wanted while RSS is the mode.
        program: of the operator's own: a path, or something that loads one.
        bpf_fds: our program and its map, loaded by somebody else; they stay theirs.
    """

    asked: str = AUTO
    program: str | SteeringProgram | None = None
    bpf_fds: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.asked not in ASKED:
            raise UsageError(f"steering {self.asked!r} is none of {', '.join(ASKED)}")
        if self.program is not None and self.asked != AUTO:
            raise UsageError(f"a program of your own cannot steer together with {self.asked}")
        if self.bpf_fds is not None and self.asked not in {AUTO, EBPF}:
            raise UsageError(f"steering {self.asked} has no use for a program that was handed over")
        if self.bpf_fds is not None and len(self.bpf_fds) != 2:
            raise UsageError("a program that is handed over is two fds: its own and its map's")


class Choice(NamedTuple):
    """The steerer, None for software; and about every owner, whether it can be and why not."""

    steerer: Steerer | None
    findings: dict[str, Finding]


def choose(request: SteeringRequest, netdev: NetDevice, native: Native) -> Choice:
    """Take the best steerer there is, of those that were asked for."""
    chosen: Steerer | None = None
    findings = {AUTOMATIC: YES, SOFTWARE: YES}
    useless = _useless(netdev)
    for name in (KERNEL_HASH, EBPF):
        if request.asked not in {AUTO, name}:
            cure = f"ask for {name} or {AUTO}"
            findings[name] = no(f"{request.asked} was asked for", cure)
        elif useless is not None:
            findings[name] = useless
        elif chosen is not None:
            findings[name] = no(f"{chosen.owner} was found first", f"ask for {name}")
        else:
            try:
                chosen = _make(name, request, netdev.fds[0], native)
                findings[name] = YES
            except HostError as error:
                findings[name] = because(error)
    findings[USER_PROGRAM] = YES if netdev.kind == "tap" else useless or YES
    return Choice(chosen, findings)


def _useless(netdev: NetDevice) -> Finding | None:
    """Why nobody but software can be of use at this host port."""
    if netdev.kind != "tap":
        return no(f"the host port is a {netdev.kind} port", "use a tap")
    if netdev.queues == 1:
        return no("the tap has one queue, so there is nothing to choose", "give it more queues")
    return None


def _make(name: str, request: SteeringRequest, queue_fd: int, native: Native) -> Steerer:
    if name == KERNEL_HASH:
        return kernel_hash.make(queue_fd, native=native)
    if request.bpf_fds is None:
        fds = program.load()
        return ebpf.EbpfSteerer(queue_fd, fds.program, fds.map, native=native, fresh=True)
    program_fd, map_fd = request.bpf_fds
    held = duplicate(program_fd)
    try:
        other = duplicate(map_fd)
    except HostError:
        os.close(held)
        raise
    return ebpf.EbpfSteerer(queue_fd, held, other, native=native)
