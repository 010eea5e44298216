"""The pictures of a sweep: one panel per axis, with every point, the means along the axis, and whether it mattered."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from soo_marl.report.figures.style import COLOURS, GREY, in_own_style, save_figure, several_panels
from soo_marl.studies.sweep.axes import Axis, ListedAxis, value_text
from soo_marl.studies.sweep.records import AxisRecord, PointRecord, SweepResult

_POINT, _MATTERS = "#8C8C8C", COLOURS[0]


def draw_sweep(study_directory: Path, result: SweepResult, axes: Sequence[Axis]) -> list[Path]:
    """Draw ``figures/what_mattered_<metric>`` for every metric that some point has; returns the PNGs' paths.

    Raises:
        RunDirectoryError: a figure cannot be written.
    """
    paths = []
    for metric in result.metrics:
        if any(point.metrics[metric].mean.estimate is not None for point in result.points):
            name = f"what_mattered_{re.sub('[^a-z]+', '_', metric)}"
            paths.append(save_figure(what_mattered(result, axes, metric), study_directory / "figures" / name))
    return paths


@in_own_style
def what_mattered(result: SweepResult, axes: Sequence[Axis], metric: str) -> Figure:
    """Return one panel per axis, the axis that mattered most first.

    A dot is a point (its mean over seeds). Along a list of values, thin lines join points that differ in nothing else.
    The bars are means of groups with their 95 % intervals, blue where the axis mattered and grey where that is not
    shown.
    """
    records = [record for record in result.axes if record.metric == metric]
    by_field = {axis.field: axis for axis in axes}
    columns = 3
    figure, panels = several_panels(len(records), 3.4, 3.1, f"What mattered for {metric}", columns=columns, sharey=True)
    for panel, record in zip(panels, records, strict=True):
        _draw_axis(panel, by_field[record.field], record, result.points)
        panel.set_title(f"{record.field}\n{verdict(record)}", fontsize=9)
        panel.grid(axis="y")
    for panel in panels[::columns]:
        panel.set_ylabel(metric)
    return figure


def verdict(record: AxisRecord) -> str:
    """What is known of an axis, in a few words."""
    if record.p_value is None or record.share is None:
        return "too few runs to tell"
    return f"{record.share:.0%} of the variance, p = {record.p_value:.2g}"


def _draw_axis(panel: Axes, axis: Axis, record: AxisRecord, points: Sequence[PointRecord]) -> None:
    values = axis.values if isinstance(axis, ListedAxis) else ()
    places, labels = [json.dumps(value) for value in values], [value_text(value) for value in values]
    lines: dict[str, list[tuple[Any, float]]] = {}
    for point in points:
        value, mean = point.values[axis.field], point.metrics[record.metric].mean.estimate
        if mean is not None:
            place = places.index(json.dumps(value)) if values else value
            others = json.dumps(point.values | {axis.field: None}) if values else ""
            lines.setdefault(others, []).append((place, mean))
    style = "-" if values else "none"
    for line in lines.values():
        x, y = zip(*sorted(line), strict=True)
        panel.plot(x, y, color=_POINT, marker="o", markersize=4, linestyle=style, linewidth=0.6, alpha=0.7)
    colour = _MATTERS if record.matters else GREY
    for group in record.groups:
        place = labels.index(group.label) if values else 0
        ends: list[Any] = [place - 0.18, place + 0.18] if values else [group.low, group.high]
        mean, low, high = group.mean.estimate, group.mean.low, group.mean.high
        if mean is not None:
            panel.plot(ends, [mean, mean], color=colour, linewidth=2.5, solid_capstyle="butt", zorder=3)
        if low is not None and high is not None:
            panel.fill_between(ends, low, high, color=colour, alpha=0.2, linewidth=0)
    if values:
        panel.set_xticks(range(len(labels)), labels)
        panel.set_xlim(-0.5, len(labels) - 0.5)
    elif axis.search == "log":
        panel.set_xscale("log")
