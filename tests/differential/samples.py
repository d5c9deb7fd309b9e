# SPDX-License-Identifier: MIT
"""Frames that stand for many, and strategies for frames nobody would build."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from pyvnet.testing import frames

_HOME: Final = frames.home_address("2001:db8::aaaa")
_WHOLE_CHAIN: Final = (
    frames.hop_by_hop(frames.option(5, b"\0\0"), frames.PAD1),
    frames.destination_options(frames.padn(4), _HOME),
    frames.routing_type2("2001:db8::bbbb"),
    frames.extension(frames.AH, bytes(22)),
    frames.extension(frames.MOBILITY, bytes(14)),
    frames.extension(frames.HIP, bytes(38)),
    frames.extension(frames.SHIM6),
)
FRAMES: Final = {
    "v4 tcp": frames.build(frames.Ipv4(), frames.tcp(payload=b"data")),
    "v4 options udp": frames.build(frames.Ipv4(options=bytes(range(1, 41))), frames.udp()),
    "v4 two tags": frames.build(
        frames.Ipv4(), frames.tcp(), vlans=[frames.Vlan(5, tpid=0x88A8), frames.Vlan(6)]
    ),
    "v4 three tags": frames.build(frames.Ipv4(), frames.tcp(), vlans=[frames.Vlan(5)] * 3),
    "v4 fragment": frames.build(frames.Ipv4(more_fragments=True), frames.udp()),
    "v6 udp": frames.build(frames.Ipv6(), frames.udp(payload=b"data")),
    "v6 every header": frames.build(frames.Ipv6(extensions=_WHOLE_CHAIN), frames.tcp()),
    "v6 fragment": frames.build(
        frames.Ipv6(extensions=[*_WHOLE_CHAIN[:3], frames.fragment_header()]), frames.udp()
    ),
    "v6 window": frames.build(
        frames.Ipv6(extensions=[*_WHOLE_CHAIN, frames.extension(frames.HIP, bytes(750))]),
        frames.udp(),
    ),
    "arp": frames.ethernet(0x0806, bytes(28)),
}


def _frame_of(ethertype: bytes, nibble: int, rest: bytes) -> bytes:
    """An Ethernet header and something that begins like IP."""
    return bytes(12) + ethertype + bytes([nibble]) + rest


ANYTHING: Final = st.one_of(
    st.binary(max_size=160),
    st.builds(
        _frame_of,
        st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x81\x00\x00\x01\x86\xdd"]),
        st.sampled_from([0x45, 0x46, 0x4F, 0x60]),
        st.binary(max_size=160),
    ),
)
# Next headers near each other, so that chains form by themselves.
CHAINS: Final = st.lists(
    st.tuples(
        st.sampled_from([0, 6, 17, 43, 44, 50, 51, 59, 60, 135, 139, 140]),
        st.integers(0, 4),
        st.binary(min_size=6, max_size=46),
    ),
    min_size=1,
    max_size=20,
)


def chain_frame(chain: list[tuple[int, int, bytes]]) -> bytes:
    """IPv6 and headers, each a kind, a length that need not match, and what follows."""
    headers = b"".join(bytes([kind, length]) + body for kind, length, body in chain)
    base = bytes([0x60, 0, 0, 0, 0, 0, chain[0][0], 64]) + bytes(range(32))
    return bytes(12) + b"\x86\xdd" + base + headers
