# SPDX-License-Identifier: MIT
"""Guest to host, dropped by a BPF program in tc: the whole way into the host's stack."""

from __future__ import annotations

from bench.lib.row import Figure, Goal, Row
from bench.lib.through import DPDK, PYVNET, RAW, everybody

ROW = Row(
    number=2,
    question="Guest → host, dropped in tc: how many 64-byte frames a second leave a guest?",
    meaning="What a guest that sends or forwards small packets gets into the host's stack.",
    figures=(Figure("mpps", "Mpps"),),
    variants=everybody("tx", "tc"),
    goals=(
        Goal("mpps", of=PYVNET, to=DPDK, at_least=1.25, stretch=1.35),
        Goal("mpps", of=PYVNET, to=RAW, at_least=0.90),
    ),
    rounds=7,
    warm_up=0,
    seconds=0.03,
    windows=15,
    keep=True,
)
