# SPDX-License-Identifier: MIT
"""Host to guest through the tap: small frames from a socket of the host to the guest's driver.

The source is a UDP socket whose datagrams the kernel cuts into frames; it runs in the
front-end's loop and lets 256 frames at most be on their way, so that none is lost.
"""

from __future__ import annotations

from typing import Final

from bench.lib.peers import DPDK_NEEDS, OVS_NEEDS, PYVNET_NEEDS, RAW_NEEDS
from bench.lib.row import Figure, Goal, Row, Variant
from bench.lib.through import dpdk, ovs, pyvnet, raw

DPDK: Final = "DPDK net_vhost + net_tap"
RAW: Final = "raw io_uring, no guest"

ROW = Row(
    number=1,
    question="Host → guest: how many 64-byte frames a second does a guest get from a tap?",
    meaning="What a guest that is sent small packets can be sent through one core of the host.",
    figures=(Figure("mpps", "Mpps"),),
    variants=(
        Variant("pyvnet", pyvnet("rx"), PYVNET_NEEDS, ours=True),
        Variant(DPDK, dpdk("rx"), DPDK_NEEDS),
        Variant("OVS-DPDK, internal port", ovs("rx"), OVS_NEEDS),
        Variant(RAW, raw("rx"), RAW_NEEDS),
    ),
    goals=(
        Goal("mpps", of="pyvnet", to=DPDK, at_least=10, stretch=12),
        Goal("mpps", of="pyvnet", to=RAW, at_least=0.85),
    ),
    rounds=5,
)
