# SPDX-License-Identifier: MIT
"""How much memory a running device takes, measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_KIB = 15 * 1024
# The shipped build is what is weighed, also where the other tests run over another one.
_SANITIZERS = {"LD_PRELOAD", "PYTHONMALLOC", "PYVNET_NATIVE", "PYVNET_NATIVE_HOOKS"}
_PROGRAM = """
import re
from pathlib import Path
from tests.datapath.rig import Rig, frame_of

def resident():
    text = Path("/proc/self/status").read_text()
    return {key: int(re.search(rf"{key}:\\s+(\\d+)", text)[1]) for key in ("VmRSS", "RssShmem")}

frame_of(0)
before = resident()
with Rig(pairs=4, workers=4, queue_size=256, buffers=256) as rig:
    rig.policy()
    for serial in range(100):
        for flow in range(64):
            rig.inject(flow % 4, frame_of(flow, serial, 1500 if flow % 2 else 60))
        rig.receive(64)
        for pair in range(4):
            rig.send(pair, *(frame_of(pair, serial, 1500) for _ in range(16)))
            rig.from_wire(pair, 16)
            rig.wait_sent(pair, 16)
    assert rig.totals().rx_packets == rig.totals().tx_packets == 6400
    after = resident()
print(after["VmRSS"] - before["VmRSS"], after["RssShmem"] - before["RssShmem"])
"""


def test_four_pairs_of_256_stay_below_15_mib(
    record_property: Callable[[str, object], None],
) -> None:
    """An engine, its rings and the driver's half of them, after traffic on every pair.

    Guest memory (shared; mapped by driver and engine) belongs to the guest but is counted here too.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=Path(__file__).parents[2],
        env={key: value for key, value in os.environ.items() if key not in _SANITIZERS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    total, guest = map(int, done.stdout.split())
    record_property("resident_kib", total)
    sys.stdout.write(f"{total} KiB resident, {guest} KiB of it guest memory\n")
    assert total <= LIMIT_KIB
