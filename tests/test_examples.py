# SPDX-License-Identifier: MIT
"""The examples run as a reader would run them, and say what they promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.utils import wrpcap

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_steer_without_a_guest() -> None:
    lines = run("steer_without_a_guest.py").splitlines()

    assert [line.split(":")[0] for line in lines] == [
        "TCP over IPv4",
        "UDP over IPv4",
        "TCP over IPv6",
    ]
    for line in lines:
        hash_value = int(line.rsplit("0x", 1)[1], 16)
        assert f"receiveq {hash_value % 4}," in line


def test_which_queue(tmp_path: Path) -> None:
    capture = tmp_path / "traffic.pcap"
    ip = Ether() / IP(src="198.18.0.1", dst="198.18.0.2")
    wrpcap(str(capture), [ip / TCP(sport=1), ip / UDP(sport=2), ip / UDP(sport=3), Ether() / ARP()])

    lines = run("which_queue.py", str(capture)).splitlines()

    assert sum(int(line.split()[2]) for line in lines[:4]) == 4
    assert lines[4] == "UDPv4 2, TCPv4 1, no hash 1"


@pytest.mark.requirement("NET-FLT-12", "NET-VLAN-02", "NET-VLAN-03")
def test_who_gets_through() -> None:
    assert run("who_gets_through.py").splitlines() == [
        "to another host: dropped",
        "broadcast: arrives",
        "to a group subscribed to: arrives",
        "to another group: dropped",
        "own address, VLAN 7: arrives",
        "own address, VLAN 8: dropped",
        "own address: arrives",
    ]


@pytest.mark.requirement("NET-RSS-01")
def test_serve_and_steer() -> None:
    lines = [line.split() for line in run("serve_and_steer.py").splitlines()]

    assert len(lines) == 12
    tables = {"turns:": (0, 1, 2, 3), "3:": (2, 3, 2, 3)}
    for line in lines:
        name, hash_value, queue = line[-7], int(line[-3], 16), int(line[-1])
        assert queue == tables[name][hash_value % 4]


def test_uneven_traffic(tmp_path: Path) -> None:
    capture = tmp_path / "traffic.pcapng"
    run("uneven_traffic.py", str(capture))
    command = [sys.executable, "-m", "pyvnet", "hash", str(capture), "--queues", "8", "--suggest"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "3000 frames, 0 without a hash" in said
    readme = (EXAMPLES.parent / "README.md").read_text()
    assert next(line for line in said.splitlines() if line.startswith("suggested")) in readme


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_under_60_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60
