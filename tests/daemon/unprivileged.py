# SPDX-License-Identifier: MIT
"""Children without any privilege: started by our helper or by setpriv(1), and what shows it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.daemon.serving import PROGRAM

NOBODY = 65534
REACHABLE = [sys.executable, str(Path(__file__).with_name("reachable.py"))]
# What a user does who starts a device from a launcher of his own.
SETPRIV = [
    *(*REACHABLE, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"),
]
_NOTHING = "0" * 16


def helper(*words: str, uid: int = NOBODY) -> list[str]:
    """The command line of a helper that executes what follows as nobody."""
    return [*REACHABLE, *PROGRAM, "helper", "--user", str(uid), *words, "--"]


def without_privilege(status: str, uid: int = NOBODY) -> dict[str, str]:
    """What /proc/PID/status must say of such a process, beside what it says."""
    wanted = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), _NOTHING)
    wanted |= {"NoNewPrivs": "1", "Uid": "\t".join([str(uid)] * 4)}
    found = dict(re.findall(r"^(\w+):\s*(.*)$", status, re.MULTILINE))
    assert {key: found.get(key) for key in wanted} == wanted
    return found
