# SPDX-License-Identifier: MIT
"""Round trip with everybody spinning: guest → tap → the host's ICMP → tap → guest."""

from __future__ import annotations

from typing import Final

from bench.lib.peers import DPDK_NEEDS, OVS_NEEDS, PYVNET_NEEDS
from bench.lib.row import Figure, Goal, Row, Variant
from bench.lib.through import DPDK, OVS, PYVNET, dpdk, ovs, pyvnet

SPINNING: Final = ("--poll-us", "100000")

ROW = Row(
    number=4,
    question="Round trip, busy polling: how long until the host's answer is back in the guest?",
    meaning="The delay a device adds to each request and answer when a core is given to it.",
    figures=(Figure("p50", "µs", "less"), Figure("p99", "µs", "less")),
    variants=(
        Variant(PYVNET, pyvnet("rtt", *SPINNING), PYVNET_NEEDS, ours=True),
        Variant(DPDK, dpdk("rtt"), DPDK_NEEDS),
        Variant(OVS, ovs("rtt"), OVS_NEEDS),
    ),
    goals=(
        Goal("p50", of=PYVNET, to=DPDK, at_most=0.5, stretch=0.44),
        Goal("p99", of=PYVNET, to=DPDK, at_most=0.6, stretch=0.45),
    ),
    rounds=7,
    warm_up=0,
    seconds=0.03,
    windows=15,
    keep=True,
)
