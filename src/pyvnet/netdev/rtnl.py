# SPDX-License-Identifier: MIT
"""Links, addresses and neighbours through rtnetlink.

pyroute2's asyncio flavour opens its socket as a datagram endpoint, which uvloop
refuses for netlink; its synchronous flavour runs a loop of its own, which cannot
be done inside a running one and fails when uvloop is the installed policy.  So
every request here uses the synchronous one, on a selector loop, in a fresh
thread, which is in the caller's network namespace.  A request costs about 2 ms.

The functions are synchronous and may be called anywhere; inside an event loop
``await off_loop(function, …)`` of ``fresh_thread`` keeps the loop running
meanwhile.  All act in the caller's network namespace and raise ``HostError``
when the kernel refuses.
"""

from __future__ import annotations

import asyncio
import errno
import os
import selectors
import socket
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pyvnet.errors import HostError
from pyvnet.netdev import fresh_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_T = TypeVar("_T")

_IFF_UP: Final = 1  # linux/if.h
_IFA_F_NODAD: Final = 0x02  # linux/if_addr.h
_NUD_PERMANENT: Final = "permanent"
_TUN_TYPE_TAP: Final = 2  # IFF_TAP in IFLA_TUN_TYPE
_NO_OWNER: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """An interface's counters (64-bit, IFLA_STATS64) as the *kernel* sees it.

    ``tx`` of a tap is counted when its reader takes a frame (tun_put_user(), tun.c),
    so a frame the stack sent is in ``tx_packets``, in ``tx_dropped`` because the
    queue was full, or still in the queue.
    """

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


@dataclass(frozen=True, slots=True)
class TunInfo:
    """What IFLA_INFO_DATA says of a tun or tap interface."""

    tap: bool
    packet_info: bool
    vnet_header: bool
    persist: bool
    multi_queue: bool
    queues: int  # held open by someone; the kernel says 0 of a tap without multi_queue
    owner: int | None
    group: int | None


@dataclass(frozen=True, slots=True)
class Link:
    """One interface."""

    name: str
    index: int
    up: bool  # administratively
    carrier: bool  # of a tap: held open, and not unplugged by Tap.set_carrier()
    mtu: int
    kind: str | None
    master: int | None  # index of the bridge or bond it belongs to
    tun: TunInfo | None
    statistics: LinkStatistics


class _TidyLoop(asyncio.SelectorEventLoop):
    """A loop that lets aborted transports close their sockets before it goes.

    pyroute2 0.9.7 aborts its transport and closes the loop in the same breath,
    so the transport's last callback, which closes the socket, never runs.

    Where fds have run out, asyncio leaves a half-made loop to the garbage
    collector.  A poll selector holds no fd meanwhile, and whoever makes one of
    these closes it, so ``__del__`` has nothing to say.
    """

    def __init__(self) -> None:
        super().__init__(selectors.PollSelector())

    def __del__(self) -> None:
        pass

    def close(self) -> None:
        if not self.is_closed():
            self.call_soon(self.stop)
            self.run_forever()
        super().close()


def get_link(name: str) -> Link | None:
    """The interface of that name, or None if there is none."""

    def ask(ipr: Any) -> Link:
        return _decode(ipr.link("get", ifname=name)[0])

    try:
        return _request(f"ask about {name}", ask)
    except HostError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def existing(name: str) -> Link:
    """The interface of that name; raises HostError if there is none."""
    link = get_link(name)
    if link is None:
        raise HostError(f"there is no interface {name}", cure="`ip link` shows those there are")
    return link


def statistics(name: str) -> LinkStatistics:
    """Counters of an interface."""
    return existing(name).statistics


def set_up(name: str) -> None:
    """Bring an interface up."""
    _set(name, "bring {} up", state="up")


def set_down(name: str) -> None:
    """Take an interface down."""
    _set(name, "take {} down", state="down")


def set_mtu(name: str, mtu: int) -> None:
    """Set the MTU in bytes, without the Ethernet header."""
    _set(name, f"set the MTU of {{}} to {mtu}", mtu=mtu)


def set_master(name: str, master: int) -> None:
    """Make an interface a port of the bridge with index ``master``; 0: of none."""
    _set(name, f"make {{}} a port of link {master}" if master else "free {}", master=master)


def add_address(name: str, address: str, prefix_length: int) -> None:
    """Give an interface an IPv4 or IPv6 address, usable at once (no duplicate detection).

    An address it has already is left as it is.
    """
    index = existing(name).index
    flags = {"flags": _IFA_F_NODAD} if ":" in address else {}

    def add(ipr: Any) -> None:
        ipr.addr("replace", index=index, address=address, prefixlen=prefix_length, **flags)

    _request(f"give {name} the address {address}/{prefix_length}", add)


def add_neighbours(name: str, neighbours: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
    """Pin IP address → MAC address, so that nobody has to answer for it."""
    index = existing(name).index
    pairs = dict(neighbours)

    def add(ipr: Any) -> None:
        for address, mac in pairs.items():
            ipr.neigh("replace", dst=address, lladdr=mac, ifindex=index, state=_NUD_PERMANENT)

    _request(f"pin {len(pairs)} neighbours of {name}", add)


def offload_names(name: str) -> frozenset[str]:
    """Device features in force, by their ethtool names (``tx-tcp-segmentation`` …)."""

    def ask() -> frozenset[str]:
        from pyroute2.ethtool.ioctl import IoctlEthtool

        with closing(IoctlEthtool(name)) as ethtool:
            return frozenset(row[0] for row in ethtool.get_features() if row[1])

    return _explained(f"ask for the offloads of {name}", ask)


def _set(name: str, what: str, **values: object) -> None:
    index = existing(name).index

    def change(ipr: Any) -> None:
        ipr.link("set", index=index, **values)

    _request(what.format(name), change)


def _request(what: str, work: Callable[[Any], _T]) -> _T:
    def run() -> _T:
        # Imported late: 0.2 s and 10 MB that most programs need once.
        from pyroute2 import IPRoute

        # Its own socket would be left to the garbage collector where fds run out.
        with (
            socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE) as own,
            closing(_TidyLoop()) as loop,
            IPRoute(use_socket=own, use_event_loop=loop) as ipr,
        ):
            return work(ipr)

    return _explained(what, run)


def _explained(what: str, work: Callable[[], _T]) -> _T:
    def run() -> _T:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            return work()
        except NetlinkError as error:
            # Its errno is positional here; OSError is what the rest of us knows.
            raise OSError(error.code, os.strerror(error.code)) from None

    try:
        return fresh_thread.call(run)
    except OSError as error:
        cure = _CURES.get(error.errno or 0, "")
        raise HostError(f"cannot {what}", error.errno, cure) from error


_CURES: Final = {
    errno.EPERM: "run as root or with CAP_NET_ADMIN",
    errno.ENODEV: "the interface is gone",
}


def _decode(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else None
    data = info.get_attr("IFLA_INFO_DATA") if info and kind == "tun" else None
    counters = message.get_attr("IFLA_STATS64")
    return Link(
        name=message.get_attr("IFLA_IFNAME"),
        index=message["index"],
        up=bool(message["flags"] & _IFF_UP),
        carrier=bool(message.get_attr("IFLA_CARRIER")),
        mtu=message.get_attr("IFLA_MTU"),
        kind=kind,
        master=message.get_attr("IFLA_MASTER") or None,
        tun=_decode_tun(data) if data else None,
        statistics=LinkStatistics(**{key: counters[key] for key in LinkStatistics.__slots__}),
    )


def _decode_tun(data: Any) -> TunInfo:
    def number(name: str) -> int:
        return data.get_attr(f"IFLA_TUN_{name}") or 0

    def identity(name: str) -> int | None:
        value = data.get_attr(f"IFLA_TUN_{name}")
        return None if value in {None, _NO_OWNER} else int(value)

    return TunInfo(
        tap=number("TYPE") == _TUN_TYPE_TAP,
        packet_info=bool(number("PI")),
        vnet_header=bool(number("VNET_HDR")),
        persist=bool(number("PERSIST")),
        multi_queue=bool(number("MULTI_QUEUE")),
        queues=number("NUM_QUEUES") + number("NUM_DISABLED_QUEUES"),
        owner=identity("OWNER"),
        group=identity("GROUP"),
    )
