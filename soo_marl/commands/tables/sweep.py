"""What ``soo-marl sweep`` shows on the terminal: the points, best first, and what mattered."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Column, Table

from soo_marl.commands.tables.terminal import numbers, say, say_points, show, table
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.findings import NO_VALUE, interval_text, number_text
from soo_marl.studies.sweep.axes import value_text
from soo_marl.studies.sweep.records import AxisRecord, SweepResult

_NARROW = 9
"""Characters of a column, enough for every number and for most words of a heading."""

_MOST_COLUMNS = 4
"""Axes with a column each; where there are more, one column has them all."""

MOST_ROWS = 20
"""Points on the terminal; the results have all."""


def print_sweep(result: SweepResult, directory: StudyDirectory) -> None:
    """The tables of a sweep, and where everything is."""
    if result.points:
        show(points_table(result))
        if len(result.points) > MOST_ROWS:
            say(f"… and {len(result.points) - MOST_ROWS} more in {directory.results / 'sweep.json'}")
        stopped = [f"{point.number} ({point.stopped})" for point in result.points if point.stopped]
        if stopped:
            say(f"Points with agents whose training was stopped, and how many: {', '.join(stopped)}")
        for metric in result.metrics:
            show(axes_table(result, metric))
    if result.unfinished:
        say(f"{result.unfinished} of {len(result.points) + result.unfinished} points are not finished.")
    say_points(f"Point {number} failed: {reason}" for number, reason in result.failed.items())
    say(f"\nFigures: {directory.figures}\nRecords: {directory.results}\nPoints:  {directory.path / 'points'}")


def points_table(result: SweepResult) -> Table:
    """One row per point: the values of the axes, the first metric with its interval, the others without."""
    names = short_names(list(result.points[0].values))
    together = len(names) > _MOST_COLUMNS
    axes = [Column("values", overflow="fold")] if together else map(_narrow, names)
    # An interval in one piece; what is too wide for the terminal is folded elsewhere.
    metrics = [*numbers(_spaced(result.metrics[0])), *map(_narrow, result.metrics[1:])]
    rows = []
    for point in result.points[:MOST_ROWS]:
        first, *others = (point.metrics[metric].mean for metric in result.metrics)
        values = [value_text(value) for value in point.values.values()]
        if together:
            values = [" ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))]
        rows.append([str(point.number), *values, interval_text(first), *(number_text(m.estimate) for m in others)])
    title = f"Points by {result.metrics[0]}, mean over {len(result.seeds)} seeds"
    return table(title, [*numbers("point"), *axes, *metrics], rows)


def axes_table(result: SweepResult, metric: str) -> Table:
    """One row per axis: what it explains of a metric, and where along it the mean is highest."""
    rows = []
    for record in result.axes:
        groups = [group for group in record.groups if group.mean.estimate is not None]
        if record.metric == metric and groups:
            best = max(groups, key=lambda group: group.mean.estimate or 0.0)
            # Where nothing is shown, the highest mean would only be luck.
            place = (best.label, number_text(best.mean.estimate)) if record.matters else ("", "")
            p_text = NO_VALUE if record.p_value is None else f"{record.p_value:.2g}"
            rows.append([record.field, number_text(record.share), p_text, _told(record), *place])
    fields, places = Column("axis", overflow="fold"), Column("highest at", overflow="fold")
    columns = [fields, *numbers("share", "p"), Column("matters", min_width=9), places, *numbers("mean")]
    return table(f"What mattered for {metric}, each axis alone", columns, rows)


def short_names(fields: Sequence[str]) -> list[str]:
    """The shortest end of each dotted name that no other one shares."""
    names = []
    for field in fields:
        parts = field.split(".")
        ends = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
        alone = (end for end in ends if sum(f".{other}".endswith(f".{end}") for other in fields) == 1)
        names.append(next(alone, field))
    return names


def _told(record: AxisRecord) -> str:
    if record.p_value is None:
        return "too few runs"
    return "yes" if record.matters else "not shown"


def _narrow(name: str) -> Column:
    return Column(_spaced(name), justify="right", overflow="fold", max_width=_NARROW)


def _spaced(name: str) -> str:
    return name.replace("_", " ").replace("/", " ")
