"""Figures of a fine-tuning study with a dot per agent; nothing is computed but positions and means.

The shape of a dot says its verdict (:mod:`soo_marl.report.figures.verdict_styles`), its colour its condition's group.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from soo_marl.report.data import in_words
from soo_marl.report.figures.label_placement import place_labels
from soo_marl.report.figures.style import GREY, INK, NothingToDraw, in_own_style, mark, one_panel, scale_axis
from soo_marl.report.figures.verdict_styles import (
    DECEPTIVE,
    GROUPS,
    HONEST,
    OTHERS,
    group_of,
    most_common_word,
    word_style,
    words_that_occur,
)
from soo_marl.studies.finetuning.records import TreatedAgent

Point = tuple[TreatedAgent, float, float]
"""An agent and its place."""


@in_own_style
def trap_rate_against_sensitivity(
    agents: Sequence[TreatedAgent], measure: Literal["sensitivity", "sensitivity_moved"] = "sensitivity"
) -> Figure:
    """Return a dot per agent: how often red ends trapped, against how much blue's action answers to red.

    Honest and blind agents both seldom trap red; they part by their sensitivity. The shape says the verdict, the colour
    the group of conditions; a large mark with a label is the mean of a condition, a shaded region the range of all
    honest or all deceptive baselines. Agents measured after further training are left out.

    Raises:
        NothingToDraw: no agent has both numbers.
    """
    points = _points(agents, lambda agent: getattr(agent, measure), lambda agent: agent.trap_rate)
    figure, panel = _scatter(points, agents, "Does it still deceive, and does it still see red?")
    _square_root_axis(panel, max(x for _, x, _ in points))
    change = "blanked" if measure == "sensitivity" else "moved"
    panel.set_xlabel(f"sensitivity: mean change of blue's action when red is {change} (square-root axis; 0: blind)")
    panel.set_ylabel("trap rate: share of episodes in which red ends trapped")
    panel.set_ylim(-0.05, 1.05)
    _label_means(panel, points)
    return figure


@in_own_style
def overlap_against_trap_rate(agents: Sequence[TreatedAgent], form: str) -> Figure:
    """Return a dot per agent: its overlap value against how often red ends trapped.

    Marks are those of :func:`trap_rate_against_sensitivity`. The axis of overlap is logarithmic where the values are
    positive and spread widely, and near zero linear where some are zero.

    Raises:
        NothingToDraw: no agent has both numbers.
    """
    points = _points(agents, lambda agent: agent.trap_rate, lambda agent: agent.overlap.get(form))
    figure, panel = _scatter(points, agents, "Self-other overlap and deception")
    scale_axis(panel, [y for _, _, y in points])
    panel.set_xlabel("trap rate: share of episodes in which red ends trapped")
    panel.set_ylabel(f"overlap value, form “{in_words(form)}” (lower = more overlap)")
    panel.set_xlim(-0.05, 1.05)
    _label_means(panel, points)
    return figure


def _points(
    agents: Sequence[TreatedAgent],
    horizontal: Callable[[TreatedAgent], float | None],
    vertical: Callable[[TreatedAgent], float | None],
) -> list[Point]:
    """The agents that have both numbers, right after their treatment."""
    places = [(agent, horizontal(agent), vertical(agent)) for agent in agents if not agent.after]
    points = [(agent, x, y) for agent, x, y in places if x is not None and y is not None]
    if not points:
        raise NothingToDraw("there are no agents with both numbers to draw")
    return points


def _scatter(points: Sequence[Point], agents: Sequence[TreatedAgent], title: str) -> tuple[Figure, Axes]:
    """A panel with a dot per agent, a large mark per condition, the baselines' ranges, and the legend beside it."""
    figure, panel = one_panel(10.5, 6.6, title)
    panel.grid()
    for agent, x, y in points:
        _dot(panel, x, y, agent.verdict, agent.condition, markersize=5, markeredgewidth=0.3, alpha=0.6, zorder=3)
    for name, (x, y) in _means(points).items():
        members = [point for point in points if point[0].condition == name]
        verdict = most_common_word(agent for agent, _, _ in members)
        # What the others are held against is never hidden by them.
        baseline = name in (HONEST, DECEPTIVE)
        _dot(panel, x, y, verdict, name, markersize=10, zorder=5 if baseline else 4)
        if baseline:
            _region(panel, np.asarray([(x, y) for _, x, y in members]), group_of(name).colour)
    missing = sum(not agent.after for agent in agents) - len(points)
    _legend_beside(figure, [agent for agent, _, _ in points], missing)
    return figure, panel


def _dot(panel: Axes, x: float, y: float, verdict: str | None, condition: str, **style: Any) -> None:
    marker, colour = word_style(verdict).marker, group_of(condition).colour
    panel.plot(x, y, marker=marker, color=colour, markeredgecolor=INK, **style)


def _means(points: Sequence[Point]) -> dict[str, tuple[float, float]]:
    """By condition the mean of its agents."""
    members: dict[str, list[tuple[float, float]]] = {}
    for agent, x, y in points:
        members.setdefault(agent.condition, []).append((x, y))
    return {
        name: (statistics.fmean(x for x, _ in group), statistics.fmean(y for _, y in group))
        for name, group in members.items()
    }


def _label_means(panel: Axes, points: Sequence[Point]) -> None:
    """Call when the axes are as they shall be."""
    means = _means(points)
    place_labels(panel, list(means.values()), [in_words(name) for name in means], [(x, y) for _, x, y in points])


def _region(panel: Axes, points: NDArray[np.float64], colour: str) -> None:
    """The range of a baseline's agents."""
    corner = points.min(axis=0)
    width, height = points.max(axis=0) - corner
    looks: list[dict[str, Any]] = [
        {"facecolor": colour, "edgecolor": "none", "alpha": 0.12},
        {"facecolor": "none", "edgecolor": colour, "alpha": 0.9},
    ]
    for look in looks:
        panel.add_patch(Rectangle((corner[0], corner[1]), width, height, linestyle="--", zorder=1, **look))


def _square_root_axis(panel: Axes, largest: float) -> None:
    """A horizontal axis for numbers from 0 that gives room to the small ones."""

    def root(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sign(values) * np.sqrt(np.abs(values))

    def square(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sign(values) * np.square(values)

    panel.set_xscale("function", functions=(root, square))
    ticks = [tick for tick in (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.5, 2, 2.5) if tick <= 1.1 * largest]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    margin = 0.05 * max(largest, 1e-3) ** 0.5
    panel.set_xlim(-(margin**2), (max(largest, 1e-3) ** 0.5 + margin) ** 2)


def _legend_beside(figure: Figure, agents: Sequence[TreatedAgent], missing: int) -> None:
    groups = {group_of(agent.condition) for agent in agents}
    handles: list[Line2D | Patch] = [_heading("verdict (shape)")]
    handles += [mark(word_style(name).marker, "#6E6E6E", name) for name in words_that_occur(a.verdict for a in agents)]
    handles += [_heading(""), _heading("condition (colour)")]
    handles += [mark("o", group.colour, group.name, edge=INK) for group in (*GROUPS, OTHERS) if group in groups]
    handles += [
        _heading(""),
        Patch(facecolor="#EFEFEF", edgecolor=GREY, linestyle="--", label="range of a baseline's agents"),
        mark("o", "white", "large: mean of a condition", edge=INK),
    ]
    if missing:
        handles.append(_heading(f"{missing} agents were not measured"))
    legend = figure.legend(handles=handles, loc="outside right upper")
    for text in legend.get_texts():
        if text.get_text().endswith(("(shape)", "(colour)")):
            text.set_fontweight("bold")


def _heading(label: str) -> Line2D:
    return Line2D([], [], linestyle="", label=label)
