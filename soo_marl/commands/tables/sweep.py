"""What ``soo-marl sweep`` shows on the terminal: the points, best first, and what mattered."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from soo_marl.commands.tables.terminal import add_row, new_table, say, show
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.findings import NO_VALUE, interval_text, number_text
from soo_marl.studies.sweep.axes import value_text
from soo_marl.studies.sweep.records import SweepResult

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
    for number, reason in result.failed.items():
        say(f"• Point {number} failed: {reason}", wrap=True)
    say(f"\nFigures: {directory.figures}\nRecords: {directory.results}\nPoints:  {directory.path / 'points'}")


def points_table(result: SweepResult) -> Table:
    """One row per point: the values of the axes, the first metric with its interval, the others without."""
    table = new_table(f"Points by {result.metrics[0]}, mean over {len(result.seeds)} seeds")
    names = short_names(list(result.points[0].values))
    many = len(names) > _MOST_COLUMNS
    table.add_column("point", justify="right", no_wrap=True)
    if many:
        table.add_column("values", overflow="fold")
    # An interval in one piece; what is too wide for the terminal is folded elsewhere.
    for name in [*([] if many else names), *result.metrics]:
        whole = name == result.metrics[0]
        width = None if whole else _NARROW
        heading = name.replace("_", " ").replace("/", " ")
        table.add_column(heading, justify="right", no_wrap=whole, overflow="fold", max_width=width)
    for point in result.points[:MOST_ROWS]:
        first, *others = (point.metrics[metric].mean for metric in result.metrics)
        values = [value_text(value) for value in point.values.values()]
        if many:
            values = [" ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))]
        add_row(
            table, str(point.number), *values, interval_text(first), *(number_text(mean.estimate) for mean in others)
        )
    return table


def axes_table(result: SweepResult, metric: str) -> Table:
    """One row per axis: what it explains of a metric, and where along it the mean is highest."""
    table = new_table(f"What mattered for {metric}, each axis alone")
    table.add_column("axis", overflow="fold")
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("matters", min_width=9)
    table.add_column("highest at", overflow="fold")
    table.add_column("mean", justify="right", no_wrap=True)
    for record in result.axes:
        groups = [group for group in record.groups if group.mean.estimate is not None]
        if record.metric == metric and groups:
            best = max(groups, key=lambda group: group.mean.estimate or 0.0)
            # Where nothing is shown, the highest mean would only be luck.
            place = (best.label, number_text(best.mean.estimate)) if record.matters else ("", "")
            told, p_text = "yes" if record.matters else "not shown", f"{record.p_value or 0.0:.2g}"
            if record.p_value is None:
                told, p_text = "too few runs", NO_VALUE
            add_row(table, record.field, number_text(record.share), p_text, told, *place)
    return table


def short_names(fields: Sequence[str]) -> list[str]:
    """The shortest end of each dotted name that no other one shares."""
    names = []
    for field in fields:
        parts = field.split(".")
        ends = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
        alone = (end for end in ends if sum(f".{other}".endswith(f".{end}") for other in fields) == 1)
        names.append(next(alone, field))
    return names
