# SPDX-License-Identifier: MIT
"""Tap queues that somebody else opened and handed over.

They come from a program that had the right to make the tap (libvirt, a
launcher, systemd), so this one needs none.  The interface stays theirs: it is
never brought up or down, and its MTU, bridge and addresses are not touched.
What a queue is given for the time it is used here is put back at ``close()``:
the header size, O_NONBLOCK, the carrier, queues detached meanwhile, and the
offloads as far as they can be read (in the interface's own network namespace).

They may come in any order (systemd's fd store turns it round).  The kernel
numbers queues as they are attached and tells nobody; but an engine starts with
one queue, the first, and attaches the others in its own order when a driver
wants them, so that queue i is fd i from then on (U-62).

The kernel says which namespace the interface is in to those only who have
CAP_NET_ADMIN there (TUNGETDEVNETNS).  To others it is in their own, if one of
that name is found there, and otherwise out of sight: no carrier is watched
then, and the offloads are off at the end.
"""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev import rtnl, tap_state, tun_uapi
from pyvnet.netdev.carrier import CarrierWatch
from pyvnet.netdev.netns import NetNamespace
from pyvnet.netdev.pair_fds import check_numbers, duplicate, unblock
from pyvnet.netdev.tap import HEADER_SIZE
from pyvnet.netdev.tun_uapi import Iff, Offload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DEVICE: Final = os.makedev(10, 200)  # Documentation/admin-guide/devices.txt
_CURE: Final = (
    "open /dev/net/tun once per queue and TUNSETIFF each with the same name and"
    " IFF_TAP | IFF_NO_PI | IFF_VNET_HDR (| IFF_MULTI_QUEUE)"
)


class TapFds:
    """A tap of already opened queues, one fd each; the fds stay the caller's.

    Raises:
        UsageError: no fd, or one that is named twice.
    """

    kind: Final = "tap"

    def __init__(self, fds: Sequence[int]) -> None:
        check_numbers(fds)
        self._given = tuple(fds)
        self._fds: tuple[int, ...] = ()
        self._name: str | None = None
        self._namespace: NetNamespace | None = None
        self._watch: CarrierWatch | None = None
        self._index = 0
        self._carrier = True
        self._undo = ExitStack()

    @property
    def name(self) -> str | None:
        """The interface's name; None unless open."""
        return self._name

    @property
    def queues(self) -> int:
        """Number of queues."""
        return len(self._given)

    @property
    def fds(self) -> tuple[int, ...]:
        """One fd per queue; empty unless open."""
        return self._fds

    def open(self) -> None:
        """Check the queues and make them ready.

        Raises:
            HostError: a number nothing is open under, something else than a tap
                queue, queues of different taps or not all of one: with the cure.
            UsageError: it is open already.
        """
        if self._fds:
            raise UsageError("these queues are open already; close them first")
        with ExitStack() as undo:
            undo.callback(self._forget)
            fds = tuple(_held(fd, undo) for fd in self._given)
            self._name = _common_name(self._given, fds)
            link = self._locate(undo, fds[0])
            if link is not None and link.tun is not None:
                self._check_all(link.tun)
                self._index, self._carrier = link.index, link.carrier or not link.up
            try:
                self._configure(undo, fds)
            except OSError as error:
                raise HostError(f"cannot configure tap {self._name}", error.errno) from error
            self._fds = fds
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Put everything back and let go; harmless to repeat.

        Raises:
            HostError: something could not be put back.
        """
        self._undo.close()

    def set_carrier(self, *, on: bool) -> None:
        """Plug the cable in or out, as seen from the kernel; needs no privilege."""
        try:
            tun_uapi.set_carrier(self._fds[0], on=on)
        except OSError as error:
            raise HostError(f"cannot plug the cable of {self._name}", error.errno) from error
        if self._watch is not None:
            self._watch.look()

    def watch_carrier(self, callback: Callable[[bool], None]) -> None:
        """Call ``callback(plugged)``: now, and at each change; never for a tap out of sight."""
        if not self._fds:
            raise UsageError("these queues are not open")
        if self._namespace is None:
            return
        watch = self._namespace.call(lambda: CarrierWatch(self._index))
        self._undo.callback(watch.close)
        self._watch = watch
        watch.start(asyncio.get_running_loop(), callback)

    def send(self, frame: bytes) -> None:
        """Hand a frame to the host, as if the driver had sent it."""
        tap_state.send(self._fds[0], bytes(HEADER_SIZE) + frame)

    def describe(self) -> dict[str, Any]:
        """``kind``, ``queues``, ``name``, ``fds`` (as given)."""
        return {
            "kind": self.kind,
            "queues": self.queues,
            "name": self._name,
            "fds": list(self._given),
        }

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget(self) -> None:
        self._fds = ()
        self._name = self._namespace = self._watch = None

    def _locate(self, undo: ExitStack, fd: int) -> rtnl.Link | None:
        """Find the interface and remember the namespace it is in."""
        name = str(self._name)
        try:
            handed = tun_uapi.get_namespace(fd)
        except OSError:
            namespace = NetNamespace.current()
        else:
            try:
                namespace = NetNamespace(f"/proc/self/fd/{handed}")
            finally:
                os.close(handed)
        undo.callback(namespace.close)
        try:
            link = namespace.call(lambda: rtnl.get_link(name))
        except HostError:
            link = None
        if link is not None and link.tun is not None:
            self._namespace = namespace
        return link

    def _check_all(self, tun: rtnl.TunInfo) -> None:
        if tun.multi_queue and tun.queues != self.queues:
            raise HostError(
                f"tap {self._name} has {tun.queues} queues and {self.queues} were handed over",
                cure="hand over all of them: frames on the others would be lost",
            )

    def _configure(self, undo: ExitStack, fds: tuple[int, ...]) -> None:
        for fd in fds:
            unblock(fd, undo)
        first = fds[0]
        size = tun_uapi.get_header_size(first)
        tun_uapi.set_header_size(first, HEADER_SIZE)
        undo.callback(tap_state.unless_gone, lambda: tun_uapi.set_header_size(first, size))
        offload = Offload.NONE
        if self._namespace is not None:
            name = str(self._name)
            offload = self._namespace.call(lambda: tap_state.offloads(name))
        tun_uapi.set_offload(first, Offload.NONE)
        undo.callback(tap_state.unless_gone, lambda: tun_uapi.set_offload(first, offload))
        for fd in fds:
            if tap_state.attach(fd):  # it was not: the engine takes all it is given as attached
                undo.callback(
                    tap_state.unless_gone, partial(tun_uapi.set_queue, fd, attached=False)
                )
        carrier = self._carrier
        undo.callback(tap_state.unless_gone, lambda: tun_uapi.set_carrier(first, on=carrier))
        for fd in fds:  # the engine detached those it had no use for
            undo.callback(tap_state.attach, fd)


def _held(fd: int, undo: ExitStack) -> int:
    copy = duplicate(fd)
    undo.callback(os.close, copy)
    return copy


def _common_name(numbers: Sequence[int], fds: Sequence[int]) -> str:
    """The one interface all queues belong to."""
    names = [_name_of(number, fd) for number, fd in zip(numbers, fds, strict=True)]
    for number, name in zip(numbers, names, strict=True):
        if name != names[0]:
            raise HostError(
                f"fd {numbers[0]} is a queue of {names[0]} and fd {number} one of {name}",
                cure="hand over queues of one tap, and start one device per tap",
            )
    return names[0]


def _name_of(number: int, fd: int) -> str:
    found = os.fstat(fd)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _DEVICE:
        raise HostError(f"fd {number} is not a tap queue", cure=_CURE)
    try:
        name, flags = tun_uapi.get_iff(fd)
    except OSError as error:
        raise HostError(f"fd {number} belongs to no tap", error.errno, _CURE) from error
    wanted = Iff.TAP | Iff.NO_PI | Iff.VNET_HDR
    if flags & (wanted | Iff.TUN) != wanted:
        raise HostError(f"fd {number} is a queue of {name}, opened in another way", cure=_CURE)
    return name
