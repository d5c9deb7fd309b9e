# SPDX-License-Identifier: MIT
"""A tap and its queues, made for somebody who may not.

The interface is always a new one: IFF_TUN_EXCL makes the kernel refuse a name
that is taken, so nothing of anybody else's is ever changed.  It goes with the
last descriptor of a queue.

Only root may attach further queues unless an owner is named.  Without one,
kernels before 6.14 let everybody who can open /dev/net/tun (tun_not_capable()
of drivers/net/tun.c).

Never does: touch an interface it did not make, but for making its tap a port
of the bridge that was named; give addresses or routes; read or write a frame.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from dataclasses import dataclass
from fcntl import ioctl
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev import tun_uapi
from pyvnet.netdev.names import check_name
from pyvnet.netdev.tun_uapi import Iff, Offload

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

_T = TypeVar("_T")

ROOT: Final = 0
HEADER_SIZE: Final = 12  # struct virtio_net_hdr_v1
AUTOMATIC_NAME: Final = "vnet%d"

# linux/sockios.h; struct ifreq is a name of 16 bytes and a union of 24.
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_SIOCSIFMTU: Final = 0x8922
_SIOCGIFINDEX: Final = 0x8933
_SIOCBRADDIF: Final = 0x89A2
_SHORT: Final = struct.Struct("16sh22x")
_INT: Final = struct.Struct("16si20x")
_IFF_UP: Final = 1
_LOOKS: Final = 100
_PAUSE: Final = 0.02  # seconds; together two


@dataclass(frozen=True, slots=True)
class TapWish:
    """A tap as it was asked for; ``owner`` is a uid that may attach more queues."""

    queues: int
    name: str | None = None
    mtu: int | None = None
    bridge: str | None = None
    owner: int = ROOT
    persist: bool = False

    def check(self) -> None:
        """Raises UsageError for what no tap can be."""
        for name in (self.name, self.bridge):
            if name is not None:
                check_name(name)
        if not 0 < self.queues <= tun_uapi.MAX_QUEUES:
            raise UsageError(f"{self.queues} queues; a tap has 1 to {tun_uapi.MAX_QUEUES}")


@dataclass(frozen=True, slots=True)
class MadeTap:
    """A tap and one fd per queue, index = queue."""

    name: str
    fds: tuple[int, ...]


def make(wish: TapWish, undo: ExitStack) -> MadeTap:
    """Make a tap in the caller's network namespace; it is up at the end.

    Args:
        wish: what it is to be.
        undo: is told how to take it back, step by step; nothing is left when it was run.

    Raises:
        HostError: the kernel refuses, the name is taken, or there is no such bridge.
        UsageError: no tap can be so.
    """
    wish.check()
    name, fds = wish.name or AUTOMATIC_NAME, []
    flags = Iff.TAP | Iff.NO_PI | Iff.VNET_HDR
    flags |= Iff.MULTI_QUEUE if wish.queues > 1 else Iff(0)
    for queue in range(wish.queues):
        fd = _explained(f"open {tun_uapi.CLONE_DEVICE}", tun_uapi.open_clone_device)
        undo.callback(os.close, fd)
        only_new = Iff(0) if queue else Iff.TUN_EXCL
        attach = partial(tun_uapi.set_iff, fd, name, flags | only_new)
        name = _explained(f"make tap {name}", attach)
        fds.append(fd)
    first = fds[0]
    _explained(f"give {name} to its owner", lambda: tun_uapi.set_owner(first, wish.owner))
    _explained(f"set the header of {name}", lambda: tun_uapi.set_header_size(first, HEADER_SIZE))
    _explained(f"set the offloads of {name}", lambda: tun_uapi.set_offload(first, Offload.NONE))
    _explained(f"set {name} up", lambda: _set_up(name, wish))
    if wish.persist:
        _explained(f"keep {name}", lambda: tun_uapi.set_persist(first, on=True))
        undo.callback(tun_uapi.set_persist, first, on=False)
    return MadeTap(name, tuple(fds))


def exists(name: str) -> bool:
    """Whether there is an interface of that name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def wait_until_gone(name: str) -> None:
    """Wait a while for an interface whose last descriptor somebody else is about to close."""
    for _ in range(_LOOKS):
        if not exists(name):
            return
        select.select([], [], [], _PAUSE)


def attach_steering(queue: int, program: int) -> None:
    """Have a program choose the queue; -1: nobody.

    Raises:
        HostError: it is no program of that kind, or the tap is gone.
    """
    _explained("attach the program", lambda: tun_uapi.set_steering_program(queue, program))


def _set_up(name: str, wish: TapWish) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        own = name.encode()
        if wish.mtu is not None:
            ioctl(asked, _SIOCSIFMTU, _INT.pack(own, wish.mtu))
        if wish.bridge is not None:
            index = _INT.unpack(ioctl(asked, _SIOCGIFINDEX, _INT.pack(own, 0)))[1]
            try:
                ioctl(asked, _SIOCBRADDIF, _INT.pack(wish.bridge.encode(), index))
            except OSError as error:
                if error.errno in {errno.ENODEV, errno.EOPNOTSUPP}:
                    cure = f"`ip link add {wish.bridge} type bridge` makes one"
                    raise HostError(f"there is no bridge {wish.bridge}", cure=cure) from error
                raise
        flags = _SHORT.unpack(ioctl(asked, _SIOCGIFFLAGS, _SHORT.pack(own, 0)))[1]
        ioctl(asked, _SIOCSIFFLAGS, _SHORT.pack(own, flags | _IFF_UP))


def _explained(what: str, step: Callable[[], _T]) -> _T:
    try:
        return step()
    except OSError as error:
        raise HostError(f"cannot {what}", error.errno, _CURES.get(error.errno or 0, "")) from error


_CURES: Final = {
    errno.EPERM: "run as root or with CAP_NET_ADMIN",
    errno.EACCES: "grant access to the device node, or run as root",
    errno.ENOENT: "load the module with `modprobe tun`; a container needs the device passed in",
    errno.EBUSY: "an interface of that name exists: remove it or choose another name",
    errno.EINVAL: "an interface of that name and another kind exists, or the value is out of range",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`, LimitNOFILE=)",
}
