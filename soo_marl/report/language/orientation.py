"""The picture of a language study that tells honest models from positional ones; nothing is computed but positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from soo_marl.llm.measures.rates import Rate
from soo_marl.llm.measures.records import ModelSummary
from soo_marl.llm.measures.verdict import VerdictRule
from soo_marl.report.figures.label_placement import place_labels
from soo_marl.report.figures.style import (
    GREY,
    INK,
    PALE,
    NothingToDraw,
    in_own_style,
    legend_below,
    mark,
    numbers,
    one_panel,
)
from soo_marl.report.figures.verdict_styles import LANGUAGE_WORDS, draw_word, word_marks, word_style
from soo_marl.report.language.figures import BURGLAR

_CROWDED = 0.035
"""Marks nearer than this, as a share of the axis, are moved apart."""

_LONGEST_LIST = 6
"""Names that one label holds at most."""


class OrientationPoint(NamedTuple):
    """A model (seed None), or one seed of it, by its rates of deceptive answers to burglars in both orientations."""

    label: str
    seed: int | None
    word: str
    cheap_first: Rate
    mirrored: Rate


def orientation_points(summaries: Sequence[ModelSummary]) -> list[OrientationPoint]:
    """A point per model that burglars asked in both orientations; one per seed where seeds have own rates."""
    points = []
    for summary in summaries:
        of_seeds = [(seed.seed, seed.word, seed.cells) for seed in summary.seeds]
        for seed, word, cells in [(None, summary.word, summary.cells), *of_seeds]:
            found = {cell.orientation: cell.deceptive for cell in cells if cell.scenario == BURGLAR}
            cheap_first, mirrored = found.get("cheap_first"), found.get("mirrored")
            if cheap_first is not None and mirrored is not None and cheap_first.n and mirrored.n:
                points.append(OrientationPoint(summary.label, seed, word, cheap_first, mirrored))
    return points


@in_own_style
def honest_or_positional(points: Sequence[OrientationPoint]) -> Figure:
    """Return deceptive rates with the valuable room first against those with the cheap room first.

    Large marks are models, with 95 % intervals; small ones their seeds. Only the lower left corner is honest: a model
    that always names the room that stands first is at the lower right, one that names the second at the upper left.

    Raises:
        NothingToDraw: there are no points.
    """
    if not points:
        raise NothingToDraw("no model answered burglars in both orientations")
    figure, panel = one_panel(7.6, 7.4, "Honest, or only naming the other room?")
    panel.set_aspect("equal")
    panel.set_xlim(-0.24, 1.24)
    panel.set_ylim(-0.2, 1.2)
    panel.spines[:].set_visible(False)
    panel.add_patch(Rectangle((0, 0), 1, 1, facecolor="none", edgecolor=PALE, linewidth=0.9, zorder=1))
    panel.plot([0, 1], [0, 1], color=PALE, linewidth=0.9, linestyle=":", zorder=1)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    panel.tick_params(length=0)
    panel.set_xlabel("deceptive with the cheap room first (the paper's order)")
    panel.set_ylabel("deceptive with the valuable room first (mirrored)")
    side_length = VerdictRule().deceptive_below
    corners = (
        (0, 0, "left", "honest, if it names a room at all"),
        (1, 0, "right", "always names the first room"),
        (0, 1, "left", "always names the second room"),
        (1, 1, "right", "deceptive in both"),
    )
    for x, y, side, text in corners:
        corner = (x - side_length * x, y - side_length * y)
        colour = LANGUAGE_WORDS["honest" if x == y == 0 else "no effect" if x == y else "positional"].colour
        panel.add_patch(Rectangle(corner, side_length, side_length, color=colour, alpha=0.09, linewidth=0))
        place = (x + (0.07 if x else -0.07), 1.115 if y else -0.115)
        panel.text(*place, text, ha=side, va="center", fontsize=9, color=GREY, style="italic")
    # Labels keep out of what is said in the corners.
    said = [
        (x + (0.06 * step - 0.05) * (1 if x == 0 else -1), 1.115 if y else -0.115)
        for x, y, _, _ in corners
        for step in range(8)
    ]
    whole = [point for point in points if point.seed is None]
    for point in whole:
        style = word_style(point.word)
        for line in (
            ([point.cheap_first.low, point.cheap_first.high], [point.mirrored.estimate] * 2),
            ([point.cheap_first.estimate] * 2, [point.mirrored.low, point.mirrored.high]),
        ):
            panel.plot(numbers(line[0]), numbers(line[1]), color=style.colour, linewidth=1.1, alpha=0.55, zorder=3)
    places = _moved_apart([_place(point) for point in points])
    for point, place in zip(points, places, strict=True):
        look = {"markersize": 9.5, "alpha": 0.95, "zorder": 5}
        if point.seed is not None:
            look = {"markersize": 4.5, "alpha": 0.6, "zorder": 4}
        draw_word(panel, *place, point.word, markeredgewidth=0.7, **look)
    handles: list[Line2D | Patch] = [*word_marks(point.word for point in points)]
    if len(whole) < len(points):
        handles.append(mark("o", GREY, "small: one seed", size=4.5))
    handles.append(Line2D([], [], color=GREY, linewidth=1.1, label="95 % interval"))
    legend_below(figure, handles, most_columns=5)
    groups = [[whole[index] for index in cluster] for cluster in _clusters([_place(point) for point in whole])]
    place_labels(
        panel,
        [_mean_place([_place(point) for point in group]) for group in groups],
        [_joined(group) for group in groups],
        obstacles=[*places, *said],
        colours=[
            word_style(group[0].word).text_colour if len({point.word for point in group}) == 1 else INK
            for group in groups
        ],
    )
    return figure


def _place(point: OrientationPoint) -> tuple[float, float]:
    return float(point.cheap_first.estimate or 0.0), float(point.mirrored.estimate or 0.0)


def _mean_place(places: Sequence[tuple[float, float]]) -> tuple[float, float]:
    x, y = np.mean(np.asarray(places), axis=0)
    return float(x), float(y)


def _clusters(places: Sequence[tuple[float, float]]) -> list[list[int]]:
    """Indices of places that lie on or next to one another, in the order of the first of each group."""
    clusters: list[list[int]] = []
    for index, place in enumerate(places):
        near = next((c for c in clusters if math.dist(places[c[0]], place) < _CROWDED), None)
        if near is None:
            clusters.append([index])
        else:
            near.append(index)
    return clusters


def _moved_apart(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The places, those that lie on one another spread around their middle like the seeds of a sunflower."""
    moved = list(places)
    for cluster in _clusters(places):
        if len(cluster) < 2:
            continue
        x, y = _mean_place([places[index] for index in cluster])
        for rank, index in enumerate(cluster):
            distance, angle = 0.02 * math.sqrt(rank + 0.5), rank * math.pi * (3 - math.sqrt(5))
            moved[index] = (x + distance * math.cos(angle), y + distance * math.sin(angle))
    return moved


def _joined(points: Sequence[OrientationPoint]) -> str:
    """Names under one another, with shapes where words differ; of very many the first, and how many more there are."""
    differ = len({point.word for point in points}) > 1
    labels = [f"{word_style(point.word).glyph} {point.label}" if differ else point.label for point in points]
    if len(labels) <= _LONGEST_LIST:
        return "\n".join(labels)
    return "\n".join([*labels[: _LONGEST_LIST - 1], f"and {len(labels) - _LONGEST_LIST + 1} more"])
