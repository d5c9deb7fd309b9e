# SPDX-License-Identifier: MIT
"""The conformance suite against back-ends of others: what they fail is known, and stays so.

A case that fails there is a finding (docs/conformance-results.md), not a failure
of ours.  What these tests keep is that the suite runs through, sees the same as
ever, and blames nobody for what is slow on a busy machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.system.foreign import OVS, Ports, dpdk, judged, open_vswitch
from tests.system.versions import whose_list

if TYPE_CHECKING:
    from pathlib import Path

    from pyvnet.netdev.netns import NetNamespace

pytestmark = [
    pytest.mark.one_loop("the command has a loop of its own"),
    pytest.mark.timeout(400),
]

# Of DPDK's vhost library, which Open vSwitch uses too: the case, and words of its evidence.
LIBRARY: Final = {
    "offered-bits-come-with-what-they-require": "host_ecn is offered without host_tso4",
    "num-buffers-is-1-without-mergeable-buffers": "num_buffers is 0",
    "a-received-header-may-go-into-single-bytes": "bytes were written outside the buffers",
    "descriptors-may-precede-an-indirect-table": "the frame with 1 descriptors before the table",
    "stopping-one-pair-leaves-the-others-running": "on the wire",
    "a-choice-that-contradicts-itself-is-refused": "guest_tso4 was accepted without guest_csum",
    "a-disabled-transmit-ring-is-emptied": "a disabled transmitq to be emptied",
    "memory-may-be-other-memory-at-the-same-place": "frame",
    "frames-longer-than-their-buffer-are-not-received": "frame",
}
# The packages it was seen with.
DPDK_LIST: Final = ("dpdk-dev", "22.11.11-0+deb12u1")
OVS_LIST: Final = ("openvswitch-switch-dpdk", "3.1.0-2+deb12u1")
ENOUGH: Final = 25  # cases that pass where the suite runs through at all
QUICK: Final = ("--timeout", "1")
PATIENT: Final = ("--timeout", "10")


async def compare(
    ports: Ports, known: dict[str, str], seen_with: tuple[str, str], *words: str
) -> None:
    """Look that the same cases fail as ever, for the same reasons.

    What fails and is not known, or for other reasons, has another try with more time.
    """
    cases = await judged(ports, *QUICK, *words)
    assert sum(case["verdict"] == "passed" for case in cases.values()) > ENOUGH, cases
    seen = _failed(cases)
    doubtful = {name for name, why in seen.items() if known.get(name, why + "?") not in why}
    if doubtful:
        again = _failed(await judged(ports, *PATIENT, "--only", ",".join(sorted(doubtful))))
        seen = {name: why for name, why in seen.items() if name not in doubtful} | again
    note = whose_list(*seen_with)
    assert seen.keys() == {name for name in known if name in cases}, (note, seen)
    for name, why in seen.items():
        assert known[name] in why, (note, name, why)


def _failed(cases: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {
        name: case["reason"]
        for name, case in cases.items()
        if case["verdict"] in {"failed", "inconclusive"}
    }


@pytest.mark.needs_program("dpdk-testpmd")
async def test_dpdk(tmp_path: Path) -> None:
    async with dpdk(tmp_path, ports=2) as ports:
        await compare(ports, LIBRARY, DPDK_LIST)


@pytest.mark.needs_program("dpdk-testpmd")
async def test_dpdk_with_one_port_that_loops(tmp_path: Path) -> None:
    async with dpdk(tmp_path, ports=1) as ports:
        await compare(ports, LIBRARY, DPDK_LIST, "--only", "split_ring,notifications,receive")


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.needs_program("ovsdb-server", "ovs-vsctl", OVS)
async def test_open_vswitch(tmp_path: Path, netns: NetNamespace) -> None:
    async with open_vswitch(tmp_path, netns) as ports:
        await compare(ports, LIBRARY, OVS_LIST)


def test_a_list_of_another_version_says_so() -> None:
    assert whose_list("no-such-package", "1.0").startswith(
        "the list is of no-such-package 1.0, installed is unknown: it may be a difference"
    )
