# SPDX-License-Identifier: MIT
"""``pyvnet bench``: how fast, side by side with the peers that are installed.

The benchmark is programs, scripts and other people's daemons, so it lives in the
``bench`` folder of a source checkout and not in the package.  Exit status: 0,
however fast or slow; 1 a variant of pyvnet could not be measured, or there is
no benchmark here; 2 wrong usage.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pyvnet
from pyvnet.errors import HostError

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command and its options."""
    parser = subparsers.add_parser(
        "bench",
        help="how fast, side by side with the peers that are installed",
        description="Measure pyvnet and the peers that are installed, in turns (a source checkout "
        "has it; `make bench` installs the peers first).",
    )
    parser.add_argument("--rows", metavar="LIST", help="only these questions, such as 1,3,5-7")
    parser.add_argument("--list", action="store_true", help="list the questions and leave")
    parser.add_argument("--quick", action="store_true", help="short measurements, three rounds")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds of each question")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures into FILE")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE.json",
        help="keep the run, or with --rows these of it, and write FILE.md and FILE.svg from it",
    )
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="FILE.json",
        help="measure nothing: take a recorded run, for --plot and --json",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Measure and report; returns the exit status."""
    root = Path(pyvnet.__file__).resolve().parents[2]
    if not (root / "bench/lib/main.py").exists():
        raise HostError(
            "the benchmark is not part of the installed package",
            cure="run `make bench` in a source checkout of pyvnet",
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return int(import_module("bench.lib.main").run(args))
