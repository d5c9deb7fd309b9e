# SPDX-License-Identifier: MIT
"""A TCP of few words on the driver's side of a tap: one connection, everything in order.

It acknowledges what it gets, keeps every segment with its header, and lets the
kernel do all the rest: retransmit what was dropped, and open the window.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from pyvnet.reference import parse
from pyvnet.spec.net_hdr import NetHdr
from tests.system.support import DRIVER_MAC, addresses, tap_mac

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvnet.netdev.netns import NetNamespace
    from tests.datapath.rig import Rig

HOSTS = {4: "198.18.9.1", 6: "2001:db8:9::1"}
PEERS = {4: "198.18.9.2", 6: "2001:db8:9::2"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
PORT = 4242
MSS = {4: 1460, 6: 1440}
_FIN, _SYN, _RST = 1, 2, 4


class Segment(NamedTuple):
    """One frame of the connection, as the driver found it."""

    header: NetHdr
    frame: bytes
    payload: bytes


def set_up(netns: NetNamespace, name: str = "vnet0") -> None:
    """Give the kernel addresses of both versions on the tap, and its peers' MAC."""
    addresses(netns, name, HOSTS[4], [PEERS[4]])
    mac = ":".join(f"{byte:02x}" for byte in DRIVER_MAC)
    for command in (
        ["ip", "addr", "add", f"{HOSTS[6]}/64", "dev", name, "nodad"],
        ["ip", "neigh", "replace", PEERS[6], "lladdr", mac, "dev", name],
    ):
        netns.run(command)


class TcpPeer:
    """``version`` is that of IP; frames go through pair 0 of the rig."""

    def __init__(self, rig: Rig, netns: NetNamespace, version: int) -> None:
        self.rig, self.netns, self.version = rig, netns, version
        self.mac = tap_mac(netns)
        self.stream = b""
        self.segments: list[Segment] = []
        self.check: Callable[[NetHdr, bytes], None] = lambda _header, _frame: None
        self._port, self._kernel_port = PORT, 0
        self._next, self._ours = 0, 1000
        self._acked = 0
        self._to_send = b""

    def accept(self) -> socket.socket:
        """Let the kernel connect; returns its socket, nonblocking."""
        made = self.netns.call(lambda: socket.socket(FAMILY[self.version], socket.SOCK_STREAM))
        made.setblocking(False)
        made.connect_ex((PEERS[self.version], self._port))
        self._kernel_port = made.getsockname()[1]
        self._until(lambda: bool(self._next))
        self._send(_SYN | 0x10, options=[("MSS", MSS[self.version])])
        self._ours += 1
        return made

    def connect(self) -> socket.socket:
        """Connect to the kernel; returns its socket, nonblocking."""
        listening = self.netns.call(lambda: socket.socket(FAMILY[self.version], socket.SOCK_STREAM))
        with listening:
            listening.bind((HOSTS[self.version], 0))
            listening.listen(1)
            self._kernel_port = listening.getsockname()[1]
            self._send(_SYN, options=[("MSS", MSS[self.version])])
            self._ours += 1
            self._until(lambda: bool(self._next))
            self._send(0x10)
            self.settled()
            accepted, _ = listening.accept()
        accepted.setblocking(False)
        return accepted

    def settled(self) -> None:
        """Everything sent has been handed to the kernel, which works it off in the system call."""
        self.rig.wait(lambda: self.rig.sent(0) >= 0 and not self.rig.transmitq(0).ring.outstanding)

    def take_stream(self, kernel: socket.socket, data: bytes, length: int) -> None:
        """Let the kernel send ``data`` too; return when the stream has this length."""
        self._to_send += data
        while len(self.stream) < length:
            with suppress(BlockingIOError):
                self._to_send = self._to_send[kernel.send(self._to_send) :]
            before = len(self.segments)
            self._until(lambda before=before: len(self.segments) > before)  # type: ignore[misc]

    def send_data(self, payload: bytes, *, gso_size: int) -> None:
        """Send one segment that the host cuts into many."""
        frame = self._frame(0x18, payload)
        flow = parse(frame)
        kind = 1 if self.version == 4 else 4
        header = NetHdr(1, kind, 0, gso_size, flow.l4_offset, 16)
        self.rig.send(0, frame, header=header.pack(self.rig.header_length))
        self._ours += len(payload)

    def acknowledged(self) -> None:
        """Wait until the kernel has acknowledged everything sent."""
        self._until(lambda: self._acked == self._ours)

    def look(self) -> int:
        """Handle what has come; returns how many frames of the connection there were."""
        count = 0
        for received in self.rig.take(0):
            count += self._handle(received.header, received.data)
        return count

    def _until(self, done: Callable[[], bool]) -> None:
        def enough() -> bool:
            self.look()
            return done()

        self.rig.wait(enough)

    def _handle(self, header: NetHdr, frame: bytes) -> int:
        flow = parse(frame)
        if (flow.l3, flow.l4, flow.dport) != (self.version, 6, self._port):
            return 0
        self.check(header, frame)
        tcp = Ether(frame)[TCP]
        assert not tcp.flags & _RST
        payload = self._payload(frame, flow.l4_offset + 4 * tcp.dataofs)
        self._acked = tcp.ack
        if tcp.flags & _SYN:
            self._next = tcp.seq + 1
            return 1
        self.segments.append(Segment(header, frame, payload))
        if payload and tcp.seq == self._next & 0xFFFFFFFF:
            self.stream += payload
            self._next += len(payload)
        if payload:
            self._send(0x10)
        return 1

    def _payload(self, frame: bytes, start: int) -> bytes:
        """Without Ethernet padding, by the IP header's length."""
        if self.version == 4:
            return frame[start : 14 + int.from_bytes(frame[16:18], "big")]
        return frame[start : 54 + int.from_bytes(frame[18:20], "big")]

    def _frame(self, flags: int, payload: bytes = b"", options: object = ()) -> bytes:
        addressed = {"src": PEERS[self.version], "dst": HOSTS[self.version]}
        ip = IP(**addressed) if self.version == 4 else IPv6(**addressed)
        tcp = TCP(
            sport=self._port,
            dport=self._kernel_port,
            seq=self._ours,
            ack=(self._next & 0xFFFFFFFF) if flags & 0x10 else 0,
            flags=flags,
            window=65535,
            options=list(options),  # type: ignore[call-overload]
        )
        ethernet = Ether(dst=self.mac.hex(":"), src=DRIVER_MAC.hex(":"))
        return bytes(ethernet / ip / tcp / payload)

    def _send(self, flags: int, options: object = ()) -> None:
        self.rig.sent(0)
        self.rig.send(0, self._frame(flags, options=options))
