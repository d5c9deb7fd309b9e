# SPDX-License-Identifier: MIT
"""The figures of a run as bars with quartiles: one panel a row, its first figure."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any, Final

from pyvnet.daemon.plot import require_matplotlib
from pyvnet.errors import HostError

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS: Final = 2
_PANEL: Final = (6.2, 2.4)  # inches
_TITLE: Final = 66  # characters that fit above a panel
_OURS, _PEER = "#2166ac", "#b0b0b0"


def require() -> Any:
    """As `require_matplotlib`: to be called before the run whose figures are drawn."""
    return require_matplotlib()


def draw(document: dict[str, Any], path: Path) -> None:
    """Write the plot in the format the suffix names.

    Raises:
        HostError: matplotlib is missing or the file cannot be written.
    """
    rows = [row for row in document["rows"] if any(v["summary"] for v in row["variants"])]
    depth = max(math.ceil(len(rows) / _COLUMNS), 1)
    size = (_PANEL[0] * _COLUMNS, _PANEL[1] * depth)
    figure = require().Figure(layout="constrained", figsize=size)
    panels = figure.subplots(depth, _COLUMNS, squeeze=False).flat
    for panel, row in zip(panels, rows, strict=False):
        _panel(panel, row)
    for panel in list(panels)[len(rows) :]:
        panel.set_axis_off()
    # Without a date the same record gives the same file.
    options = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
    try:
        figure.savefig(path, **options)
    except (OSError, ValueError) as error:
        cure = "choose another file or format"
        raise HostError(f"cannot write the plot {path}: {error}", cure=cure) from error


def _panel(panel: Any, row: dict[str, Any]) -> None:
    figure = row["figures"][0]
    seen = [
        (variant, variant["summary"][figure["name"]])
        for variant in row["variants"]
        if figure["name"] in variant["summary"]
    ]
    medians = [summary["median"] for _, summary in seen]
    # A recorded quartile may lie on the other side of a median by a rounding.
    below = [max(one["median"] - one["quartiles"][0], 0.0) for _, one in seen]
    above = [max(one["quartiles"][1] - one["median"], 0.0) for _, one in seen]
    places = range(len(seen))
    panel.barh(
        places,
        medians,
        xerr=[below, above],
        color=[_OURS if variant["ours"] else _PEER for variant, _ in seen],
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    panel.set_yticks(places, [variant["name"] for variant, _ in seen], fontsize=7)
    panel.invert_yaxis()
    title = textwrap.fill(f"{row['row']}. {row['question']}", _TITLE)
    panel.set_title(title, fontsize=8, loc="left")
    better = "more" if figure["better"] == "more" else "less"
    unit = f"{figure['name'].replace('_', ' ')}, {figure['unit']} ({better} is better)"
    panel.set_xlabel(unit, fontsize=7)
    panel.tick_params(axis="x", labelsize=7)
