# SPDX-License-Identifier: MIT
"""Bars of frames per receive queue, drawn with matplotlib, which is optional."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyvnet.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def require_matplotlib() -> Any:
    """The module ``matplotlib.figure``; raises HostError where it is not installed.

    To be called before the work whose result is to be drawn.
    """
    try:
        return import_module("matplotlib.figure")
    except ImportError as error:
        cure = "install it: pip install pyvnet[plot]"
        raise HostError(f"--plot needs matplotlib ({error})", cure=cure) from error


def plot_queues(path: Path, series: Mapping[str, Mapping[int, int]]) -> None:
    """Write a bar chart to ``path``, in the format its suffix names.

    ``series`` maps a label to frames per queue; the bars of all labels stand
    side by side.  Raises HostError when matplotlib is missing or the file
    cannot be written.
    """
    figure = require_matplotlib().Figure(layout="constrained")
    axes = figure.subplots()
    queues = sorted({queue for counts in series.values() for queue in counts})
    width = 0.8 / len(series)
    for position, (label, counts) in enumerate(series.items()):
        shift = (position - (len(series) - 1) / 2) * width
        places = [place + shift for place in range(len(queues))]
        axes.bar(places, [counts.get(queue, 0) for queue in queues], width, label=label)
    axes.set_xticks(range(len(queues)), [str(queue) for queue in queues])
    axes.set_xlabel("receive queue")
    axes.set_ylabel("frames")
    axes.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        cure = "choose another file or format"
        raise HostError(f"cannot write the plot {path}: {error}", cure=cure) from error
