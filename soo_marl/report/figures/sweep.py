"""The pictures of a sweep: one panel per axis, with every point, the means along the axis, and whether it mattered."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from soo_marl.report.figures.style import COLOURS, GREY, in_own_style, save_figure
from soo_marl.studies.sweep.axes import Axis, ListedAxis, value_text
from soo_marl.studies.sweep.records import AxisRecord, GroupRecord, PointRecord, SweepResult

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
    columns = min(len(records), 3)
    rows = math.ceil(len(records) / columns)
    figure = Figure(figsize=(3.4 * columns, 3.1 * rows), layout="constrained")
    figure.suptitle(f"What mattered for {metric}", fontsize=11, fontweight="bold")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel, record in zip(panels, records, strict=False):
        axis = by_field[record.field]
        if isinstance(axis, ListedAxis):
            _draw_list(panel, axis, record, result.points)
        else:
            _draw_range(panel, record, result.points)
            panel.set_xscale("log" if axis.search == "log" else "linear")
        panel.set_title(f"{record.field}\n{verdict(record)}", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, axis="y", color="#E5E5E5", linewidth=0.6)
        panel.tick_params(labelsize=8)
    for panel in panels[len(records) :]:
        panel.set_axis_off()
    for row in range(rows):
        panels[row * columns].set_ylabel(metric, fontsize=9)
    return figure


def verdict(record: AxisRecord) -> str:
    """What is known of an axis, in a few words."""
    if record.p_value is None or record.share is None:
        return "too few runs to tell"
    return f"{record.share:.0%} of the variance, p = {record.p_value:.2g}"


def _draw_list(panel: Axes, axis: ListedAxis, record: AxisRecord, points: Sequence[PointRecord]) -> None:
    places = {json.dumps(value): place for place, value in enumerate(axis.values)}
    joined: dict[str, list[tuple[int, float]]] = {}
    for point in points:
        mean = point.metrics[record.metric].mean.estimate
        if mean is not None:
            others = {field: value for field, value in point.values.items() if field != axis.field}
            joined.setdefault(json.dumps(others), []).append((places[json.dumps(point.values[axis.field])], mean))
    for line in joined.values():
        panel.plot(*zip(*sorted(line), strict=True), color=_POINT, marker="o", markersize=4, linewidth=0.6, alpha=0.7)
    labels = {value_text(value): place for place, value in enumerate(axis.values)}
    for group in record.groups:
        _draw_mean(panel, record, group, labels[group.label] - 0.18, labels[group.label] + 0.18)
    panel.set_xticks(range(len(axis.values)), list(labels))
    panel.set_xlim(-0.5, len(axis.values) - 0.5)


def _draw_range(panel: Axes, record: AxisRecord, points: Sequence[PointRecord]) -> None:
    means = [(point.values[record.field], point.metrics[record.metric].mean.estimate) for point in points]
    panel.plot(*zip(*means, strict=True), color=_POINT, marker="o", markersize=4, linestyle="none", alpha=0.7)
    for group in record.groups:
        if group.low is not None and group.high is not None:
            _draw_mean(panel, record, group, group.low, group.high)


def _draw_mean(panel: Axes, record: AxisRecord, group: GroupRecord, start: float, end: float) -> None:
    """A bar from start to end at the group's mean, and its interval as a band."""
    colour = _MATTERS if record.matters else GREY
    mean = group.mean
    if mean.estimate is None:
        return
    panel.plot([start, end], [mean.estimate] * 2, color=colour, linewidth=2.5, solid_capstyle="butt", zorder=3)
    if mean.low is not None and mean.high is not None:
        panel.fill_between([start, end], mean.low, mean.high, color=colour, alpha=0.2, linewidth=0)
