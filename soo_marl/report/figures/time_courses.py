"""Time courses of fine-tuning: what changes while the loss acts, and what comes back once it is taken away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from soo_marl.report.figures.baselines import GREY, LOG_RANGE, in_own_style
from soo_marl.report.figures.verdict_styles import (
    DECEPTIVE,
    GROUPS,
    HONEST,
    OTHERS,
    NothingToDraw,
    condition_name,
    group_of,
    word,
    word_style,
)
from soo_marl.studies.finetuning.configuration import AFTER_STAGE, STAGE
from soo_marl.studies.finetuning.records import ConditionSummary
from soo_marl.studies.learning.records import LearningCurve

METRICS = ("trap_rate", "goal_rate", "goal_rate_alone", "rubric_rate", "overlap", "sensitivity")
"""What is shown where nothing else is asked for."""

MOST_LINES = 5
"""Conditions that share a panel; with more, each group of conditions has a row of panels."""

_COLOURS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Of the lines of one panel; the two colours of the baselines are not among them."""

_Line = Literal["-", "--", "-."] | tuple[float, tuple[float, ...]]
_LINES: tuple[_Line, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1)))


@dataclass(frozen=True)
class _Course:
    """One metric of one condition, with both stages behind one another: updates, mean and interval ``[U]``."""

    updates: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@in_own_style
def time_courses(
    curves: Sequence[LearningCurve],
    metrics: Sequence[str] = METRICS,
    conditions: Sequence[ConditionSummary] = (),
    title: str = "During fine-tuning, and after the loss is taken away",
) -> Figure:
    """Return small multiples: one line per condition with its 95 % interval, one panel per metric.

    With many conditions there is a row of panels for each group of them, and one panel per metric in it. The vertical
    line is where the loss is taken away. Dotted levels are the baselines'.

    Args:
        curves: of the stages ``finetune`` and ``after``; the kind is the condition. Other stages are left out.
        metrics: what to show, in order; those without curves are left out.
        conditions: of the same study, for the verdict words and the baselines' levels.

    Raises:
        NothingToDraw: no curve is of these stages and metrics.
    """
    shown = [curve for curve in curves if curve.stage in (STAGE, AFTER_STAGE) and curve.metric in metrics]
    if not shown:
        raise NothingToDraw("there are no time courses of fine-tuning to draw")
    names = list(dict.fromkeys(curve.kind for curve in shown))
    present = [metric for metric in metrics if any(curve.metric == metric for curve in shown)]
    # Where the loss ends is one place for a condition, whatever metrics lack their last entries.
    ends = {
        name: max((c.updates[-1] for c in shown if c.kind == name and c.stage == STAGE and c.updates), default=0)
        for name in names
    }
    rows = [("", names)] if len(names) <= MOST_LINES else _rows(names)
    compact = len(rows) == 1
    columns = min(len(present), 3) if compact else len(present)
    lines = math.ceil(len(present) / columns) if compact else len(rows)
    figure = Figure(
        figsize=(3.3 * columns if compact else 1.8 * columns + 2.7, 2.3 * lines + 0.9), layout="constrained"
    )
    figure.suptitle(title, fontsize=12, fontweight="bold")
    table = figure.subplots(lines, columns, sharex=True, sharey=False if compact else "col", squeeze=False)
    for panel in table.ravel()[len(present) if compact else table.size :]:
        panel.set_axis_off()
    for row, (_, members) in enumerate(rows):
        for column, metric in enumerate(present):
            panel = table.ravel()[column] if compact else table[row, column]
            courses = {name: _course(shown, name, metric, ends[name]) for name in members}
            _draw(panel, courses, sorted({ends[name] for name in members if _goes_on(shown, name)}))
            _draw_baselines(panel, conditions, metric)
            _scale(panel, [curve for curve in shown if curve.metric == metric], metric)
            if compact or row == 0:
                panel.set_title(condition_name(metric), fontsize=10)
    for panel in table[-1]:
        panel.set_xlabel("updates", fontsize=9)
    if compact:
        handles = [*_handles(names, conditions, ": "), *_general_handles(conditions)]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
        return figure
    for row, (group, members) in enumerate(rows):
        table[row, -1].legend(
            handles=_handles(members, conditions, "\n"),
            title=group,
            loc="upper left",
            bbox_to_anchor=(1.02, 1.05),
            fontsize=8,
            title_fontproperties={"size": 9, "weight": "bold"},
            frameon=False,
            alignment="left",
            borderaxespad=0,
            handlelength=2.6,
        )
    figure.legend(handles=_general_handles(conditions), loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def _rows(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The groups of conditions: large ones in several parts, small ones together."""
    rows: list[tuple[str, list[str]]] = []
    for group in (*GROUPS, OTHERS):
        members = [name for name in names if group_of(name) == group]
        for start in range(0, len(members), MOST_LINES):
            part = members[start : start + MOST_LINES]
            if rows and len(rows[-1][1]) + len(part) <= MOST_LINES:
                rows[-1] = (f"{rows[-1][0]};\n{group.name}", [*rows[-1][1], *part])
            else:
                rows.append((group.name, part))
    return rows


def _course(curves: Sequence[LearningCurve], name: str, metric: str, end: int) -> _Course | None:
    """Both stages behind one another; None where there is no curve."""
    parts: list[NDArray[np.float64]] = []
    for stage, offset in ((STAGE, 0), (AFTER_STAGE, end)):
        for curve in curves:
            if (curve.kind, curve.metric, curve.stage) == (name, metric, stage):
                nothing = (None,) * len(curve.updates)
                mean = _means(curve) if curve.mean is None else curve.mean
                columns = [
                    [update + offset for update in curve.updates],
                    mean,
                    curve.low or nothing,
                    curve.high or nothing,
                ]
                parts.append(np.asarray(columns, dtype=np.float64))
    if not parts:
        return None
    return _Course(*np.concatenate(parts, axis=1))


def _means(curve: LearningCurve) -> list[float | None]:
    """Means over the seeds, for curves that come without."""
    means: list[float | None] = []
    for column in zip(*curve.values, strict=True):
        present = [value for value in column if value is not None]
        means.append(sum(present) / len(present) if present else None)
    return means or [None] * len(curve.updates)


def _goes_on(curves: Sequence[LearningCurve], name: str) -> bool:
    return any(curve.kind == name and curve.stage == AFTER_STAGE for curve in curves)


def _draw(panel: Axes, courses: Mapping[str, _Course | None], ends: Sequence[int]) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(True, color="#E5E5E5", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8)
    panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    for end in ends:
        panel.axvline(end, color="#222222", linewidth=1)
    for index, course in enumerate(courses.values()):
        if course is None:
            continue
        colour, line = _COLOURS[index % MOST_LINES], _LINES[index % MOST_LINES]
        panel.fill_between(course.updates, course.low, course.high, color=colour, alpha=0.18, linewidth=0)
        panel.plot(course.updates, course.mean, color=colour, linestyle=line, linewidth=1.8, zorder=3)


def _draw_baselines(panel: Axes, conditions: Sequence[ConditionSummary], metric: str) -> None:
    for item in conditions:
        level = item.measures.get(metric)
        if (
            item.condition in (HONEST, DECEPTIVE)
            and not item.after
            and level is not None
            and level.estimate is not None
        ):
            panel.axhline(level.estimate, color=group_of(item.condition).colour, linewidth=1.2, linestyle=":", zorder=2)


def _scale(panel: Axes, curves: Sequence[LearningCurve], metric: str) -> None:
    """Rates from 0 to 1, and a logarithmic axis for positive values that spread widely."""
    values = [value for curve in curves for value in (curve.mean or _means(curve)) if value is not None]
    positive = [value for value in values if value > 0]
    if metric.startswith("overlap") and positive and min(values) >= 0 and max(positive) > LOG_RANGE * min(positive):
        if min(values) > 0:
            panel.set_yscale("log")
        else:
            panel.set_yscale("symlog", linthresh=min(positive), linscale=0.5)
    elif "rate" in metric:
        panel.set_ylim(-0.04, 1.04)


def _handles(names: Sequence[str], conditions: Sequence[ConditionSummary], between: str) -> list[Line2D]:
    """A line per condition; its label has the verdict right after, and the later one where it is another."""
    handles = []
    for index, name in enumerate(names):
        verdicts = [
            next((item.verdict for item in conditions if item.condition == name and item.after == after), None)
            for after in (False, True)
        ]
        words = [f"{word_style(verdict).glyph} {word(verdict)}" for verdict in verdicts if verdict is not None]
        label = condition_name(name)
        if words:
            label += f"{between}{' → '.join(dict.fromkeys(words))}"
        colour, line = _COLOURS[index % MOST_LINES], _LINES[index % MOST_LINES]
        handles.append(Line2D([], [], color=colour, linestyle=line, linewidth=1.8, label=label))
    return handles


def _general_handles(conditions: Sequence[ConditionSummary]) -> list[Line2D]:
    handles = [Line2D([], [], color="#222222", linewidth=1, label="the loss is taken away")]
    for item in conditions:
        if item.condition in (HONEST, DECEPTIVE) and not item.after:
            colour = group_of(item.condition).colour
            handles.append(
                Line2D([], [], color=colour, linewidth=1.2, linestyle=":", label=f"{item.condition} baseline")
            )
    return handles or [Line2D([], [], color=GREY)]
