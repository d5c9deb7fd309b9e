# SPDX-License-Identifier: MIT
"""Instructions per frame of the frame path, against what it may take: ``make count``.

Counted, not timed: the same sources and compiler give the same figures on every
machine, so one instruction more is seen.  Budgets are in native/count/budgets.json,
with the compiler they hold for; another compiler's figures are shown, not judged.

    python tools/count.py PROGRAM           compare; exit status 1 if one is over
    python tools/count.py PROGRAM --record  write the budgets anew
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

BUDGETS: Final = Path(__file__).parents[1] / "native/count/budgets.json"
WORKS: Final = {
    "parse": "headers of 16 IPv4 and 16 IPv6 frames",
    "hash": "their Toeplitz hash by tables",
    "steer": "hash to queue",
    "ring": "pop, push and publish in bursts",
    "tx": "the transmit line, to the null port",
    "rx": "the receive line, from the null port",
    "rx-hash": "the same with RSS and the hash reported",
    "tx-captured": "tx with a copy of 60 bytes for a capture",
    "rx-captured": "rx-hash with one",
}
FRAMES: Final = 6400
OVER: Final = 1.03
WELL_BELOW: Final = 0.90

# libc picks its memcpy by CPU; without these there is one choice.
_ANY_CPU: Final = "glibc.cpu.hwcaps=-AVX2,-AVX,-AVX512F,-ERMS,-FSRM"


def count(program: str, work: str, frames: int) -> int:
    """Instructions of all functions counted_*() of a run, those they call included."""
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={program}.{work}.callgrind"]
    command += ["--toggle-collect=counted_*", program, work, str(frames)]
    done = subprocess.run(  # noqa: S603 - our own program
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GLIBC_TUNABLES": _ANY_CPU},
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return int(found[1])


def measure(program: str) -> dict[str, float]:
    """Instructions per frame of each work: what twice the frames take more."""
    return {
        work: round((count(program, work, 2 * FRAMES) - count(program, work, FRAMES)) / FRAMES, 1)
        for work in WORKS
    }


def compiler() -> str:
    """What built the program, which `CC` names for make."""
    command = [os.environ.get("CC", "gcc"), "-dumpfullversion"]
    done = subprocess.run(  # noqa: S603 - the compiler
        command, capture_output=True, text=True, check=True
    )
    return f"{Path(command[0]).name} {done.stdout.strip()} {os.uname().machine}"


def verdicts(found: dict[str, float], budgets: dict[str, float], program: str) -> list[str]:
    """Print the table; what is over its budget, a sentence each."""
    over = []
    print(f"{'instructions a frame':22}{'now':>8}{'budget':>8}")
    for work, now in found.items():
        budget = budgets.get(work, 0.0)
        print(f"{work:22}{now:8.1f}{budget:8.1f}  {WORKS[work]}")
        if now > budget * OVER:
            over.append(
                f"{work}: {now} instructions a frame, {budget} allowed (+{now / budget - 1:.1%})."
                if budget
                else f"{work}: no budget yet."
            )
        elif now < budget * WELL_BELOW:
            print(f"  {work} takes less than its budget: lower it with `make count-record`")
    if over:
        over.append(
            f"`callgrind_annotate {program}.WORK.callgrind` says where. Make it cheaper again; or, "
            "if they are worth it, `make count-record`, and say in the commit what for."
        )
    return over


def main() -> int:
    """Compare or record; the exit status."""
    parser = argparse.ArgumentParser(description="Instructions per frame, against their budgets.")
    parser.add_argument("program")
    parser.add_argument("--record", action="store_true", help="write the budgets anew")
    args = parser.parse_args()
    found = measure(args.program)
    if args.record:
        document = {"compiler": compiler(), "instructions_per_frame": found}
        BUDGETS.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(BUDGETS.read_text(encoding="utf-8"), end="")
        return 0
    recorded: dict[str, Any] = json.loads(BUDGETS.read_text(encoding="utf-8"))
    over = verdicts(found, recorded["instructions_per_frame"], args.program)
    if recorded["compiler"] != compiler():
        print(f"not judged: budgets are for {recorded['compiler']}, this is {compiler()}")
        return 0
    for sentence in over:
        print(sentence, file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
