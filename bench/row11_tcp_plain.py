# SPDX-License-Identifier: MIT
"""TCP in packets of the wire's size, from one network to another, through two devices."""

from __future__ import annotations

from bench.lib.row import Row
from bench.lib.tcp import FIGURES, POLLING, SLEEPING, forwarder, goals, patch

ROW = Row(
    number=11,
    question="tap → device → driver → driver → device → tap: how fast is TCP without offloads?",
    meaning="What is left of a bulk transfer where a guest has offloads off: 1500 bytes a frame.",
    figures=FIGURES,
    variants=(
        patch(SLEEPING, "epoll", "plain", "whole"),
        forwarder("forwarder, io_uring, sleeping", "epoll", "uring", "plain"),
        forwarder("forwarder, read and write, sleeping", "epoll", "rw", "plain"),
        patch(POLLING, "busy", "plain", "whole"),
        forwarder("forwarder, io_uring, polling", "busy", "uring", "plain"),
    ),
    goals=goals("forwarder, io_uring, sleeping", "forwarder, io_uring, polling"),
)
