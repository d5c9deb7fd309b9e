# SPDX-License-Identifier: MIT
"""What stays of a test for whoever looks into its failure: `--vnet-keep`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from pyvnet.testing.script import Vnet

_SCRIPTS = pytest.StashKey[list["Vnet"]]()


def watch(item: Any, script: Vnet) -> None:
    """Keep of this script what `--vnet-keep` says, when the item's test is over."""
    item.stash.setdefault(_SCRIPTS, []).append(script)


def after_call(item: pytest.Item, report: pytest.TestReport) -> None:
    """Write files and name them in the report; the devices are still open."""
    scripts = item.stash.get(_SCRIPTS, [])
    wanted = item.config.getoption("--vnet-keep")
    if not scripts or report.when != "call" or wanted == "never":
        return
    if wanted == "failed" and not report.failed:
        return
    folder = _folder(item)
    lines = []
    for number, script in enumerate(scripts):
        stem = "vnet" if not number else f"vnet{number}"
        lines += [str(path) for path in _write(script, folder, stem)]
    report.sections.append(("vnet: kept", "\n".join(lines)))


def _folder(item: Any) -> Path:
    """The test's tmp_path if it uses it, else one of the same kind."""
    used: Path | None = item.funcargs.get("tmp_path")
    if used is not None:
        return used
    name = "".join(c if c.isalnum() else "_" for c in item.name)[:30]
    made: Path = item._request.getfixturevalue("tmp_path_factory").mktemp(name)  # noqa: SLF001
    return made


def _write(script: Vnet, folder: Path, stem: str) -> list[Path]:
    counters = folder / f"{stem}-counters.json"
    document: dict[str, Any] = {"moved": script.counters()}
    if script.device is not None:
        document["device"] = script.device.status()
    counters.write_text(json.dumps(document, indent=1))
    return [counters]
