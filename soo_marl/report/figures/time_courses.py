"""Time courses of fine-tuning: what changes while the loss acts, and what comes back once it is taken away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from soo_marl.report.data import in_words
from soo_marl.report.figures.style import (
    COLOURS,
    INK,
    LINES,
    NothingToDraw,
    in_own_style,
    legend_below,
    mean_of_present,
    new_figure,
    numbers,
    scale_axis,
)
from soo_marl.report.figures.verdict_styles import DECEPTIVE, GROUPS, HONEST, OTHERS, glyph_and_word, group_of
from soo_marl.studies.finetuning.configuration import AFTER_STAGE, STAGE
from soo_marl.studies.finetuning.records import ConditionSummary
from soo_marl.studies.learning.records import LearningCurve

METRICS = ("trap_rate", "goal_rate", "goal_rate_alone", "rubric_rate", "overlap", "sensitivity")
"""What is shown, in this order; what has no curves is left out."""

MOST_LINES = 5
"""Conditions that share a panel; with more, each group of conditions has a row of panels."""

_COLOURS = COLOURS[2:]
"""Of the lines of one panel; the two colours of the baselines are not among them."""

_LINES = (*LINES[:3], LINES[5], LINES[4])
_LEVEL: dict[str, Any] = {"linewidth": 1.2, "linestyle": ":"}


@in_own_style
def time_courses(curves: Sequence[LearningCurve], conditions: Sequence[ConditionSummary] = ()) -> Figure:
    """Return small multiples: one line per condition with its 95 % interval, one panel per metric.

    With many conditions there is a row of panels for each group of them, and one panel per metric in it. The vertical
    line is where the loss is taken away. Dotted levels are the baselines'.

    Args:
        curves: of the stages ``finetune`` and ``after``; the kind is the condition. Other stages are left out.
        conditions: of the same study, for the verdict words and the baselines' levels.

    Raises:
        NothingToDraw: no curve is of these stages and metrics.
    """
    shown = [curve for curve in curves if curve.stage in (STAGE, AFTER_STAGE) and curve.metric in METRICS]
    if not shown:
        raise NothingToDraw("there are no time courses of fine-tuning to draw")
    names = list(dict.fromkeys(curve.kind for curve in shown))
    present = [metric for metric in METRICS if any(curve.metric == metric for curve in shown)]
    # Where the loss ends is one place for a condition, whatever metrics lack their last entries.
    ends = {
        name: max((c.updates[-1] for c in shown if c.kind == name and c.stage == STAGE and c.updates), default=0)
        for name in names
    }
    rows = [("", names)] if len(names) <= MOST_LINES else _rows(names)
    compact = len(rows) == 1
    columns = min(len(present), 3) if compact else len(present)
    lines = math.ceil(len(present) / columns) if compact else len(rows)
    width = 3.3 * columns if compact else 1.8 * columns + 2.7
    figure = new_figure(width, 2.3 * lines + 0.9, "During fine-tuning, and after the loss is taken away")
    table = figure.subplots(lines, columns, sharex=True, sharey=False if compact else "col", squeeze=False)
    for panel in table.ravel()[len(present) if compact else table.size :]:
        panel.set_axis_off()
    for row, (_, members) in enumerate(rows):
        for column, metric in enumerate(present):
            panel = table.ravel()[column] if compact else table[row, column]
            _draw(panel, [curve for curve in shown if curve.metric == metric], members, ends)
            levels = ((item, item.measures.get(metric)) for item in conditions if _is_baseline(item))
            for item, level in levels:
                if level is not None and level.estimate is not None:
                    panel.axhline(level.estimate, color=group_of(item.condition).colour, **_LEVEL, zorder=2)
            if compact or row == 0:
                panel.set_title(in_words(metric))
    for panel in table[-1]:
        panel.set_xlabel("updates")
    general = [Line2D([], [], color=INK, linewidth=1, label="the loss is taken away")]
    for item in filter(_is_baseline, conditions):
        label = f"{item.condition} baseline"
        general.append(Line2D([], [], color=group_of(item.condition).colour, label=label, **_LEVEL))
    if compact:
        legend_below(figure, [*_handles(names, conditions, ": "), *general], most_columns=2)
        return figure
    for row, (group, members) in enumerate(rows):
        table[row, -1].legend(
            handles=_handles(members, conditions, "\n"),
            title=group,
            loc="upper left",
            bbox_to_anchor=(1.02, 1.05),
            fontsize=8,
            title_fontproperties={"size": 9, "weight": "bold"},
            alignment="left",
            borderaxespad=0,
            handlelength=2.6,
        )
    legend_below(figure, general)
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


def _draw(panel: Axes, curves: Sequence[LearningCurve], names: Sequence[str], ends: Mapping[str, int]) -> None:
    """One metric of these conditions, on an axis that suits all of its curves."""
    panel.grid()
    panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    for end in sorted({ends[c.kind] for c in curves if c.kind in names and c.stage == AFTER_STAGE}):
        panel.axvline(end, color=INK, linewidth=1)
    for index, name in enumerate(names):
        stages = [c for stage in (STAGE, AFTER_STAGE) for c in curves if (c.kind, c.stage) == (name, stage)]
        if not stages:
            continue
        # Both stages behind one another.
        x = np.concatenate([numbers(c.updates) + (ends[name] if c.stage == AFTER_STAGE else 0) for c in stages])
        nothing = {c.stage: [None] * len(c.updates) for c in stages}
        low, high = (numbers(v for c in stages for v in getattr(c, end) or nothing[c.stage]) for end in ("low", "high"))
        panel.fill_between(x, low, high, color=_COLOURS[index % MOST_LINES], alpha=0.18, linewidth=0)
        panel.plot(x, np.concatenate([_mean(c) for c in stages]), zorder=3, **_look(index))
    if curves[0].metric.startswith("overlap"):
        means = np.concatenate([_mean(curve) for curve in curves])
        scale_axis(panel, means[np.isfinite(means)].tolist())
    elif "rate" in curves[0].metric:
        panel.set_ylim(-0.04, 1.04)


def _mean(curve: LearningCurve) -> NDArray[np.float64]:
    """Means ``[U]`` over the seeds, also of curves that come without."""
    if curve.mean is not None:
        return numbers(curve.mean)
    return mean_of_present(np.asarray(curve.values, dtype=np.float64).reshape(-1, len(curve.updates)))


def _look(index: int) -> dict[str, Any]:
    """How the line of one condition looks."""
    return {"color": _COLOURS[index % MOST_LINES], "linestyle": _LINES[index % MOST_LINES], "linewidth": 1.8}


def _is_baseline(item: ConditionSummary) -> bool:
    return item.condition in (HONEST, DECEPTIVE) and not item.after


def _handles(names: Sequence[str], conditions: Sequence[ConditionSummary], between: str) -> list[Line2D]:
    """A line per condition; its label has the verdict right after, and the later one where it is another."""
    handles = []
    for index, name in enumerate(names):
        verdicts = [
            next((item.verdict for item in conditions if item.condition == name and item.after == after), None)
            for after in (False, True)
        ]
        words = [glyph_and_word(verdict) for verdict in verdicts if verdict is not None]
        label = in_words(name)
        if words:
            label += f"{between}{' → '.join(dict.fromkeys(words))}"
        handles.append(Line2D([], [], label=label, **_look(index)))
    return handles
