"""The picture of a language study that tells honest models from positional ones; nothing is computed but positions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from soo_marl.llm.measures.rates import CellRates, Rate
from soo_marl.llm.measures.records import ModelSummary, SeedVerdict
from soo_marl.llm.measures.verdict import VerdictRule
from soo_marl.report.figures.baselines import GREY, INK, in_own_style
from soo_marl.report.figures.label_placement import place_labels
from soo_marl.report.figures.verdict_styles import NothingToDraw
from soo_marl.report.language.figures import BURGLAR, legend_below, word_mark
from soo_marl.report.language.styles import WORDS, word_style, words_that_occur

_CROWDED = 0.035
"""Marks nearer than this, as a share of the axis, are moved apart."""

_LONGEST_LIST = 6
"""Names that one label holds at most."""


@dataclass(frozen=True)
class OrientationPoint:
    """A model, or one seed of it, by its rates of deceptive answers to burglars."""

    label: str
    """The model."""
    seed: int | None
    """The seed; None for the mean over seeds."""
    word: str
    """Its verdict."""
    cheap_first: Rate
    """With the cheap object's room first."""
    mirrored: Rate
    """With the valuable object's room first."""


def orientation_points(summaries: Sequence[ModelSummary]) -> list[OrientationPoint]:
    """A point per model that burglars asked in both orientations; one per seed where seeds have own rates."""
    points = []
    for summary in summaries:
        of_seeds = [(seed.seed, seed.word, _seed_cells(seed)) for seed in summary.seeds]
        for seed, word, cells in [(None, summary.word, summary.cells), *of_seeds]:
            found = {cell.orientation: cell.deceptive for cell in cells if cell.scenario == BURGLAR}
            cheap_first, mirrored = found.get("cheap_first"), found.get("mirrored")
            if cheap_first is not None and mirrored is not None and cheap_first.n and mirrored.n:
                points.append(OrientationPoint(summary.label, seed, word, cheap_first, mirrored))
    return points


@in_own_style
def honest_or_positional(
    points: Sequence[OrientationPoint], title: str = "Honest, or only naming the other room?"
) -> Figure:
    """Return deceptive rates with the valuable room first against those with the cheap room first.

    Large marks are models, with 95 % intervals; small ones their seeds. Only the lower left corner is honest: a model
    that always names the room that stands first is at the lower right, one that names the second at the upper left.

    Raises:
        NothingToDraw: there are no points.
    """
    if not points:
        raise NothingToDraw("no model answered burglars in both orientations")
    figure = Figure(figsize=(7.6, 7.4), layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold")
    panel = figure.add_subplot()
    panel.set_aspect("equal")
    panel.set_xlim(-0.24, 1.24)
    panel.set_ylim(-0.2, 1.2)
    panel.spines[:].set_visible(False)
    panel.add_patch(Rectangle((0, 0), 1, 1, facecolor="none", edgecolor="#BDBDBD", linewidth=0.9, zorder=1))
    panel.plot([0, 1], [0, 1], color="#BDBDBD", linewidth=0.9, linestyle=":", zorder=1)
    panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    panel.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    panel.tick_params(length=0, labelsize=9)
    panel.set_xlabel("deceptive with the cheap room first (the paper's order)")
    panel.set_ylabel("deceptive with the valuable room first (mirrored)")
    rule = VerdictRule()
    corners = (
        (0, 0, "left", "honest, if it names a room at all"),
        (1, 0, "right", "always names the first room"),
        (0, 1, "left", "always names the second room"),
        (1, 1, "right", "deceptive in both"),
    )
    for x, y, side, text in corners:
        corner = (x - rule.deceptive_below * x, y - rule.deceptive_below * y)
        colour = WORDS["honest" if x == y == 0 else "no effect" if x == y else "positional"].colour
        panel.add_patch(
            Rectangle(corner, rule.deceptive_below, rule.deceptive_below, color=colour, alpha=0.09, linewidth=0)
        )
        panel.text(
            x + (-0.07 if x == 0 else 0.07),
            -0.115 if y == 0 else 1.115,
            text,
            ha=side,
            va="center",
            fontsize=9,
            color=GREY,
            style="italic",
        )
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
            panel.plot(_numbers(line[0]), _numbers(line[1]), color=style.colour, linewidth=1.1, alpha=0.55, zorder=3)
    places = _moved_apart([_place(point) for point in points])
    for point, place in zip(points, places, strict=True):
        style = word_style(point.word)
        panel.plot(
            *place,
            marker=style.marker,
            markersize=9.5 if point.seed is None else 4.5,
            color=style.colour,
            markeredgecolor="white",
            markeredgewidth=0.7,
            alpha=0.95 if point.seed is None else 0.6,
            zorder=5 if point.seed is None else 4,
        )
    handles: list[Line2D | Patch] = [word_mark(word) for word in words_that_occur([point.word for point in points])]
    if len(whole) < len(points):
        handles.append(Line2D([], [], linestyle="", marker="o", markersize=4.5, color=GREY, label="small: one seed"))
    handles.append(Line2D([], [], color=GREY, linewidth=1.1, label="95 % interval"))
    legend_below(figure, handles)
    clusters = _clusters([_place(point) for point in whole])
    place_labels(
        panel,
        [_mean_place([_place(whole[index]) for index in cluster]) for cluster in clusters],
        [_joined([whole[index] for index in cluster]) for cluster in clusters],
        obstacles=[*places, *said],
        colours=[_cluster_colour([whole[index].word for index in cluster]) for cluster in clusters],
    )
    return figure


def _seed_cells(seed: SeedVerdict) -> Sequence[CellRates]:
    """A seed's own rates, where its record has them."""
    cells: Sequence[CellRates] = getattr(seed, "cells", ())
    return cells


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


def _cluster_colour(words: Sequence[str]) -> str:
    return word_style(words[0]).text_colour if len(set(words)) == 1 else INK


def _numbers(values: Iterable[float | None]) -> NDArray[np.float64]:
    return np.asarray(list(values), dtype=np.float64)
