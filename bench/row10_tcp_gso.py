# SPDX-License-Identifier: MIT
"""TCP in large segments, from one network to another, through two devices and who joins them."""

from __future__ import annotations

from bench.lib.row import Row
from bench.lib.tcp import FIGURES, POLLING, SLEEPING, forwarder, goals, patch

ROW = Row(
    number=10,
    question="tap → device → driver → driver → device → tap: how fast is TCP with large segments?",
    meaning="What a bulk transfer gets through two guests' network cards, on one core of the host.",
    figures=FIGURES,
    variants=(
        patch(SLEEPING, "epoll", "gso", "whole"),
        forwarder("forwarder, sleeping", "epoll", "rw", "gso"),
        patch("pyvnet, sleeping, merged buffers", "epoll", "gso", "merged"),
        patch(POLLING, "busy", "gso", "whole"),
        forwarder("forwarder, polling", "busy", "rw", "gso"),
    ),
    goals=goals("forwarder, sleeping", "forwarder, polling"),
)
