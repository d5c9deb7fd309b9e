# SPDX-License-Identifier: MIT
"""The command against `pyvnet serve`, which takes one front-end at a time, as most back-ends do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.daemon.serving import Serving, run

if TYPE_CHECKING:
    from pathlib import Path

GROUPS = "initialization,config_space,vhost_user,reconnect,announce"


def test_a_served_device_passes_what_takes_no_wire(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with Serving("--socket-path", path, "--port", "null", "--queues", "2"):
        done = run(
            "conformance", f"vhost-user:{path}", "--only", GROUPS, "--timeout", "20", "--json"
        )
    report = json.loads(done.stdout)
    wrong = [
        (case["name"], case["verdict"], case["reason"])
        for case in report["cases"]
        if case["verdict"] in {"failed", "inconclusive"}
    ]
    assert (done.returncode, wrong) == (0, [])
    assert report["summary"]["passed"] > 30
