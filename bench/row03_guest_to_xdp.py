# SPDX-License-Identifier: MIT
"""Guest to host, dropped by XDP in the tap: the write alone, before the kernel makes a packet."""

from __future__ import annotations

from bench.lib.row import Figure, Goal, Row
from bench.lib.through import DPDK, PYVNET, everybody

ROW = Row(
    number=3,
    question="Guest → host, dropped by XDP on the tap: how many 64-byte frames a second?",
    meaning="What the host can take from a guest whose packets XDP drops or redirects, "
    "as under attack.",
    figures=(Figure("mpps", "Mpps"),),
    variants=everybody("tx", "xdp"),
    goals=(Goal("mpps", of=PYVNET, to=DPDK, at_least=1.6, stretch=1.8),),
    rounds=7,
    warm_up=0,
    seconds=0.03,
    windows=15,
    keep=True,
)
