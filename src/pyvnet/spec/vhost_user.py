# SPDX-License-Identifier: MIT
"""The vhost-user protocol's numbers and payloads: pure codecs, no state and no I/O.

Source: QEMU ``docs/interop/vhost-user.rst``.  A message is ``u32 request, u32
flags, u32 size`` and ``size`` bytes of payload, all in host byte order; file
descriptors travel beside its first bytes.  Which messages a back-end takes and
what it makes of them is ``transport/vhost_user``.

Every ``unpack`` here takes bytes of any length and raises FrontendError when
they are not exactly one such payload.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final, Self

from pyvnet.errors import FrontendError

HEADER: Final = struct.Struct("=III")
VERSION: Final = 1
VERSION_MASK: Final = 0x3
FLAG_REPLY: Final = 0x4
FLAG_NEED_REPLY: Final = 0x8

# Bits of GET_FEATURES and SET_FEATURES that belong to the protocol and never to the driver.
F_LOG_ALL: Final = 1 << 26
F_PROTOCOL_FEATURES: Final = 1 << 30

MAX_FDS: Final = 8  # a memory table has the most
MAX_REGIONS: Final = 8
MAX_CONFIG: Final = 256  # bytes of configuration space in one message
MAX_PAYLOAD: Final = 4096  # nothing defined comes near it; what claims more is garbage

VRING_INDEX_MASK: Final = 0xFF
VRING_NO_FD: Final = 0x100


class Request(IntEnum):
    """Front-end → back-end."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    CREATE_CRYPTO_SESSION = 26
    CLOSE_CRYPTO_SESSION = 27
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    GPU_SET_SOCKET = 33
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40
    GET_SHARED_OBJECT = 41
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43


class BackendRequest(IntEnum):
    """Back-end → front-end, on the socket of SET_BACKEND_REQ_FD."""

    IOTLB_MSG = 1
    CONFIG_CHANGE_MSG = 2
    VRING_HOST_NOTIFIER_MSG = 3
    VRING_CALL = 4
    VRING_ERR = 5
    SHARED_OBJECT_ADD = 6
    SHARED_OBJECT_REMOVE = 7
    SHARED_OBJECT_LOOKUP = 8


class ProtocolFeature(IntFlag):
    """Bits of GET_ and SET_PROTOCOL_FEATURES."""

    MQ = 1 << 0
    LOG_SHMFD = 1 << 1
    RARP = 1 << 2
    REPLY_ACK = 1 << 3
    NET_MTU = 1 << 4
    BACKEND_REQ = 1 << 5
    CROSS_ENDIAN = 1 << 6
    CRYPTO_SESSION = 1 << 7
    PAGEFAULT = 1 << 8
    CONFIG = 1 << 9
    BACKEND_SEND_FD = 1 << 10
    HOST_NOTIFIER = 1 << 11
    INFLIGHT_SHMFD = 1 << 12
    RESET_DEVICE = 1 << 13
    INBAND_NOTIFICATIONS = 1 << 14
    CONFIGURE_MEM_SLOTS = 1 << 15
    STATUS = 1 << 16
    XEN_MMAP = 1 << 17
    SHARED_OBJECT = 1 << 18
    DEVICE_STATE = 1 << 19


def request_name(request: int) -> str:
    """The protocol's name of a front-end's message, or ``request N``."""
    try:
        return Request(request).name
    except ValueError:
        return f"request {request}"


@dataclass(frozen=True, slots=True)
class Header:
    """The 12 bytes in front of every message."""

    request: int
    flags: int
    size: int

    @property
    def version(self) -> int:
        """Protocol version; 1 is the only one there is."""
        return self.flags & VERSION_MASK

    @property
    def need_reply(self) -> bool:
        """The sender wants an answer also to a message that has none of its own."""
        return bool(self.flags & FLAG_NEED_REPLY)

    @property
    def is_reply(self) -> bool:
        """An answer, not a request."""
        return bool(self.flags & FLAG_REPLY)

    def pack(self) -> bytes:
        """12 bytes in host byte order."""
        return HEADER.pack(self.request, self.flags, self.size)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Parse exactly 12 bytes."""
        return cls(*HEADER.unpack(data))


def message(request: int, payload: bytes = b"", *, need_reply: bool = False) -> bytes:
    """A whole request, header and payload."""
    flags = VERSION | (FLAG_NEED_REPLY if need_reply else 0)
    return Header(request, flags, len(payload)).pack() + payload


def reply(request: int, payload: bytes) -> bytes:
    """A whole answer to a request."""
    return Header(request, VERSION | FLAG_REPLY, len(payload)).pack() + payload


# Payloads.

U64: Final = struct.Struct("=Q")
_VRING_STATE: Final = struct.Struct("=II")
_VRING_ADDRESS: Final = struct.Struct("=IIQQQQ")
_TABLE_HEAD: Final = struct.Struct("=I4x")
_REGION: Final = struct.Struct("=QQQQ")
_REGION_MESSAGE_HEAD: Final = struct.Struct("=8x")
_CONFIG_HEAD: Final = struct.Struct("=III")


def _exactly(layout: struct.Struct, data: bytes, what: str) -> tuple[int, ...]:
    if len(data) != layout.size:
        raise FrontendError(f"{what} of {len(data)} bytes instead of {layout.size}")
    return layout.unpack(data)


def pack_u64(value: int) -> bytes:
    """One u64."""
    return U64.pack(value)


def unpack_u64(data: bytes) -> int:
    """One u64."""
    return _exactly(U64, data, "u64")[0]


@dataclass(frozen=True, slots=True)
class VringState:
    """``index`` and a number whose meaning depends on the message."""

    index: int
    num: int

    def pack(self) -> bytes:
        """8 bytes."""
        return _VRING_STATE.pack(self.index, self.num)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Parse a vring state description."""
        return cls(*_exactly(_VRING_STATE, data, "vring state"))


@dataclass(frozen=True, slots=True)
class VringAddress:
    """Where a ring lies, in the front-end's own (user) addresses; ``log`` is guest physical."""

    index: int
    flags: int  # bit 0: log writes to the used ring
    desc_table: int
    used_ring: int
    avail_ring: int
    log: int = 0

    def pack(self) -> bytes:
        """40 bytes."""
        return _VRING_ADDRESS.pack(
            self.index, self.flags, self.desc_table, self.used_ring, self.avail_ring, self.log
        )

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Parse a vring address description."""
        return cls(*_exactly(_VRING_ADDRESS, data, "vring addresses"))


@dataclass(frozen=True, slots=True)
class RegionDescription:
    """One region: guest physical and user address of its first byte, size and place in its file."""

    gpa: int
    size: int
    uva: int
    mmap_offset: int

    def pack(self) -> bytes:
        """32 bytes."""
        return _REGION.pack(self.gpa, self.size, self.uva, self.mmap_offset)


def pack_memory_table(regions: tuple[RegionDescription, ...]) -> bytes:
    """Payload of SET_MEM_TABLE."""
    return _TABLE_HEAD.pack(len(regions)) + b"".join(region.pack() for region in regions)


def unpack_memory_table(data: bytes) -> tuple[RegionDescription, ...]:
    """Payload of SET_MEM_TABLE; room for up to MAX_REGIONS may follow the ones that count."""
    if len(data) < _TABLE_HEAD.size:
        raise FrontendError(f"memory table of {len(data)} bytes")
    (count,) = _TABLE_HEAD.unpack_from(data)
    if not 1 <= count <= MAX_REGIONS:
        raise FrontendError(f"memory table of {count} regions; 1 to {MAX_REGIONS} are possible")
    room, rest = divmod(len(data) - _TABLE_HEAD.size, _REGION.size)
    if rest or not count <= room <= MAX_REGIONS:
        raise FrontendError(f"memory table of {len(data)} bytes for {count} regions")
    return tuple(
        RegionDescription(*_REGION.unpack_from(data, _TABLE_HEAD.size + i * _REGION.size))
        for i in range(count)
    )


def pack_region(region: RegionDescription) -> bytes:
    """Payload of ADD_MEM_REG and REM_MEM_REG, 40 bytes."""
    return _REGION_MESSAGE_HEAD.pack() + region.pack()


def unpack_region(data: bytes) -> RegionDescription:
    """Payload of ADD_MEM_REG and REM_MEM_REG."""
    if len(data) != _REGION_MESSAGE_HEAD.size + _REGION.size:
        raise FrontendError(f"memory region of {len(data)} bytes")
    return RegionDescription(*_REGION.unpack_from(data, _REGION_MESSAGE_HEAD.size))


@dataclass(frozen=True, slots=True)
class ConfigSpace:
    """A piece of device configuration space."""

    offset: int
    size: int
    flags: int
    data: bytes

    def pack(self) -> bytes:
        """12 bytes and the data."""
        return _CONFIG_HEAD.pack(self.offset, self.size, self.flags) + self.data

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """Parse GET_CONFIG or SET_CONFIG; raises FrontendError unless size and data agree."""
        if len(payload) < _CONFIG_HEAD.size:
            raise FrontendError(f"configuration message of {len(payload)} bytes")
        offset, size, flags = _CONFIG_HEAD.unpack_from(payload)
        data = payload[_CONFIG_HEAD.size :]
        if not 1 <= size <= MAX_CONFIG or len(data) != size:
            raise FrontendError(f"configuration message of {len(data)} bytes for a size of {size}")
        return cls(offset, size, flags, data)
