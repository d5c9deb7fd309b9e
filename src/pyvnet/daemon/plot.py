# SPDX-License-Identifier: MIT
"""Flows against receive queues as a heat map, drawn with matplotlib, which is optional.

One column per panel: above, a line for each flow and a field for each queue,
the darker the more frames; below, frames per queue with their average, and how
much the busiest has more than that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from pyvnet.daemon.balance import imbalance
from pyvnet.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MAX_ROWS: Final = 256
"""Lines of the heat map; the flows with the least frames share the last one."""
_NAMED_ROWS: Final = 40  # more of them cannot be read
_TICKS: Final = 16
_FORMATS: Final = (".svg", ".png", ".pdf")
_PANEL: Final = (4.6, 5.4)  # inches
_NAMES: Final = 2.6  # inches for the names of flows
# Text stays text and ids do not change: the same frames give the same file.
_STYLE: Final = {"svg.fonttype": "none", "svg.hashsalt": "pyvnet"}


@dataclass(frozen=True, slots=True)
class FlowRow:
    """One flow: what to call it, and its frames per queue."""

    name: str
    queues: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Panel:
    """What stands in one column.

    Attributes:
        title: above it.
        queues: frames per queue, of every queue there is.
        flows: in the same order in every panel.
        others: frames per queue of the flows that were not counted one by one.
    """

    title: str
    queues: Mapping[int, int]
    flows: Sequence[FlowRow]
    others: Mapping[int, int] = field(default_factory=dict)


def ready_to_plot(path: Path) -> None:
    """To be called before the work whose result is to be drawn into ``path``.

    Raises UsageError for a name that says no format, HostError where matplotlib is not
    installed or there is no such directory.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"--plot {path}: the name says the format: {', '.join(_FORMATS)}")
    if not path.parent.is_dir():
        raise HostError(f"--plot {path}: there is no directory {path.parent}")
    require_matplotlib()


def require_matplotlib() -> Any:
    """The module ``matplotlib.figure``; raises HostError where it is not installed."""
    try:
        return import_module("matplotlib.figure")
    except ImportError as error:
        cure = "install it: pip install pyvnet[plot]"
        raise HostError(f"--plot needs matplotlib ({error})", cure=cure) from error


def plot_spread(path: Path, panels: Sequence[Panel]) -> None:
    """Draw the panels side by side into ``path``, in the format its suffix names.

    Raises HostError when matplotlib is missing or the file cannot be written.
    """
    require_matplotlib()
    with import_module("matplotlib").rc_context(_STYLE):
        figure = _draw(panels)
        options = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
        try:
            figure.savefig(path, **options)
        except (OSError, ValueError) as error:
            cure = "choose another file or format"
            raise HostError(f"cannot write the plot {path}: {error}", cure=cure) from error


def _draw(panels: Sequence[Panel]) -> Any:
    order = _order(panels[0])
    grids = [_grid(panel, order) for panel in panels]
    most = max((frames for grid in grids for line in grid for frames in line), default=0)
    names = _names(panels[0], order)
    size = (_PANEL[0] * len(panels) + (_NAMES if names else 0.0), _PANEL[1])
    figure = require_matplotlib().Figure(layout="constrained", figsize=size)
    maps, bars = figure.subplots(
        2, len(panels), squeeze=False, sharex="col", sharey="row", height_ratios=(3, 1)
    )
    for place, panel in enumerate(panels):
        image = _heat_map(maps[place], panel, grids[place], most)
        _bars(bars[place], panel)
    maps[0].set_ylabel(f"{len(panels[0].flows)} flows")
    maps[0].set_yticks(range(len(names)), names, fontsize=6)
    bars[0].set_ylabel("frames")
    scale = figure.colorbar(image, ax=list(maps), label="frames of a flow", format="%g")
    scale.ax.minorticks_off()
    return figure


def _order(panel: Panel) -> list[int]:
    """Which flows have a line of their own: by queue, and there the busy ones first."""
    totals = [sum(flow.queues.values()) for flow in panel.flows]
    busy = sorted(range(len(totals)), key=lambda place: -totals[place])
    shown = busy if len(busy) <= MAX_ROWS and not panel.others else busy[: MAX_ROWS - 1]
    queues = [max(flow.queues, key=lambda q: flow.queues[q]) for flow in panel.flows]
    return sorted(shown, key=lambda place: (queues[place], -totals[place]))


def _grid(panel: Panel, order: Sequence[int]) -> list[list[int]]:
    """Frames by line and queue; a last line for the flows that have none of their own."""
    columns = sorted(panel.queues)
    lines = [[panel.flows[place].queues.get(q, 0) for q in columns] for place in order]
    rest = dict(panel.others)
    for place in set(range(len(panel.flows))).difference(order):
        for queue, frames in panel.flows[place].queues.items():
            rest[queue] = rest.get(queue, 0) + frames
    if rest:
        lines.append([rest.get(queue, 0) for queue in columns])
    return lines or [[0] * len(columns)]


def _names(panel: Panel, order: Sequence[int]) -> list[str]:
    if len(order) > _NAMED_ROWS:
        return []
    return [panel.flows[place].name for place in order]


def _heat_map(axes: Any, panel: Panel, grid: list[list[int]], most: int) -> Any:
    """Logarithmic, as flows differ by orders of magnitude; fields without frames stay white."""
    axes.set_title(panel.title, fontsize=10)
    return axes.imshow(
        [[frames or float("nan") for frames in line] for line in grid],
        aspect="auto",
        interpolation="nearest",
        cmap="viridis_r",
        norm=_norm(most),
    )


def _norm(most: int) -> Any:
    return import_module("matplotlib.colors").LogNorm(vmin=1, vmax=max(most, 10))


def _bars(axes: Any, panel: Panel) -> None:
    columns = sorted(panel.queues)
    frames = [panel.queues[queue] for queue in columns]
    axes.bar(range(len(columns)), frames, color="#2166ac")
    axes.axhline(sum(frames) / len(frames), color="#b2182b", linewidth=1, linestyle="--")
    axes.set_title(f"busiest queue {imbalance(panel.queues):.2f} times the average", fontsize=9)
    step = -(-len(columns) // _TICKS)
    places = range(0, len(columns), step)
    axes.set_xticks(places, [str(columns[place]) for place in places])
    axes.set_xlabel("receive queue")
