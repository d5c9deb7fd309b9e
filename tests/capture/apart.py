# SPDX-License-Identifier: MIT
"""Captures seen by others: tshark, and python-pcapng for what tshark ignores."""

from __future__ import annotations

import subprocess
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pcapng import FileScanner
from pcapng.blocks import EnhancedPacket, InterfaceDescription, InterfaceStatistics

if TYPE_CHECKING:
    from pathlib import Path

TOEPLITZ = 5  # in the list of hash algorithms of the format's specification


def tshark(path: Path, *fields: str) -> list[list[str]]:
    """What tshark shows of each frame; several values of a field are joined with a comma."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=\x1f"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [line.split("\x1f") for line in done.stdout.splitlines()]


@dataclass(frozen=True)
class Seen:
    """A file by python-pcapng: interface names, frames' options, counts by interface name."""

    names: list[str]
    frames: list[tuple[str, bytes, dict[str, list[Any]]]]
    counts: dict[str, dict[str, int]]

    def hashes(self) -> list[int | None]:
        """Each frame's Toeplitz hash; the format keeps it in the byte order of the file."""
        told = (options.get("epb_hash", [None])[0] for _, _, options in self.frames)
        return [
            int.from_bytes(pair[1], "little") if pair and pair[0] == TOEPLITZ else None
            for pair in told
        ]


def _options(block: Any) -> dict[str, list[Any]]:
    return {name: block.options.get_all(name) for name in block.options}


def seen(path: Path) -> Seen:
    """Read a whole file; every error of the reader fails the test."""
    names: list[str] = []
    frames, counts = [], {}
    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it warns of its own tables
        for block in FileScanner(stream):
            if isinstance(block, InterfaceDescription):
                names.append(block.options["if_name"])
            elif isinstance(block, EnhancedPacket):
                frames.append((names[block.interface_id], block.packet_data, _options(block)))
            elif isinstance(block, InterfaceStatistics):
                counts[names[block.interface_id]] = {
                    name: block.options[name] for name in block.options
                }
    return Seen(names, frames, counts)
