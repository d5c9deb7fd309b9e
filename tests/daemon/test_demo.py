# SPDX-License-Identifier: MIT
"""`pyvnet demo` as its user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

FLOW_REPORTS = ("TCPv4", "UDPv4", "TCPv6", "UDPv6")
# A mount namespace of its own, in which nobody finds a tun device.
WITHOUT_TUN = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh")


def demo(*arguments: str, under: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*under, sys.executable, "-m", "pyvnet", "demo", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return dict(json.loads(done.stdout))


def assert_proved(result: dict[str, Any], queues: int) -> None:
    assert result["mismatches"] == 0
    assert result["verified"] == result["frames"] == sum(result["queues"])
    assert result["frames"] == result["tap_tx_packets"] - result["drops"]
    assert len(result["queues"]) == queues
    assert all(result["reports"][name] > 0 for name in FLOW_REPORTS)


@pytest.mark.needs_tap
@pytest.mark.needs_netns
@pytest.mark.requirement("NET-RSS-02", "NET-REP-01", "NET-HASH-02", "NET-HASH-09", "NET-REP-03")
@pytest.mark.parametrize("owner", ["software", "ebpf"])
def test_kernel_traffic_is_verified_frame_by_frame(owner: str) -> None:
    done = demo("--json", "--steering", owner)

    assert done.returncode == 0, done.stderr
    result = report(done)
    assert result["host_port"] == "tap"
    assert result["steering"] == owner
    assert_proved(result, 4)
    assert all(result["queues"])


@pytest.mark.needs_tap
@pytest.mark.needs_netns
def test_a_broken_key_is_found_out() -> None:
    done = demo("--json", "--break-key")

    assert done.returncode == 1
    result = report(done)
    assert result["mismatches"] >= sum(result["reports"][name] for name in FLOW_REPORTS)
    assert result["verified"] + result["mismatches"] == result["frames"]
    assert "differ from the reference" in done.stderr


@pytest.mark.needs_tap
@pytest.mark.needs_netns
@pytest.mark.parametrize(("queues", "flows"), [(1, 64), (2, 200), (16, 1000)])
def test_other_sizes(queues: int, flows: int) -> None:
    done = demo("--json", "--queues", str(queues), "--flows", str(flows))

    assert done.returncode == 0, done.stderr
    assert_proved(report(done), queues)


@pytest.mark.needs_root
def test_without_a_tap_it_says_why_and_uses_the_socket_pair() -> None:
    done = demo("--json", under=WITHOUT_TUN)

    assert done.returncode == 0, done.stderr
    result = report(done)
    assert result["host_port"] == "pair"
    assert "/dev/net/tun" in result["reason"]
    assert_proved(result, 4)


@pytest.mark.needs_root
def test_the_fallback_can_fail_too() -> None:
    assert demo("--break-key", under=WITHOUT_TUN).returncode == 1


def test_text_shows_a_bar_per_queue_and_the_totals() -> None:
    lines = demo().stdout.splitlines()

    assert [line.split()[1] for line in lines if "receiveq" in line] == ["0", "1", "2", "3"]
    assert lines[-1].endswith("0 mismatches")


def test_plot_draws_every_flow_against_every_queue(tmp_path: Path) -> None:
    picture = tmp_path / "queues.svg"

    done = demo("--json", "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    result = report(done)
    text = picture.read_text()
    busiest = max(result["queues"]) * 4 / result["frames"]
    assert f"busiest queue {busiest:.2f} times the average" in text
    assert f"pyvnet demo over a {result['host_port']}" in text


@pytest.mark.parametrize(
    "arguments",
    [("--queues", "0"), ("--queues", "129"), ("--flows", "3"), ("--steering", "abpf")],
)
def test_wrong_usage_is_said_before_anything_happens(arguments: tuple[str, str]) -> None:
    done = demo(*arguments)

    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert not done.stdout
