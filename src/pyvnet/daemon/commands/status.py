# SPDX-License-Identifier: MIT
"""``pyvnet status PATH``: what a running service says of its devices.

``--json`` prints the service's answer as it came.  Exit status: 0; 1 nobody
answers; 2 there is no such device.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pyvnet.daemon.admin_client import ask

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_FINDING: Final = {"available", "reason", "cure"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command and its options."""
    parser = subparsers.add_parser(
        "status",
        help="what a running device negotiated, does and counts",
        description="Ask a running `pyvnet serve --admin PATH`.",
    )
    parser.add_argument("path", metavar="PATH", help="its admin socket")
    parser.add_argument("device", metavar="DEVICE", nargs="?", help="this one (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Print the status; returns the exit status."""
    request = {"command": "status"}
    if args.device is not None:
        request["device"] = args.device
    status = ask(args.path, request)
    if args.json:
        print(json.dumps(status))
    else:
        print("\n".join(_lines(status)))
    return 0


def _lines(status: dict[str, Any]) -> Iterator[str]:
    yield f"pyvnet {status['version']}, process {status['pid']}"
    for device in status["devices"]:
        yield ""
        yield from _device(device)


def _device(device: dict[str, Any]) -> Iterator[str]:
    head = f"{device['name']}: {device['state']}"
    yield f"{head} ({device['failure']})" if "failure" in device else head
    for key, value in device.items():
        if key not in {"name", "state", "failure", "counters", "queues"}:
            yield from _tree(key, value, "  ")
    for key, count in device.get("counters", {}).items():
        if count:
            yield f"  {key}: {count}"
    for queue in device.get("queues", []):
        counts = {key: value for key, value in queue.items() if key != "pair" and value}
        shown = ", ".join(f"{key} {value}" for key, value in counts.items()) or "nothing yet"
        yield f"  pair {queue['pair']}: {shown}"


def _tree(key: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict) and value.keys() <= _FINDING:
        yes = value["available"]
        cure = f" → {value['cure']}" if value.get("cure") else ""
        yield f"{indent}{key}: " + ("yes" if yes else f"no: {value['reason']}{cure}")
    elif isinstance(value, dict):
        yield f"{indent}{key}:"
        for inner, leaf in value.items():
            yield from _tree(inner, leaf, indent + "  ")
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield f"{indent}{key}:"
        for item in value:
            text = ", ".join(f"{inner} {_leaf(leaf)}" for inner, leaf in item.items())
            yield f"{indent}  {text}"
    else:
        yield f"{indent}{key}: {_leaf(value)}"


def _leaf(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None or value == "" else str(value)
