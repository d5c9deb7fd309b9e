# SPDX-License-Identifier: MIT
"""Guest to host, dropped by a BPF program in tc: the whole way into the host's stack."""

from __future__ import annotations

from typing import Final

from bench.lib.peers import DPDK_NEEDS, OVS_NEEDS, PYVNET_NEEDS, RAW_NEEDS
from bench.lib.row import Figure, Goal, Row, Variant
from bench.lib.through import dpdk, ovs, pyvnet, raw

DPDK: Final = "DPDK net_vhost + net_tap"
RAW: Final = "raw io_uring, no guest"

ROW = Row(
    number=2,
    question="Guest → host, dropped in tc: how many 64-byte frames a second leave a guest?",
    meaning="What a guest that sends or forwards small packets gets into the host's stack.",
    figures=(Figure("mpps", "Mpps"),),
    variants=(
        Variant("pyvnet", pyvnet("tx", drop="tc"), PYVNET_NEEDS, ours=True),
        Variant(DPDK, dpdk("tx", "tc"), DPDK_NEEDS),
        Variant("OVS-DPDK, internal port", ovs("tx", "tc"), OVS_NEEDS),
        Variant(RAW, raw("tx", "tc"), RAW_NEEDS),
    ),
    goals=(
        Goal("mpps", of="pyvnet", to=DPDK, at_least=1.25, stretch=1.35),
        Goal("mpps", of="pyvnet", to=RAW, at_least=0.90),
    ),
    rounds=5,
)
