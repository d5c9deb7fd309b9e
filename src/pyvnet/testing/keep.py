# SPDX-License-Identifier: MIT
"""What stays of a test for whoever looks into its failure: `--vnet-keep`."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from pyvnet.errors import PyvnetError
from pyvnet.spec.net_hdr import NetHdr
from pyvnet.testing.plugin import FACTORY, SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

    from pyvnet.runtime import Device
    from pyvnet.testing.lines import History, Seen
    from pyvnet.testing.rig import DeviceFactory
    from pyvnet.testing.script import Vnet
    from pyvnet.testing.steering import Steering


def after_call(item: pytest.Item, report: pytest.TestReport) -> None:
    """Write files and name them in the report; the devices are still open."""
    wanted = item.config.getoption("--vnet-keep")
    if wanted == "never" or (wanted == "failed" and not report.failed):
        return
    folder = _folder(item)
    lines = []
    for what in _kept(item):
        try:
            paths = [str(path) for path in what(folder)]
            lines += paths
            item.user_properties += [("vnet_kept", path) for path in paths]  # for JUnit XML
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


def _kept(item: pytest.Item) -> Iterator[Callable[[Path], Iterator[Path]]]:
    """What can be written: of each script its frames, of each device its counters."""
    scripts: list[Vnet] = item.stash.get(SCRIPTS, [])
    told = [script.device for script in scripts]
    for number, script in enumerate(scripts):
        yield partial(_script, script, f"vnet{number or ''}")
    factory: DeviceFactory | None = item.stash.get(FACTORY, None)
    others = [] if factory is None else [dev for dev in factory.devices if dev not in told]
    for number, device in enumerate(others):
        yield partial(_device, device, f"device{number or ''}")


def _script(script: Vnet, stem: str, folder: Path) -> Iterator[Path]:
    """The frames as a capture; counters that moved, and the state of the device."""
    frames = folder / f"{stem}.pcapng"
    _capture(script.history, frames)
    yield frames
    yield _document(folder / f"{stem}-counters.json", script.device, moved=script.counters())


def _device(device: Device, stem: str, folder: Path) -> Iterator[Path]:
    yield _document(folder / f"{stem}-counters.json", device)


def _document(path: Path, device: Device | None, **more: Any) -> Path:
    state = {} if device is None else {"device": device.status()}
    path.write_text(json.dumps(more | state, indent=1))
    return path


def _capture(history: History, path: Path) -> None:
    """An interface for each queue and direction, as the driver and as the wire saw them."""
    from pyvnet import capture

    names = {"injected": "wire:in", "out": "wire:out", "received": "vnet:rx", "sent": "vnet:tx"}
    with capture.Writer(path) as writer:
        for seen in history:
            inbound = seen.way in {"injected", "received"}
            flags = capture.PacketFlag.INBOUND if inbound else capture.PacketFlag.OUTBOUND
            if isinstance(seen.header, NetHdr):
                flags |= capture.header_flags(seen.header.flags, seen.header.gso_type)
            if seen.steering is not None:
                writer.steering(_told(seen.steering))
            writer.add(
                f"{names[seen.way]}{seen.queue}",
                seen.data,
                timestamp_ns=seen.at,
                flags=flags,
                **_learned(seen),
            )


def _told(steering: Steering) -> Any:
    from pyvnet import capture

    table = steering.table if steering.rss else ()
    types = int(steering.hash_types)
    return capture.Steering(types, steering.key, table, steering.unclassified_queue)


def _learned(seen: Seen) -> dict[str, Any]:
    """What the driver learned of a frame, or said; queues of the wire are in names only."""
    if seen.way not in {"received", "sent"}:
        return {"comment": ""}
    if seen.steering is None or not seen.steering.hash_types:
        return {"queue": seen.queue}
    value = getattr(seen.header, "hash_value", None)
    report = getattr(seen.header, "hash_report", None)
    return {"queue": seen.queue, "hash_value": value, "hash_report": report}
