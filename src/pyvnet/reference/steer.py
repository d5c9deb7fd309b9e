# SPDX-License-Identifier: MIT
"""Flow to hash type, hash type to hash, hash to receive queue.

"Hash calculation for incoming packets" lists, per kind of packet, the hash
types in the order they are tried; the first enabled one decides (NET-HASH-05
to NET-HASH-08).  The order is a list here too, so it can be laid beside the
standard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pyvnet.reference.parse import TCP, UDP, Flow, parse
from pyvnet.reference.toeplitz import toeplitz
from pyvnet.spec.rss import HashReport, HashType

if TYPE_CHECKING:
    from collections.abc import Sequence

_EX: Final = HashType.IP_EX | HashType.TCP_EX | HashType.UDP_EX
_WITH_PORTS: Final = (
    HashType.TCPV4
    | HashType.UDPV4
    | HashType.TCPV6
    | HashType.UDPV6
    | HashType.TCP_EX
    | HashType.UDP_EX
)


@dataclass(frozen=True, slots=True)
class Hash:
    """The hash of one frame; ``value`` is 0 when ``report`` is NONE (U-03)."""

    value: int
    report: HashReport


def candidates(flow: Flow, *, ex_types_always: bool = False) -> tuple[HashType, ...]:
    """Hash types that apply to ``flow``, in the order they are tried.

    The standard tries all EX types before the plain ones, and only for packets
    with an extension header (U-19, U-58).  With ``ex_types_always`` the order
    is QEMU's: EX types apply to every IPv6 packet, and types with ports come
    before types without.
    """
    if flow.l3 == 0:
        return ()
    if flow.l3 == 4:
        plain = {TCP: (HashType.TCPV4,), UDP: (HashType.UDPV4,)}.get(flow.l4, ())
        return (*plain, HashType.IPV4)
    ports_ex = {TCP: (HashType.TCP_EX,), UDP: (HashType.UDP_EX,)}.get(flow.l4, ())
    ports = {TCP: (HashType.TCPV6,), UDP: (HashType.UDPV6,)}.get(flow.l4, ())
    if ex_types_always:
        return (*ports_ex, *ports, HashType.IP_EX, HashType.IPV6)
    if flow.has_extensions:
        return (*ports_ex, HashType.IP_EX, *ports, HashType.IPV6)
    return (*ports, HashType.IPV6)


def select(flow: Flow, hash_types: int, *, ex_types_always: bool = False) -> HashType:
    """The type ``flow`` is hashed by, HashType.NONE when no enabled one applies."""
    for hash_type in candidates(flow, ex_types_always=ex_types_always):
        if hash_types & hash_type:
            return hash_type
    return HashType.NONE


def hash_input(flow: Flow, hash_type: HashType) -> bytes:
    """The bytes that are hashed: source address, destination address, and the ports if in the type.

    8, 12, 32 or 36 bytes in network order; none for HashType.NONE.
    """
    if hash_type == HashType.NONE:
        return b""
    data = flow.saddr_ex + flow.daddr_ex if hash_type & _EX else flow.saddr + flow.daddr
    if hash_type & _WITH_PORTS:
        data += flow.sport.to_bytes(2, "big") + flow.dport.to_bytes(2, "big")
    return data


def classify(frame: bytes, hash_types: int, key: bytes, *, ex_types_always: bool = False) -> Hash:
    """Hash ``frame`` (from the destination MAC on) under a set of enabled types and a key.

    ``hash_types`` 0 gives no hash for any frame (U-14).
    """
    flow = parse(frame)
    hash_type = select(flow, hash_types, ex_types_always=ex_types_always)
    if hash_type == HashType.NONE:
        return Hash(0, HashReport.NONE)
    # NET-REP-03: report = log2(type) + 1.
    report = HashReport(int(hash_type).bit_length())
    return Hash(toeplitz(key, hash_input(flow, hash_type)), report)


def steer(hashed: Hash, indirection_table: Sequence[int], unclassified_queue: int) -> int:
    """The receive queue pair of a frame (NET-RSS-01, NET-RSS-02).

    Raises ValueError for a table whose length is not a power of two; such a
    table has no mask and no device accepts it (U-09).
    """
    length = len(indirection_table)
    if length == 0 or length & (length - 1):
        raise ValueError(f"indirection table of {length} entries: must be a power of two")
    if hashed.report == HashReport.NONE:
        return unclassified_queue
    return indirection_table[hashed.value & (length - 1)]
