# SPDX-License-Identifier: MIT
"""Real traffic without a second machine: the kernel's own stack talks into a tap.

The tap gets addresses of the ranges set aside for benchmarks (RFC 2544, RFC
5180), and the peers behind it get permanent neighbour entries, so nobody has to
answer ARP or neighbour discovery for datagrams and SYNs to leave.  Each flow is
one UDP or TCP socket, over IPv4 or IPv6, in equal parts, with ports of its own.

A datagram is a frame, and so is a connect: the SYN.  A TCP flow of more than
one frame sends its SYN again from a new socket on the same port; while a socket
waits for its SYN-ACK, the kernel repeats the SYN on its own after a second.

Nothing waits.  A tap queue holds 1000 frames (its txqueuelen) and the kernel
drops beyond that, so frames leave in batches, between which the reader of the
tap can drain it; all of a batch may land on one queue.
"""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev import rtnl
from pyvnet.netdev.limits import raise_open_files

if TYPE_CHECKING:
    from collections.abc import Iterator

PEER_MAC: Final = "02:00:00:00:00:01"
BATCH: Final = 250
_PEERS: Final = 8  # per address family
_FIRST_PORT: Final = 10_000
_MAX_FLOWS: Final = 50_000  # source ports from there on
_PORT_STEP: Final = 7919  # coprime with the 60000 destination ports: all differ
_MAX_PAYLOAD: Final = 1200  # fits the least MTU of IPv6 (1280), so no flow is fragmented


class _Kind(NamedTuple):
    """One of the four parts; named like the hash reports they lead to."""

    name: str
    family: socket.AddressFamily
    type: socket.SocketKind


_KINDS: Final = (
    _Kind("TCPv4", socket.AF_INET, socket.SOCK_STREAM),
    _Kind("UDPv4", socket.AF_INET, socket.SOCK_DGRAM),
    _Kind("TCPv6", socket.AF_INET6, socket.SOCK_STREAM),
    _Kind("UDPv6", socket.AF_INET6, socket.SOCK_DGRAM),
)
_HOST: Final = {socket.AF_INET: ("198.18.0.1", 16), socket.AF_INET6: ("2001:2::1", 64)}
_PEER: Final = {socket.AF_INET: "198.18.1.{}", socket.AF_INET6: "2001:2::1:{}"}


@dataclass(frozen=True, slots=True)
class FlowCount:
    """How many flows of a kind there are, and the frames they were made to send."""

    flows: int
    sent: int


class _Flow:
    """One 5-tuple and the socket that sends on it now."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.kind = _KINDS[index % len(_KINDS)]
        self.sent = 0
        self._source = _FIRST_PORT + index
        peer = 1 + index // len(_KINDS) % _PEERS
        self._destination = (
            _PEER[self.kind.family].format(peer),
            1024 + index * _PORT_STEP % 60_000,
        )
        self._socket: socket.socket | None = None

    def send(self) -> None:
        """Send one frame.

        Raises:
            BlockingIOError: the socket's buffer is full; nothing was sent.
            OSError: the kernel has no way to the peer.
        """
        if self.kind.type == socket.SOCK_STREAM:
            # Closing a socket that waits for its SYN-ACK sends nothing.
            self.close()
            self._open()
        else:
            used = self._socket or self._open()
            size = len(_KINDS) + self.index * 97 % (_MAX_PAYLOAD - len(_KINDS))
            used.send(self.kind.name.encode().ljust(size, b"."))
        self.sent += 1

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        opened = socket.socket(self.kind.family, self.kind.type | socket.SOCK_NONBLOCK)
        try:
            if self.kind.type == socket.SOCK_STREAM:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((_HOST[self.kind.family][0], self._source))
            _connect(opened, self._destination)
        except BaseException:
            opened.close()
            raise
        self._socket = opened
        return opened


def _connect(opened: socket.socket, destination: tuple[str, int]) -> None:
    """Start connecting; EINPROGRESS means that the SYN is out, EAGAIN would not."""
    error = opened.connect_ex(destination)
    if error not in {0, errno.EINPROGRESS}:
        raise OSError(error, "connect")


class Flows:
    """Flows over one interface; made by ``start_flows()``."""

    def __init__(self, ifname: str, flows: int, frames_per_flow: int, batch: int) -> None:
        self._ifname = ifname
        self._rounds = frames_per_flow
        self._batch = batch
        self._flows = [_Flow(index) for index in range(flows)]
        self._undo = ExitStack()
        for flow in self._flows:
            self._undo.callback(flow.close)

    def batches(self) -> Iterator[int]:
        """Send frame by frame, flow after flow; yields the frames handed over since last time.

        When a socket is full, a batch ends early and is taken up again there.

        Raises:
            HostError: the kernel does not let a flow out.
        """
        count = 0
        for _ in range(self._rounds):
            for flow in self._flows:
                while not self._try_send(flow):
                    yield count
                    count = 0
                count += 1
                if count == self._batch:
                    yield count
                    count = 0
        if count:
            yield count

    def report(self) -> dict[str, FlowCount]:
        """Per kind (TCPv4, UDPv4, TCPv6, UDPv6), up to now."""
        return {
            kind.name: FlowCount(
                flows=sum(flow.kind is kind for flow in self._flows),
                sent=sum(flow.sent for flow in self._flows if flow.kind is kind),
            )
            for kind in _KINDS
        }

    def close(self) -> None:
        """Close the sockets; harmless to repeat.  Addresses stay: they go with the tap."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try_send(self, flow: _Flow) -> bool:
        try:
            flow.send()
        except BlockingIOError:
            return False
        except OSError as error:
            raise HostError(
                f"a {flow.kind.name} flow does not get out over {self._ifname}",
                error.errno,
                "use a network namespace where no other route or socket is in its way",
            ) from error
        return True


def start_flows(
    ifname: str,
    flows: int = 64,
    frames_per_flow: int = 4,
    *,
    batch: int = BATCH,
    peer_mac: str = PEER_MAC,
) -> Flows:
    """Prepare an interface that is up for flows; ``batches()`` sends them.

    Acts, and later sends, in the calling thread's network namespace, which
    should be a private one: the addresses must not mean anything else there.

    Args:
        ifname: the tap.
        flows: how many in all, shared out over TCP and UDP, IPv4 and IPv6.
        frames_per_flow: frames each one sends.
        batch: most frames between two chances to drain, 1 … 1000.
        peer_mac: destination of every frame: the driver's MAC address.

    Raises:
        HostError: no privilege, or too few open files for one socket per flow.
        UsageError: a number outside its range.
    """
    if not 1 <= flows <= _MAX_FLOWS:
        raise UsageError(f"{flows} flows asked for; take 1 to {_MAX_FLOWS}")
    if frames_per_flow < 1 or not 1 <= batch <= 1000:
        raise UsageError("frames per flow start at 1, frames per batch are 1 to 1000")
    raise_open_files(flows)
    _allow_ipv6(ifname)
    neighbours = {}
    for family, (address, prefix_length) in _HOST.items():
        rtnl.add_address(ifname, address, prefix_length)
        for peer in range(1, _PEERS + 1):
            neighbours[_PEER[family].format(peer)] = peer_mac
    rtnl.add_neighbours(ifname, neighbours)
    return Flows(ifname, flows, frames_per_flow, batch)


def _allow_ipv6(ifname: str) -> None:
    """Some hosts start every interface with IPv6 off; addresses are refused then."""
    switch = Path("/proc/sys/net/ipv6/conf", ifname, "disable_ipv6")
    if switch.exists() and switch.read_text().strip() != "0":
        try:
            switch.write_text("0")
        except OSError as error:
            raise HostError(
                f"IPv6 is off on {ifname}",
                error.errno,
                f"set net.ipv6.conf.{ifname}.disable_ipv6=0",
            ) from error
