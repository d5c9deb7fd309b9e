# SPDX-License-Identifier: MIT
"""Guest to host, dropped by XDP in the tap: the write alone, before the kernel makes a packet."""

from __future__ import annotations

from typing import Final

from bench.lib.peers import DPDK_NEEDS, OVS_NEEDS, PYVNET_NEEDS, RAW_NEEDS
from bench.lib.row import Figure, Goal, Row, Variant
from bench.lib.through import dpdk, ovs, pyvnet, raw

DPDK: Final = "DPDK net_vhost + net_tap"

ROW = Row(
    number=3,
    question="Guest → host, dropped by XDP on the tap: how many 64-byte frames a second?",
    meaning="What the host can take from a guest whose packets XDP drops or redirects, "
    "as under attack.",
    figures=(Figure("mpps", "Mpps"),),
    variants=(
        Variant("pyvnet", pyvnet("tx", drop="xdp"), PYVNET_NEEDS, ours=True),
        Variant(DPDK, dpdk("tx", "xdp"), DPDK_NEEDS),
        Variant("OVS-DPDK, internal port", ovs("tx", "xdp"), OVS_NEEDS),
        Variant("raw io_uring, no guest", raw("tx", "xdp"), RAW_NEEDS),
    ),
    goals=(Goal("mpps", of="pyvnet", to=DPDK, at_least=1.6, stretch=1.8),),
    rounds=5,
)
