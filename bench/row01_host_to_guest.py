# SPDX-License-Identifier: MIT
"""Host to guest through the tap: small frames from a socket of the host to the guest's driver.

The source is a UDP socket whose datagrams the kernel cuts into frames; it runs in the
front-end's loop and lets 256 frames at most be on their way, so that none is lost.
"""

from __future__ import annotations

from bench.lib.row import Figure, Goal, Row
from bench.lib.through import DPDK, PYVNET, RAW, everybody

ROW = Row(
    number=1,
    question="Host → guest: how many 64-byte frames a second does a guest get from a tap?",
    meaning="What a guest that is sent small packets can be sent through one core of the host.",
    figures=(Figure("mpps", "Mpps"),),
    variants=everybody("rx"),
    goals=(
        Goal("mpps", of=PYVNET, to=DPDK, at_least=10, stretch=12),
        Goal("mpps", of=PYVNET, to=RAW, at_least=0.85),
    ),
    rounds=7,
    warm_up=0,
    seconds=0.03,
    windows=15,
    keep=True,
)
