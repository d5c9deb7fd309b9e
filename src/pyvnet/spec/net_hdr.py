# SPDX-License-Identifier: MIT
"""``struct virtio_net_hdr``: its sizes, when each applies, and its codec.

"Device Operation": the same size is in force for transmit and receive, and it
depends on the negotiated features alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import lru_cache
from typing import Final

from pyvnet.spec.features import Feature

HDR_V1_SIZE: Final = 12
HDR_HASH_SIZE: Final = 20
HDR_TUNNEL_SIZE: Final = 24
HDR_OUT_NET_SIZE: Final = 32

_V1: Final = struct.Struct("<BBHHHHH")
_HASH: Final = struct.Struct("<BBHHHHHIHH")


class HdrFlag(IntFlag):
    """The ``flags`` byte."""

    NONE = 0
    NEEDS_CSUM = 1
    DATA_VALID = 2
    RSC_INFO = 4
    UDP_TUNNEL_CSUM = 8


class GsoType(IntEnum):
    """The ``gso_type`` byte without its or-able bits."""

    NONE = 0
    TCPV4 = 1
    UDP = 3
    TCPV6 = 4
    UDP_L4 = 5


def header_size(features: Feature) -> int:
    """Size in bytes of the header in front of every frame, by negotiated features."""
    if features & (Feature.OUT_NET_HEADER | Feature.IPSEC):
        return HDR_OUT_NET_SIZE
    if features & (Feature.HOST_UDP_TUNNEL_GSO | Feature.GUEST_UDP_TUNNEL_GSO):
        return HDR_TUNNEL_SIZE
    return HDR_HASH_SIZE if features & Feature.HASH_REPORT else HDR_V1_SIZE


@dataclass(frozen=True, slots=True)
class NetHdr:
    """The header, decoded.  ``hash_value``/``hash_report`` exist in the 20-byte form only."""

    flags: int = 0
    gso_type: int = 0
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0
    num_buffers: int = 0
    hash_value: int = 0
    hash_report: int = 0
    padding_reserved: int = 0

    def pack(self, size: int = HDR_V1_SIZE) -> bytes:
        """Encode in ``size`` bytes (12 or 20)."""
        first = (
            self.flags,
            self.gso_type,
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        )
        if size == HDR_V1_SIZE:
            return _V1.pack(*first)
        return _HASH.pack(*first, self.hash_value, self.hash_report, self.padding_reserved)

    @classmethod
    def unpack(cls, data: bytes, size: int = HDR_V1_SIZE) -> NetHdr:
        """Decode the first ``size`` bytes (12 or 20); raises ValueError when cut short."""
        if len(data) < size:
            message = f"virtio_net_hdr needs {size} bytes, got {len(data)}"
            raise ValueError(message)
        return _decoded(bytes(data[: HDR_V1_SIZE if size == HDR_V1_SIZE else HDR_HASH_SIZE]))


@lru_cache(256)  # headers repeat, and to make one takes longer than to find it
def _decoded(raw: bytes) -> NetHdr:
    return NetHdr(*(_V1 if len(raw) == HDR_V1_SIZE else _HASH).unpack(raw))
