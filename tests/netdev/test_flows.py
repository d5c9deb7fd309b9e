# SPDX-License-Identifier: MIT
"""The kernel's own traffic: four kinds in equal parts, all apart, none lost."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyvnet.errors import HostError, UsageError
from pyvnet.netdev import Tap, rtnl
from pyvnet.netdev.flows import PEER_MAC, FlowCount, start_flows
from tests.netdev import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.usefixtures("private_netns"),
]

TCP, UDP = 6, 17


@pytest.fixture
def tap() -> Iterator[Tap]:
    with Tap("flows", queues=4) as opened:
        yield opened


def five_tuple(frame: bytes) -> tuple[str, bytes, bytes] | None:
    """(kind, addresses, ports) of a flow's frame; None for the kernel's own chatter."""
    packet = frame[12 + 14 :]
    if frame[24:26] == b"\x08\x00" and packet[9] in {TCP, UDP}:
        assert packet[0] == 0x45
        return ("TCPv4" if packet[9] == TCP else "UDPv4", packet[12:20], packet[20:24])
    if frame[24:26] == b"\x86\xdd" and packet[6] in {TCP, UDP}:
        return ("TCPv6" if packet[6] == TCP else "UDPv6", packet[8:40], packet[40:44])
    return None


def drain(tap: Tap) -> list[bytes]:
    return [frame for fd in tap.fds for frame in kernel.drain(fd)]


@pytest.mark.parametrize(("flows", "frames_per_flow", "batch"), [(64, 4, 250), (2000, 1, 1000)])
def test_every_flow_sends_its_frames(
    tap: Tap, flows: int, frames_per_flow: int, batch: int
) -> None:
    seen: Counter[tuple[str, bytes, bytes]] = Counter()
    macs = set()
    with start_flows(tap.name, flows, frames_per_flow, batch=batch) as started:
        for sent in started.batches():
            assert 1 <= sent <= batch
            frames = [(five_tuple(frame), frame[12:18]) for frame in drain(tap)]
            mine = [(key, mac) for key, mac in frames if key is not None]
            assert len(mine) == sent
            seen.update(key for key, _ in mine)
            macs |= {mac for _, mac in mine}
        report = started.report()
    assert macs == {bytes.fromhex(PEER_MAC.replace(":", ""))}
    assert len(seen) == flows
    assert set(seen.values()) == {frames_per_flow}
    quarter = flows // 4
    counts = FlowCount(flows=quarter, sent=quarter * frames_per_flow)
    assert report == dict.fromkeys(("TCPv4", "UDPv4", "TCPv6", "UDPv6"), counts)
    assert Counter(kind for kind, _, _ in seen) == dict.fromkeys(report, quarter)
    assert len({ports for _, _, ports in seen}) == flows
    assert len({addresses for _, addresses, _ in seen}) == 16
    assert tap.statistics().tx_dropped == 0


def test_the_first_frame_of_a_tcp_flow_is_a_syn(tap: Tap) -> None:
    with start_flows(tap.name, 4, 2) as started:
        assert sum(started.batches()) == 8
        flags = [frame[12 + 14 + 20 + 13] for frame in drain(tap) if frame[24:26] == b"\x08\x00"]
    assert flags.count(0x02) >= 2


def test_frames_fit_the_least_mtu_of_ipv6(tap: Tap) -> None:
    rtnl.set_mtu(tap.name, 1280)
    with start_flows(tap.name, 1200, 1, batch=1000) as started:
        lengths = []
        for _ in started.batches():
            frames = drain(tap)
            assert all(five_tuple(frame) for frame in frames if frame[24:26] == b"\x08\x00")
            lengths += [len(frame) - 12 - 14 for frame in frames]
    assert max(lengths) <= 1280
    assert len(set(lengths)) > 100


def test_the_peers_mac_is_the_drivers(tap: Tap) -> None:
    with start_flows(tap.name, 4, 1, peer_mac="02:12:34:56:78:9a") as started:
        list(started.batches())
    macs = {frame[12:18].hex() for frame in drain(tap) if five_tuple(frame)}
    assert macs == {"02123456789a"}


def test_ipv6_is_switched_on_where_it_is_off(tap: Tap) -> None:
    switch = Path("/proc/sys/net/ipv6/conf", tap.name, "disable_ipv6")
    switch.write_text("1")
    with start_flows(tap.name, 4, 1) as started:
        assert sum(started.batches()) == 4
    assert switch.read_text() == "0\n"


def test_close_gives_the_sockets_back(tap: Tap) -> None:
    before = kernel.open_fds()
    started = start_flows(tap.name, 8, 2)
    list(started.batches())
    assert len(kernel.open_fds() - before) == 8
    started.close()
    started.close()
    assert kernel.open_fds() == before


def test_a_port_in_use_is_reported(tap: Tap) -> None:
    with start_flows(tap.name, 4, 1) as started:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
            squatter.bind(("198.18.0.1", 10_001))
            with pytest.raises(HostError, match="UDPv4 flow does not get out over flows") as caught:
                list(started.batches())
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(
    ("flows", "frames_per_flow", "batch"), [(0, 1, 1), (50_001, 1, 1), (4, 0, 1), (4, 1, 1001)]
)
def test_numbers_out_of_range(flows: int, frames_per_flow: int, batch: int) -> None:
    with pytest.raises(UsageError):
        start_flows("lo", flows, frames_per_flow, batch=batch)
