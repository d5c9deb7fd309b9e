# SPDX-License-Identifier: MIT
"""Built frames are what another implementation would build, and their maps cover every byte."""

from __future__ import annotations

import warnings
from itertools import product
from typing import Any

import pytest

from pyvnet.testing import frames

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # scapy's own, while it is imported
    from scapy.layers import inet, inet6, l2, sctp

_CHAIN = [
    frames.hop_by_hop(frames.option(5, b"\0\0")),
    frames.destination_options(frames.home_address("2001:db8::aaaa")),
    frames.routing_type2("2001:db8::bbbb"),
]
_IPS: dict[str, frames.Ipv4 | frames.Ipv6] = {
    "v4": frames.Ipv4(),
    "v4 options": frames.Ipv4(options=b"\x01\x01\x01"),
    "v6": frames.Ipv6(flow_label=0x12345),
    "v6 chain": frames.Ipv6(extensions=_CHAIN),
}
_L4S = {
    "tcp": (frames.tcp(5, 6, b"abc"), inet.TCP),
    "udp": (frames.udp(5, 6, b"hello"), inet.UDP),
    "sctp": (frames.sctp(5, 6), sctp.SCTP),
    "other": (frames.other(253, b"payload"), None),
}


def _without_lengths_and_checksums(packet: Any) -> Any:
    """A copy for which scapy works them out itself."""
    packet = packet.copy()
    layer = packet
    while layer:
        if isinstance(layer, (inet.IP, inet6.IPv6, inet.TCP, inet.UDP, sctp.SCTP)):
            for name in {"chksum", "len", "plen"} & layer.fields.keys():
                delattr(layer, name)
        layer = layer.payload
    return packet


@pytest.mark.parametrize("vlans", [[], [frames.Vlan(7, 3)], [frames.Vlan(1, tpid=0x88A8)] * 2])
@pytest.mark.parametrize(("ip", "l4"), list(product(_IPS, _L4S)))
def test_scapy_builds_the_same_bytes(ip: str, l4: str, vlans: list[frames.Vlan]) -> None:
    built, layer = _L4S[l4]
    data = frames.build(_IPS[ip], built, vlans=vlans).data
    packet = l2.Ether(data)
    assert layer is None or packet.haslayer(layer)
    # scapy takes the source of the base header even so; see the next test.
    if not (ip == "v6 chain" and l4 in ("tcp", "udp")):
        assert bytes(_without_lengths_and_checksums(packet)) == data


@pytest.mark.parametrize("l4", ["tcp", "udp"])
def test_the_checksum_takes_the_home_address_and_the_final_destination(l4: str) -> None:
    """RFC 6275 11.3.1: as if the extension headers had done their work already."""
    built, _ = _L4S[l4]
    chained = frames.build(_IPS["v6 chain"], built).data
    arrived = frames.build(frames.Ipv6("2001:db8::aaaa", "2001:db8::bbbb"), built).data
    assert chained[-len(built.data) :] == arrived[-len(built.data) :]


@pytest.mark.parametrize(("ip", "l4"), list(product(_IPS, _L4S)))
def test_fields_cover_the_frame(ip: str, l4: str) -> None:
    frame = frames.build(_IPS[ip], _L4S[l4][0], vlans=[frames.Vlan()])
    end = 0
    for name, start, stop in frame.fields():
        assert start == end
        assert start == stop or frame.field_at(start) == name
        end = stop
    assert end == len(frame)
    assert frame.field_at(end) is None


def test_spans_name_the_bytes() -> None:
    frame = frames.build(frames.Ipv6(extensions=_CHAIN), frames.udp(0x1234, 53))
    start, end = frame.span("udp.sport")
    assert frame.data[start:end] == b"\x12\x34"
    start, _ = frame.span("routing.body")
    assert frame.data[start] == 2
    with pytest.raises(KeyError):
        frame.span("tcp.sport")


def test_lies_are_told_as_asked() -> None:
    v4 = frames.build(frames.Ipv4(ihl=3, version=7, total_length=9), frames.udp()).data
    assert v4[14] == 0x73
    assert v4[16:18] == b"\0\x09"
    v6 = frames.build(frames.Ipv6(version=4, payload_length=1), frames.udp()).data
    assert v6[14] >> 4 == 4
    assert v6[18:20] == b"\0\x01"
    assert frames.extension(frames.HIP, length=9).data[1] == 9
    assert frames.option(30, b"ab", length=77) == bytes([30, 77]) + b"ab"
