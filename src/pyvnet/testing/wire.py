# SPDX-License-Identifier: MIT
"""The far end of the wire, for tests: put frames in towards the driver, take out what it sent.

Two kinds.  Behind a pair port nobody else has an end, so it can be said when
everything that was put in has been read (`Wire.unread`), and silence can be
told without waiting.  Behind a tap sits a kernel: frames go in and out by a
packet socket, and whoever else is in that network namespace may send, too.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import struct
import termios
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from pyvnet.errors import HostError, UsageError
from pyvnet.spec.net_hdr import HDR_V1_SIZE, HdrFlag, NetHdr

if TYPE_CHECKING:
    from pyvnet.netdev import Pair, Tap
    from pyvnet.netdev.netns import NetNamespace

# linux/if_packet.h
_SOL_PACKET: Final = 263
_PACKET_AUXDATA: Final = 8
_PACKET_VNET_HDR: Final = 15
_PACKET_IGNORE_OUTGOING: Final = 23
_AUXDATA: Final = struct.Struct("=IIIHHHH")
_TP_STATUS_VLAN_VALID: Final = 0x10
_ETH_P_ALL: Final = 3
_PACKET_HEADER: Final = 10  # struct virtio_net_hdr: the header without num_buffers
_LONGEST: Final = 66 * 1024
_CSUM_START: Final = slice(6, 8)


class SentFrame(NamedTuple):
    """What the driver's frame was when it came out of the device, and by which queue."""

    data: bytes
    queue: int
    header: NetHdr


class Wire(Protocol):
    """What a script needs of the host's side of a device."""

    @property
    def queues(self) -> int:
        """Queues frames can be put in by."""

    @property
    def private(self) -> bool:
        """Whether nobody else sends on it, and what was not read can be told."""

    @property
    def injected(self) -> int:
        """Frames put in so far."""

    def send(self, frame: bytes, header: bytes | None = None, queue: int = 0) -> None:
        """Put a frame in, behind ``header`` (12 bytes; None: zeros).

        Raises:
            BlockingIOError: there is no room now.
            HostError: it cannot go.
            UsageError: no such queue, or not a header for this wire.
        """

    def recv(self) -> SentFrame | None:
        """Take the next frame the driver sent; None: there is none."""

    async def readable(self, within: float) -> None:
        """Wait until there may be one, or ``within`` seconds have passed."""

    def unread(self) -> int:
        """Bytes the device has not read yet, as far as can be told."""

    def close(self) -> None:
        """Let go of what this end holds; harmless to repeat."""


async def _readable(sockets: list[int], within: float) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    for fd in sockets:
        loop.add_reader(fd, ready.set)
    try:
        async with asyncio.timeout(within):
            await ready.wait()
    except TimeoutError:
        pass
    finally:
        for fd in sockets:
            loop.remove_reader(fd)


class PairWire:
    """The far ends of an open pair port."""

    private: Final = True

    def __init__(self, pair: Pair) -> None:
        self.queues = pair.queues
        self.injected = 0
        self._ends = [pair.wire(queue) for queue in range(pair.queues)]
        self._fds = [end.fileno() for end in self._ends]
        self._poll = select.poll()
        for fd in self._fds:
            self._poll.register(fd, select.POLLIN)

    def send(self, frame: bytes, header: bytes | None = None, queue: int = 0) -> None:
        """As `Wire.send`; a header may have any length, for those who test short ones."""
        _check_queue(queue, self.queues)
        self._ends[queue].send(frame, header)
        self.injected += 1

    def recv(self) -> SentFrame | None:
        """As `Wire.recv`, lowest queue first."""
        if self._ends[0].fileno() < 0:
            queue = 0  # the device was closed; says so
        elif ready := self._poll.poll(0):
            queue = min([self._fds.index(fd) for fd, _ in ready])
        else:
            return None
        header, data = self._ends[queue].recv()
        return SentFrame(data, queue, NetHdr.unpack(header))

    async def readable(self, within: float) -> None:
        """As `Wire.readable`."""
        await _readable([end.fileno() for end in self._ends], within)

    def unread(self) -> int:
        """Bytes of memory the frames take that the device has not read."""
        return sum(_unsent(end.fileno()) for end in self._ends)

    def close(self) -> None:
        """Nothing: the ends are the port's."""


def _unsent(fd: int) -> int:
    count: int = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0]
    return count


def _check_queue(queue: int, queues: int) -> None:
    if not 0 <= queue < queues:
        raise UsageError(f"no queue {queue} on this wire: it has 0 to {queues - 1}")


class TapWire:
    """A packet socket on an open tap; the kernel chooses the tap queue, so there is one."""

    private: Final = False
    queues: Final = 1

    def __init__(self, tap: Tap, namespace: NetNamespace) -> None:
        self.injected = 0
        self._socket = namespace.call(lambda: _packet_socket(tap.name))

    def send(self, frame: bytes, header: bytes | None = None, queue: int = 0) -> None:
        """As `Wire.send`."""
        _check_queue(queue, 1)
        if header is not None and len(header) != HDR_V1_SIZE:
            raise UsageError(f"a header of {len(header)} bytes; the kernel takes {HDR_V1_SIZE}")
        try:
            self._socket.sendmsg([(header or bytes(_PACKET_HEADER))[:_PACKET_HEADER], frame])
        except BlockingIOError:
            raise
        except OSError as error:
            what = f"a frame of {len(frame)} bytes does not go out on the tap"
            cure = "the kernel wants whole Ethernet headers, and headers that fit their frame"
            raise HostError(what, error.errno, cure) from error
        self.injected += 1

    def recv(self) -> SentFrame | None:
        """As `Wire.recv`; the kernel does not tell the queue, which reads 0."""
        try:
            message, ancillary, _, _ = self._socket.recvmsg(_LONGEST, 64)
        except BlockingIOError:
            return None
        header, data = message[:_PACKET_HEADER] + bytes(2), message[_PACKET_HEADER:]
        for level, kind, value in ancillary:
            if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                header, data = _with_tag(header, data, value)
        return SentFrame(data, 0, NetHdr.unpack(header))

    async def readable(self, within: float) -> None:
        """As `Wire.readable`."""
        await _readable([self._socket.fileno()], within)

    def unread(self) -> int:
        """Not told by the kernel: what is in the tap's queue has left the socket."""
        return 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _packet_socket(name: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        for option in (_PACKET_AUXDATA, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING):
            opened.setsockopt(_SOL_PACKET, option, 1)
        opened.bind((name, _ETH_P_ALL))
    except OSError as error:
        opened.close()
        raise HostError(f"no packet socket on {name}", error.errno, "run as root") from error
    return opened


def _with_tag(header: bytes, data: bytes, auxdata: bytes) -> tuple[bytes, bytes]:
    """Put a VLAN tag back that the kernel took out of the frame before it came here."""
    status, _, _, _, _, tci, tpid = _AUXDATA.unpack_from(auxdata)
    if not status & _TP_STATUS_VLAN_VALID:
        return header, data
    if header[0] & HdrFlag.NEEDS_CSUM:
        start = int.from_bytes(header[_CSUM_START], "little") + 4
        header = header[:6] + start.to_bytes(2, "little") + header[8:]
    return header, data[:12] + struct.pack(">HH", tpid, tci) + data[12:]
