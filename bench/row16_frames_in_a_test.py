# SPDX-License-Identifier: MIT
"""10 000 frames through a device and the driver in Python, by the verbs of a scenario."""

from __future__ import annotations

from typing import Final

from bench.lib.row import Figure, Goal, Row, Variant
from bench.row15_test_set_up import guest_free

IN: Final = "inject and expect, 32 at a time"
ONE: Final = "inject and expect, one by one"
OUT: Final = "send and expect_sent, 32 at a time"

ROW = Row(
    number=16,
    question="How long do 10 000 frames take in a test, through device and driver, each expected?",
    meaning="How large a random test may be: every frame hashed, steered, received and compared.",
    figures=(Figure("seconds", "s", better="less"),),
    variants=(
        Variant(IN, guest_free("in", "32"), ours=True),
        Variant(ONE, guest_free("in", "1"), ours=True),
        Variant(OUT, guest_free("out", "32"), ours=True),
        Variant("send and expect_sent, one by one", guest_free("out", "1"), ours=True),
    ),
    goals=(
        Goal("seconds", of=IN, at_most=2.0),
        Goal("seconds", of=ONE, at_most=2.0),
        Goal("seconds", of=OUT, at_most=2.0),
    ),
    rounds=5,
)
