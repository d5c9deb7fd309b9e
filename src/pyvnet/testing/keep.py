# SPDX-License-Identifier: MIT
"""What stays of a test for whoever looks into its failure: `--vnet-keep`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pyvnet.errors import PyvnetError
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.testing.plugin import SCRIPTS

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from pyvnet.capture import Writer
    from pyvnet.testing.lines import History, Seen
    from pyvnet.testing.script import Vnet


def after_call(item: pytest.Item, report: pytest.TestReport) -> None:
    """Write files and name them in the report; the devices are still open."""
    wanted = item.config.getoption("--vnet-keep")
    if wanted == "never" or (wanted == "failed" and not report.failed):
        return
    folder = _folder(item)
    lines = []
    scripts = item.stash[SCRIPTS]
    for number, script in enumerate(scripts):
        try:
            lines += [str(path) for path in _write(script, folder, f"vnet{number or ''}")]
        except (OSError, PyvnetError) as error:  # what was to be told stays the failure itself
            lines.append(f"not kept: {error}")
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
    """The frames as a capture, and the counters and state of the device."""
    frames, counters = folder / f"{stem}.pcapng", folder / f"{stem}-counters.json"
    _capture(script.history, frames)
    document: dict[str, Any] = {"moved": script.counters()}
    if script.device is not None:
        document["device"] = script.device.status()
    counters.write_text(json.dumps(document, indent=1))
    return [frames, counters]


def _capture(history: History, path: Path) -> None:
    """An interface for each queue and direction, as the driver and as the wire saw them."""
    from pyvnet import capture

    names = {"injected": "wire:in", "out": "wire:out", "received": "vnet:rx", "sent": "vnet:tx"}
    with capture.Writer(path) as writer:
        for seen in history:
            inbound = seen.way in {"injected", "received"}
            flags = capture.PacketFlag.INBOUND if inbound else capture.PacketFlag.OUTBOUND
            told: dict[str, Any] = {"comment": ""}
            if isinstance(seen.header, NetHdr):
                flags |= capture.header_flags(seen.header.flags, seen.header.gso_type)
            if seen.way == "received":
                told = _received(seen, writer)
            writer.add(
                f"{names[seen.way]}{seen.queue}",
                seen.data,
                timestamp_ns=seen.at,
                queue=seen.queue,
                flags=flags,
                **told,
            )


def _received(seen: Seen, writer: Writer) -> dict[str, Any]:
    """What the driver learned of a frame; the steering that decided it goes in front."""
    from pyvnet import capture

    if not isinstance(seen.header, NetHdr) or seen.steering is None:
        return {}
    now = seen.steering
    table = now.table if now.rss else ()
    writer.steering(capture.Steering(int(now.hash_types), now.key, table, now.unclassified_queue))
    if not now.hash_types:
        return {}
    return {"hash_value": seen.header.hash_value, "hash_report": seen.header.hash_report}
