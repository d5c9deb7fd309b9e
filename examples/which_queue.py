# SPDX-License-Identifier: MIT
"""Which receive queue does each frame of a capture land on, and is the load even?

    python examples/which_queue.py traffic.pcapng

The verdicts come from the C frame path, so they are what a device does.
"""

import sys
from collections import Counter
from pathlib import Path

from pyvnet.capture import read_frames
from pyvnet.datapath.policy import Policy
from pyvnet.spec.rss import ALL_HASH_TYPES, REPORT_NAMES, VERIFICATION_KEY

QUEUES = 4


def main(path: Path) -> None:
    """Print one line per queue and the hash types seen."""
    queues: Counter[int] = Counter()
    reports: Counter[str] = Counter()
    with Policy.create(
        mode="rss",
        hash_types=ALL_HASH_TYPES,
        key=VERIFICATION_KEY,
        indirection_table=[entry % QUEUES for entry in range(128)],
    ) as policy:
        for frame in read_frames(path):
            verdict = policy.classify(frame.data)
            queues[verdict.queue] += 1
            reports[REPORT_NAMES[verdict.hash_report] or "no hash"] += 1
    for queue in range(QUEUES):
        print(f"receiveq {queue}: {queues[queue]} frames")
    print(", ".join(f"{name} {count}" for name, count in reports.most_common()))


main(Path(sys.argv[1]))
