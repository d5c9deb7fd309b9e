# SPDX-License-Identifier: MIT
"""Write a capture of 60 flows, a few of which have most of the frames.

``python uneven_traffic.py traffic.pcapng``, and then
``pyvnet hash traffic.pcapng --queues 8 --suggest --plot spread.svg``.
"""

from __future__ import annotations

import random
import sys

from pyvnet.capture import Writer
from pyvnet.testing.frames import Ipv4, build, tcp

FRAMES = 3000

flows = [build(Ipv4(f"10.0.0.{1 + n}", "10.0.1.1"), tcp(10_000 + 7 * n, 443)) for n in range(60)]
weights = [1 / (1 + n) ** 1.1 for n in range(60)]
choose = random.Random(4).choices  # noqa: S311 - the same capture each time
with Writer(sys.argv[1]) as capture:
    for number, flow in enumerate(choose(flows, weights, k=FRAMES)):
        capture.add("vm1:tap", flow.data, timestamp_ns=number * 1_000_000)
