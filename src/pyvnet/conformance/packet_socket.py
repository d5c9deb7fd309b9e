# SPDX-License-Identifier: MIT
"""A packet socket that carries the virtio header: the wire behind an interface.

With PACKET_VNET_HDR every frame, out and in, has a legacy ``struct
virtio_net_hdr`` (10 bytes) in front, so that checksums to be completed and
bursts to be segmented cross as they are.  The kernel takes a VLAN tag out of a
frame that came in and says so beside it; here it is put back.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from typing import Final

from pyvnet.conformance.case import NotApplicable
from pyvnet.errors import HostError
from pyvnet.spec.net_hdr import HDR_V1_SIZE, HdrFlag, NetHdr

_LEGACY_HEADER: Final = 10
_FRAME_MAX: Final = 65557

# linux/if_packet.h and linux/if_ether.h; Python has no names for these.
_ETH_P_ALL: Final = 0x0003
_SOL_PACKET: Final = 263
_PACKET_AUXDATA: Final = 8
_PACKET_VNET_HDR: Final = 15
_AUXDATA: Final = struct.Struct("=IIIHHHH")  # status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_VLAN_VALID: Final = 1 << 4
_TAG_AT: Final = 12

_CURES: Final = {
    errno.ENODEV: "look whether the interface is in this network namespace",
    errno.EPERM: "CAP_NET_RAW is needed",
    errno.ENETDOWN: "set the interface up (ip link set NAME up)",
}


class PacketSocket:
    """Every frame that comes in on an interface, and a way to send some.

    Raises:
        HostError: there is no such interface, it is down, or packet sockets are not allowed.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise self._error(error) from error
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            self._socket.bind((name, _ETH_P_ALL))
        except OSError as error:
            self._socket.close()
            raise self._error(error) from error

    def _error(self, error: OSError) -> HostError:
        number = error.errno or 0
        return HostError(f"no packet socket on {self._name}", number, _CURES.get(number, ""))

    async def send(self, frame: bytes, header: bytes | None = None) -> None:
        """Transmit a frame.

        Args:
            frame: the Ethernet header first.
            header: ``struct virtio_net_hdr_v1``; None: zeros.

        Raises:
            NotApplicable: the interface takes no frames so long.
            HostError: it does not take this one.
        """
        header = bytes(_LEGACY_HEADER) if header is None else header[:_LEGACY_HEADER]
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, header + frame)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                why = f"{self._name} takes no frame of {len(frame)} bytes"
                raise NotApplicable(why) from error
            raise self._error(error) from error

    async def receive(self) -> tuple[bytes, bytes]:
        """Header, 12 bytes with num_buffers 0, and data of the next frame that comes in."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._socket.fileno(), readable.set)
        try:
            while (frame := self._take()) is None:
                readable.clear()
                await readable.wait()
            return frame
        finally:
            loop.remove_reader(self._socket.fileno())

    def _take(self) -> tuple[bytes, bytes] | None:
        while True:
            try:
                data, beside, _, address = self._socket.recvmsg(
                    _LEGACY_HEADER + _FRAME_MAX, socket.CMSG_SPACE(_AUXDATA.size)
                )
            except BlockingIOError:
                return None
            except OSError as error:
                raise self._error(error) from error
            if address[2] != socket.PACKET_OUTGOING:  # what we sent comes by as well
                return _whole(data, beside)

    def close(self) -> None:
        """Let go of the interface; harmless twice."""
        self._socket.close()


def _whole(data: bytes, beside: list[tuple[int, int, bytes]]) -> tuple[bytes, bytes]:
    """Header and frame with its tag."""
    header = NetHdr.unpack(data[:_LEGACY_HEADER].ljust(HDR_V1_SIZE, b"\0"))
    frame = data[_LEGACY_HEADER:]
    for level, kind, told in beside:
        if (level, kind) != (_SOL_PACKET, _PACKET_AUXDATA):
            continue
        status, *_, tci, tpid = _AUXDATA.unpack_from(told)
        if status & _VLAN_VALID:
            tag = struct.pack(">HH", tpid or 0x8100, tci)
            frame = frame[:_TAG_AT] + tag + frame[_TAG_AT:]
            header = _moved(header, len(tag))
    return header.pack(), frame


def _moved(header: NetHdr, by: int) -> NetHdr:
    """The header of a frame that has grown in front."""
    start = header.csum_start + by if header.flags & HdrFlag.NEEDS_CSUM else header.csum_start
    length = header.hdr_len + by if header.hdr_len else 0
    return NetHdr(header.flags, header.gso_type, length, header.gso_size, start, header.csum_offset)
