# SPDX-License-Identifier: MIT
"""Putting a tap back as it was: what of its state can be read, and how it is restored."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from pyvnet.errors import HostError
from pyvnet.netdev import rtnl, tun_uapi
from pyvnet.netdev.tun_uapi import Iff, Offload

if TYPE_CHECKING:
    from collections.abc import Callable

# ethtool's name of the interface feature behind each TUN_F_* (set_offload() of tun.c).
_OFFLOAD_NAMES: Final = {
    "tx-checksum-ip-generic": Offload.CSUM,
    "tx-tcp-segmentation": Offload.TSO4,
    "tx-tcp6-segmentation": Offload.TSO6,
    "tx-tcp-ecn-segmentation": Offload.TSO_ECN,
    "tx-udp-segmentation": Offload.USO4 | Offload.USO6,
    "tx-udp_tnl-segmentation": Offload.UDP_TUNNEL_GSO,
    "tx-udp_tnl-csum-segmentation": Offload.UDP_TUNNEL_GSO_CSUM,
}


def offloads(name: str) -> Offload:
    """What TUNSETOFFLOAD was last told; there is no ioctl to ask for it."""
    offload = Offload.NONE
    for feature in rtnl.offload_names(name):
        offload |= _OFFLOAD_NAMES.get(feature, Offload.NONE)
    return offload


def restore_flags(before: rtnl.Link) -> None:
    """Give a persistent tap its flags back; all our queues are closed by now."""
    now = rtnl.get_link(before.name)
    tun = before.tun
    if tun is None or now is None or now.index != before.index or now.tun == tun:
        return
    flags = Iff.TAP
    flags |= Iff(0) if tun.packet_info else Iff.NO_PI
    flags |= Iff.VNET_HDR if tun.vnet_header else Iff(0)
    flags |= Iff.MULTI_QUEUE if tun.multi_queue else Iff(0)
    try:
        fd = tun_uapi.open_clone_device()
        try:
            tun_uapi.set_iff(fd, before.name, flags)
        finally:
            os.close(fd)
    except OSError as error:
        raise HostError(f"cannot restore the flags of {before.name}", error.errno) from error


def attach(fd: int) -> bool:
    """Attach a queue; whether it was detached.  The one queue of a simple tap never is."""
    try:
        tun_uapi.set_queue(fd, attached=True)
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.EBADFD, errno.ENODEV}:  # attached, simple, or gone
            return False
        raise HostError("cannot attach a tap queue", error.errno) from error
    return True


def unless_gone(change: Callable[[], None]) -> None:
    """An interface that was deleted under us has nothing left to restore."""
    try:
        change()
    except OSError as error:
        if error.errno not in {errno.EBADFD, errno.ENODEV}:
            raise HostError("cannot restore a tap", error.errno) from error


def unless_missing(name: str, change: Callable[..., None], *args: int) -> None:
    """The same, for a change through rtnetlink."""
    if rtnl.get_link(name) is not None:
        change(name, *args)


def send(fd: int, message: bytes) -> None:
    """Write a frame, its header in front, to a queue.

    Raises:
        BlockingIOError: there is no room.
        HostError: the interface is down or gone.
    """
    try:
        os.write(fd, message)
    except BlockingIOError:
        raise
    except OSError as error:
        raise HostError("a frame does not go into the tap", error.errno) from error
