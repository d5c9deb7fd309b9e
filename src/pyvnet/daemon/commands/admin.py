# SPDX-License-Identifier: MIT
"""``pyvnet admin PATH COMMAND…``: have a running service do something.

Exit status: 0 done; 1 nobody answers; 2 the service does not know the command
or the device.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pyvnet.daemon.admin import COMMANDS, NONE, PATHS, parse
from pyvnet.daemon.admin_client import ask

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command and its options."""
    parser = subparsers.add_parser(
        "admin",
        help="have a running device do something",
        description="Send one command to a running service: " + "; ".join(COMMANDS.values()) + ".",
    )
    parser.add_argument("path", metavar="PATH", help="the socket of `pyvnet serve --admin`")
    parser.add_argument("words", metavar="COMMAND", nargs="+", help="such as: link down vm1")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Ask, and print the answer; returns the exit status."""
    request = parse(" ".join(args.words).encode())
    for key in PATHS:
        if request.get(key, NONE) != NONE:
            # The service may be in another directory.
            request[key] = str(Path(request[key]).absolute())
    result = ask(args.path, request)
    if args.json:
        print(json.dumps(result))
        return 0
    for key, value in result.items():
        plain = value if isinstance(value, str) else json.dumps(value)
        print(f"{key}: {plain}")
    return 0
