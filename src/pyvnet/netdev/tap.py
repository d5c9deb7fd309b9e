# SPDX-License-Identifier: MIT
"""A multiqueue tap: opened, configured, and put back as it was.

Theory.  Every step of ``open()`` that succeeds says how it is undone.  The list
of undos, run backwards, *is* ``close()``; it is also what runs when a later step
fails.  So there is one way back, whether the way forward was long or short.

A tap that this object created goes when its last fd closes (unless
``persist``).  A tap that was there before keeps what it had: up or down, MTU,
offloads, vnet header size, IFF_NO_PI and IFF_VNET_HDR, its bridge.  The carrier
needs no care: every first attach plugs the cable in.  Owner, group and
addresses are never touched.  A tap some other program holds is refused: queue
numbers are shared, and so is all of the above.

The kernel (drivers/net/tun.c, 6.18):
  - TUNSETIFF with IFF_TUN_EXCL creates or says EBUSY: no race about who did.
  - The first queue attached to a persistent tap overwrites its flags; later
    ones do not.  Flags can therefore be restored by one last, single attach.
  - IFF_MULTI_QUEUE can never change: it must match (EINVAL).
  - 256 queues (E2BIG).
  - The peer of the frame format is TUNSETVNETHDRSZ, here always 12, with
    TUNSETOFFLOAD 0: a device turns offloads on when a driver negotiated them.
"""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev import rtnl, tap_state, tun_uapi
from pyvnet.netdev.carrier import CarrierWatch
from pyvnet.netdev.names import check_name
from pyvnet.netdev.netns import NetNamespace
from pyvnet.netdev.tun_uapi import Iff, Offload

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER_SIZE: Final = 12  # struct virtio_net_hdr_v1
AUTOMATIC_NAME: Final = "vnet%d"
_MTU_RANGE: Final = range(68, 65522)  # MIN_MTU … MAX_MTU - ETH_HLEN of tun.c


class Tap:
    """A tap interface of ``queues`` queues.

    Args:
        name: attach to it if it exists and fits, else create it; None lets the
            kernel number a ``vnet`` one.
        queues: 1 … 256.  With one, a tap with or without IFF_MULTI_QUEUE fits.
        mtu: in bytes; None leaves it alone (U-51).
        persist: a tap created here stays after ``close()``.
        netns: name (``ip netns``) or path of the namespace it is in; None is the
            caller's at the time of ``open()``.
        bridge: becomes a port of that one, and leaves it again at ``close()``
            unless it goes anyway or was its port before.

    Raises:
        UsageError: a name no interface may have, or an MTU or number of queues
            no tap can have.
    """

    kind: Final = "tap"

    def __init__(
        self,
        name: str | None = None,
        *,
        queues: int,
        mtu: int | None = None,
        persist: bool = False,
        netns: str | None = None,
        bridge: str | None = None,
    ) -> None:
        for chosen in (name, bridge):
            if chosen is not None:
                check_name(chosen)
        if queues < 1:
            raise UsageError(f"{queues} queues asked for; at least one is needed")
        if mtu is not None and mtu not in _MTU_RANGE:
            raise UsageError(
                f"no tap has an MTU of {mtu}; take {_MTU_RANGE.start} to {_MTU_RANGE.stop - 1}"
            )
        self._wanted = name or AUTOMATIC_NAME
        self._name = self._wanted
        self._queues = queues
        self._mtu = mtu
        self._persist = persist
        self._netns = netns
        self._bridge = bridge
        self._created = False
        self._fds: list[int] = []
        self._undo = ExitStack()
        self._namespace: NetNamespace | None = None
        self._watch: CarrierWatch | None = None

    @property
    def name(self) -> str:
        """The interface's name; before ``open()`` of an automatic one, ``vnet%d``."""
        return self._name

    @property
    def queues(self) -> int:
        """Number of queues."""
        return self._queues

    @property
    def fds(self) -> tuple[int, ...]:
        """One fd per queue; empty unless open."""
        return tuple(self._fds)

    @property
    def created(self) -> bool:
        """Whether ``open()`` made the interface."""
        return self._created

    def open(self) -> None:
        """Create or attach, configure, bring up; see the module for what is put back.

        Raises:
            HostError: no /dev/net/tun, no privilege, in use, not the right kind,
                too many queues, no fds left: with the cure.
            UsageError: it is open already.
        """
        if self._namespace is not None:
            raise UsageError(f"{self._name} is open already; close it first")
        with ExitStack() as undo:
            namespace = NetNamespace.named(self._netns) if self._netns else NetNamespace.current()
            undo.callback(self._forget)
            undo.enter_context(namespace)
            # Undone where it was done: the stack below runs inside the namespace.
            inner = namespace.call(self._open_here)
            undo.callback(namespace.call, inner.close)
            self._namespace = namespace
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Close the queues; a tap created here goes, any other is as it was before.

        Raises:
            HostError: something could not be put back.
        """
        self._undo.close()

    def statistics(self) -> rtnl.LinkStatistics:
        """The interface's counters, seen from the kernel: its ``tx`` is what was read here.

        Raises:
            HostError: the interface is gone.
            UsageError: the tap is not open.
        """
        if self._namespace is None:
            raise UsageError("this tap is not open")
        name = self._name
        return self._namespace.call(lambda: rtnl.statistics(name))

    def set_carrier(self, *, on: bool) -> None:
        """Plug the cable in or out, as seen from the kernel; needs no privilege."""
        try:
            tun_uapi.set_carrier(self._fds[0], on=on)
        except OSError as error:
            raise self._refused("plug the cable of", error) from error
        if self._watch is not None:
            self._watch.look()

    def watch_carrier(self, callback: Callable[[bool], None]) -> None:
        """Call ``callback(plugged)`` in the running loop: now, and at each change until closed."""
        if self._namespace is None:
            raise UsageError("this tap is not open")
        watch = self._namespace.call(lambda: CarrierWatch(rtnl.existing(self._name).index))
        self._undo.callback(watch.close)
        self._watch = watch
        watch.start(asyncio.get_running_loop(), callback)

    def send(self, frame: bytes) -> None:
        """Hand a frame to the host, as if the driver had sent it."""
        tap_state.send(self._fds[0], bytes(HEADER_SIZE) + frame)

    def describe(self) -> dict[str, Any]:
        """``kind``, ``queues``, ``name``, ``created``; and as given, the options."""
        return {
            "kind": self.kind,
            "queues": self.queues,
            "name": self._name,
            "created": self._created,
            "persist": self._persist,
            "mtu": self._mtu,
            "netns": self._netns,
            "bridge": self._bridge,
        }

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget(self) -> None:
        self._name = self._wanted
        self._created = False
        self._namespace = self._watch = None

    def _open_here(self) -> ExitStack:
        with ExitStack() as undo:
            undo.callback(self._fds.clear)
            before = self._attach_first(undo)
            for _ in range(1, self._queues):
                self._attach(undo, self._flags(before))
            self._check_alone()
            try:
                self._configure_queues(undo, before)
                self._configure_link(undo, before)
                if self._created and self._persist:
                    tun_uapi.set_persist(self._fds[0], on=True)
            except OSError as error:
                raise self._refused("configure", error) from error
            return undo.pop_all()

    def _attach_first(self, undo: ExitStack) -> rtnl.Link | None:
        """Create the interface, or attach to one that fits; returns what that was like."""
        try:
            self._attach(undo, self._flags(None) | Iff.TUN_EXCL)
        except HostError as error:
            if error.errno != errno.EBUSY:
                raise
        else:
            self._created = True
            return None
        before = rtnl.get_link(self._name)
        if before is None:
            raise _went_away(self._name)
        self._check_fits(before)
        # Comes first, to run last: when all our queues are closed.
        undo.callback(tap_state.restore_flags, before)
        self._attach(undo, self._flags(before))
        return before

    def _flags(self, before: rtnl.Link | None) -> Iff:
        many = before.tun.multi_queue if before and before.tun else self._queues > 1
        flags = Iff.TAP | Iff.NO_PI | Iff.VNET_HDR
        return flags | Iff.MULTI_QUEUE if many else flags

    def _attach(self, undo: ExitStack, flags: Iff) -> None:
        try:
            fd = tun_uapi.open_clone_device()
        except OSError as error:
            cure = _OPEN_CURES.get(error.errno or 0, "")
            raise HostError(f"cannot open {tun_uapi.CLONE_DEVICE}", error.errno, cure) from error
        try:
            self._name = tun_uapi.set_iff(fd, self._name, flags)
        except OSError as error:
            os.close(fd)
            raise self._refused("attach to", error) from error
        undo.callback(os.close, fd)
        self._fds.append(fd)

    def _check_fits(self, link: rtnl.Link) -> None:
        name = link.name
        if link.tun is None or not link.tun.tap:
            raise HostError(f"{name} exists and is not a tap", cure="choose another name")
        if link.tun.queues:
            raise HostError(f"cannot attach to tap {name}", errno.EBUSY, _IN_USE)
        if self._queues > 1 and not link.tun.multi_queue:
            raise HostError(
                f"tap {name} has a single queue and cannot get {self._queues}",
                cure=f"make it with `ip tuntap add {name} mode tap multi_queue`, or use one queue",
            )

    def _check_alone(self) -> None:
        """Somebody may have attached between the look and our first queue."""
        link = rtnl.get_link(self._name)
        if link is None:
            raise _went_away(self._name)
        if link.tun and link.tun.multi_queue and link.tun.queues != self._queues:
            raise HostError(
                f"another program attached to tap {self._name} meanwhile", errno.EBUSY, _IN_USE
            )

    def _configure_queues(self, undo: ExitStack, before: rtnl.Link | None) -> None:
        fd = self._fds[0]
        size = tun_uapi.get_header_size(fd)
        offload = tap_state.offloads(before.name) if before else Offload.NONE
        tun_uapi.set_header_size(fd, HEADER_SIZE)
        if before:
            undo.callback(tap_state.unless_gone, lambda: tun_uapi.set_header_size(fd, size))
        tun_uapi.set_offload(fd, Offload.NONE)
        if before:
            undo.callback(tap_state.unless_gone, lambda: tun_uapi.set_offload(fd, offload))

    def _configure_link(self, undo: ExitStack, before: rtnl.Link | None) -> None:
        """Change only what differs: an owner without CAP_NET_ADMIN can use a tap made ready."""
        name = self._name
        link = before or rtnl.get_link(name)
        if link is None:
            raise _went_away(name)
        if self._mtu is not None and self._mtu != link.mtu:
            rtnl.set_mtu(name, self._mtu)
            if before:
                undo.callback(tap_state.unless_missing, name, rtnl.set_mtu, link.mtu)
        if not link.up:
            rtnl.set_up(name)
            if before:
                undo.callback(tap_state.unless_missing, name, rtnl.set_down)
        if self._bridge is not None:
            self._join(undo, self._bridge, link, before)

    def _join(
        self, undo: ExitStack, bridge: str, link: rtnl.Link, before: rtnl.Link | None
    ) -> None:
        name = self._name
        found = rtnl.get_link(bridge)
        if found is None or found.kind != "bridge":
            wrong = "is not a bridge" if found else "does not exist"
            raise HostError(
                f"{bridge} {wrong}", cure=f"`ip link add {bridge} type bridge` makes one"
            )
        if link.master == found.index:
            return
        if link.master is not None:
            raise HostError(
                f"tap {name} belongs to another bridge or bond",
                cure=f"take it out with `ip link set {name} nomaster`",
            )
        rtnl.set_master(name, found.index)
        if before:
            undo.callback(tap_state.unless_missing, name, rtnl.set_master, 0)

    def _refused(self, verb: str, error: OSError) -> HostError:
        cure = _ATTACH_CURES.get(error.errno or 0, "")
        return HostError(f"cannot {verb} tap {self._name}", error.errno, cure)


_IN_USE: Final = "another program uses it: stop that one or choose another name"
_OPEN_CURES: Final = {
    errno.ENOENT: "load the module with `modprobe tun`; a container needs the device passed in",
    errno.ENODEV: "load the module with `modprobe tun`",
    errno.ENXIO: "load the module with `modprobe tun`",
    errno.EACCES: "grant access to the device node, or run as root",
    errno.EPERM: "the container's device policy must allow character device 10:200",
    errno.EMFILE: "raise the limit of open files",
    errno.ENFILE: "the whole system is out of open files; raise fs.file-max",
}
_ATTACH_CURES: Final = {
    errno.EPERM: "run as root or with CAP_NET_ADMIN, or let root make it with "
    "`ip tuntap add NAME mode tap multi_queue user USER`",
    errno.EBUSY: _IN_USE,
    errno.EINVAL: "an interface of that name and another kind exists; choose another name",
    errno.E2BIG: f"the kernel takes at most {tun_uapi.MAX_QUEUES} queues",
    errno.ENFILE: "there are too many interfaces named vnet",
}


def _went_away(name: str) -> HostError:
    return HostError(f"tap {name} went away while it was being opened", cure="try again")
