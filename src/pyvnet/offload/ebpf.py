# SPDX-License-Identifier: MIT
"""The kernel puts each frame on its receiveq's own tap queue, by the program of this package.

A hint, never an answer: the frame path judges every frame itself, and hands over
one that came by another queue.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from pyvnet.datapath.native import DEFAULT
from pyvnet.datapath.steering_map import SteeringMap
from pyvnet.errors import HostError
from pyvnet.netdev import tun_uapi
from pyvnet.offload import program

if TYPE_CHECKING:
    from pyvnet.datapath.native import Native
    from pyvnet.datapath.policy import Policy

ATTACH_CURES: Final = {
    errno.EBADFD: "the tap went away, or the queue belongs to none",
    errno.EBADF: "the program's fd is closed",
    errno.EINVAL: "this tap, or this kernel, takes no steering program (Linux 4.16 and newer do)",
    errno.ENOTTY: "the host port is no tap",
    errno.EPERM: "another program of the system forbids it",
}


def attach(queue_fd: int, program_fd: int) -> None:
    """TUNSETSTEERINGEBPF: have a program choose the tap's queues; -1 for the kernel itself.

    Raises:
        HostError: with what may be wrong.
    """
    try:
        tun_uapi.set_steering_program(queue_fd, program_fd)
    except OSError as error:
        verb = "attach the steering program to" if program_fd >= 0 else "detach it from"
        cure = ATTACH_CURES.get(error.errno or 0, "")
        raise HostError(f"cannot {verb} the tap", error.errno, cure) from error


class EbpfSteerer:
    """Our program on one tap.

    Args:
        queue_fd: any queue of the tap; stays the caller's, open until after `close`.
        program_fd: from `program.load` or handed over.
        map_fd: its map.  Both are taken over in any case, and closed by `close`.
        native: the build that makes the policies.
        fresh: the map was made a moment ago and never steered by.

    Raises:
        HostError: the fds are not this version's program and map.
    """

    owner: Final = "ebpf"

    def __init__(
        self,
        queue_fd: int,
        program_fd: int,
        map_fd: int,
        *,
        native: Native = DEFAULT,
        fresh: bool = False,
    ) -> None:
        self._queue_fd = queue_fd
        self._fds = fds = program.SteeringFds(program_fd, map_fd)
        self._attached = False
        try:
            _check_size(native)
            program.check(fds.program, fds.map)
            self._map = SteeringMap(fds.map, native, fresh=fresh)
        except BaseException:
            fds.close()
            raise

    def publish(self, policy: Policy) -> None:
        """Steer by ``policy`` from the next frame on; attaches the program on first use.

        Raises:
            HostError: the tap takes it no more, or the kernel cannot be waited for.
        """
        self._map.publish(policy)
        if not self._attached:
            attach(self._queue_fd, self._fds.program)
            self._attached = True

    def release(self) -> None:
        """Let the kernel steer by itself; harmless twice.

        Raises:
            HostError: the tap went away.
        """
        if self._attached:
            attach(self._queue_fd, -1)
            self._attached = False

    def settle(self) -> None:
        """Wait until no frame is steered by an older snapshot than the last.

        Raises:
            HostError: the kernel does not offer it.
        """
        self._map.settle()

    def close(self) -> None:
        """Detach, unmap and close; harmless twice, and never fails."""
        if self._fds.program < 0:
            return
        try:
            self.release()
        except HostError:  # with the tap the program went too
            self._attached = False
        self._map.close()
        self._fds.close()
        self._fds = program.SteeringFds(-1, -1)


def _check_size(native: Native) -> None:
    """The program's idea of the map against that of the code that writes it."""
    (spec,) = program.image().maps
    written = native.ffi.sizeof("struct vnet_steering_map")
    if spec.value_size != written:
        raise HostError(
            f"the steering program reads a map of {spec.value_size} bytes, "
            f"the frame path writes one of {written}",
            cure="both come from one version: install pyvnet anew (in a checkout: make setup bpf)",
        )
