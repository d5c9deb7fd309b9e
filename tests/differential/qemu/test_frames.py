# SPDX-License-Identifier: MIT
"""QEMU's virtio-net and ours see every frame alike, but where we decided otherwise.

What QEMU does otherwise is known before it is asked (`reading.py`), with the decision
that says why: a difference that was not foretold fails, and so does one foretold that is not there.
"""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Final

import pytest

from pyvnet import Feature, HashConfig, RssConfig
from tests.differential.qemu.machine import PAIRS
from tests.differential.qemu.random_frames import random_frames
from tests.differential.qemu.reading import DEVIATIONS, our_answer, predict
from tests.differential.qemu.sides import BATCH, HASHING, Sides, Tally, both_sides
from tests.differential.qemu.steering import Placed

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_netns,
    pytest.mark.needs_tap,
    pytest.mark.needs_program("qemu-system-x86_64"),
    pytest.mark.one_loop("what QEMU answers does not depend on our event loop, and it takes long"),
]

STEERED: Final = 10_000
REPORTED: Final = 1000


def batches(frames: Iterator[bytes], count: int) -> Iterator[list[bytes]]:
    frames = islice(frames, count)
    while batch := list(islice(frames, BATCH)):
        yield batch


def random_types(rng: random.Random) -> int:
    """All, those of Linux, those with IP_EX and no other EX type, none, and any."""
    return rng.choice((0x1FF, 0x3F, 0x7F, 0, *(rng.randrange(1, 0x200) for _ in range(4))))


def random_rss(rng: random.Random) -> RssConfig:
    table = tuple(rng.randrange(PAIRS) for _ in range(1 << rng.randrange(8)))
    return RssConfig(
        random_types(rng), table, rng.randbytes(40), rng.randrange(PAIRS), max_tx_vq=PAIRS
    )


async def compare(
    sides: Sides,
    tally: Tally,
    frames: list[bytes],
    config: RssConfig | HashConfig,
    queue: Callable[[int, int], int | None],
) -> None:
    """Send a batch to both; ``queue`` says where a report and a value lead."""
    ours, theirs = await sides.exchange(frames)
    for frame, here, there in zip(frames, ours, theirs, strict=True):
        text = f"types {config.hash_types:#x}, {frame.hex()}"
        report, value = our_answer(frame, config.hash_types, config.key)
        due = Placed(report, value, queue(report, value))
        tally.frame("ours", here, due, PAIRS, text)
        foretold = predict(frame, config.hash_types, config.key)
        known = there.value if foretold.value is None else foretold.value
        due = Placed(foretold.report, foretold.value, queue(foretold.report, known))
        tally.frame("QEMU's", there, due, PAIRS, text)
        tally.differ(here[:2], there[:2], foretold.because, text)


@pytest.mark.requirement("NET-RSS-01", "NET-RSS-02", "NET-HASH-01", "NET-HASH-02", "NET-HASH-05",
                         "NET-HASH-06", "NET-HASH-07", "NET-HASH-08", "NET-HASH-09", "NET-REP-01",
                         "NET-REP-02", "NET-REP-03", *DEVIATIONS)  # fmt: skip
async def test_every_difference_of_a_frame_is_a_decision(vnet_random: random.Random) -> None:
    rng, steered, reported = vnet_random, Tally(), Tally()
    stream = random_frames(rng, copies=12)
    async with both_sides() as sides:
        await sides.negotiate(HASHING | Feature.MQ | Feature.RSS)
        for frames in batches(stream, STEERED):
            config = random_rss(rng)

            def queue(report: int, value: int, config: RssConfig = config) -> int:
                table = config.indirection_table
                return table[value % len(table)] if report else config.unclassified_queue

            for driver in (sides.ours, sides.theirs):
                await driver.ctrl.rss_config(config)
            await compare(sides, steered, frames, config, queue)
        await sides.negotiate(HASHING)
        for frames in batches(stream, REPORTED):
            hashing = HashConfig(random_types(rng), rng.randbytes(40))
            for driver in (sides.ours, sides.theirs):
                await driver.ctrl.hash_config(hashing)
            await compare(sides, reported, frames, hashing, lambda _report, _value: 0)
    sys.stdout.write(f"\nunder RSS: {steered}\nreports alone: {reported}\n")
    assert not steered.complaints, str(steered)
    assert not reported.complaints, str(reported)
    assert (steered.looks, reported.looks) == (STEERED, REPORTED)
    assert steered.because.keys() == DEVIATIONS.keys(), "not all of them were met"
