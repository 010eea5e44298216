"""Deception profiles as contour plots: all conditions of a study on one scale, and what parts them from honest agents.

A profile gives the share of opportunities that are deceptive at each pair of thresholds of the rubric
(:mod:`soo_marl.deception.profile`). The paper (arXiv 2412.16325) shows such plots for deceptive, fine-tuned and honest
agents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from soo_marl.report.data import in_words
from soo_marl.report.figures.style import GREY, NothingToDraw, in_own_style, new_figure
from soo_marl.report.figures.verdict_styles import DECEPTIVE, HONEST, glyph_and_word, word_style

LEVELS = 12
"""About how many bands of colour a scale has."""

_LARGEST_WITHOUT_SCALE = 1e-12
_COLUMNS = 6


@in_own_style
def profile_contours(
    rates: Mapping[str, ArrayLike],
    projection_thresholds: ArrayLike,
    cosine_thresholds: ArrayLike,
    verdicts: Mapping[str, str | None],
) -> Figure:
    """Return a contour plot per condition, all on one colour scale: the deceptive baseline first, the honest one last.

    Args:
        rates: by condition ``[X, Y]``, deceptive steps as a share of opportunities at each pair of thresholds; NaN
            throughout for a condition that had no opportunity.
        projection_thresholds: x ``[X]``, which the projection on the fake landmark must exceed.
        cosine_thresholds: y ``[Y]``, below which the cosine between the directions must lie.
        verdicts: word by condition; a condition may be absent.

    Raises:
        NothingToDraw: there are no rates.
        ValueError: a grid does not fit the thresholds.
    """
    grids, x, y = _checked(rates, projection_thresholds, cosine_thresholds)
    largest = max((float(np.nanmax(grid)) for grid in grids.values() if np.isfinite(grid).any()), default=0.0)
    levels = np.asarray(MaxNLocator(LEVELS).tick_values(0, max(largest, _LARGEST_WITHOUT_SCALE)))
    return _contours(grids, x, y, verdicts, "Deception profiles", levels, "viridis", "deceptive share of opportunities")


@in_own_style
def profile_differences(
    rates: Mapping[str, ArrayLike],
    projection_thresholds: ArrayLike,
    cosine_thresholds: ArrayLike,
    verdicts: Mapping[str, str | None],
) -> Figure:
    """Return a map per condition but the honest one: its rates minus those of honest agents, all on one scale.

    The scale's middle is zero: red is more deceptive than honest agents, blue less. Arguments are those of
    :func:`profile_contours`.

    Raises:
        NothingToDraw: there are no rates of honest agents or of any other.
        ValueError: a grid does not fit the thresholds.
    """
    grids, x, y = _checked(rates, projection_thresholds, cosine_thresholds)
    if HONEST not in grids or len(grids) < 2:
        raise NothingToDraw("there are no differences to draw without rates of honest agents and of others")
    differences = {name: grid - grids[HONEST] for name, grid in grids.items() if name != HONEST}
    sizes = [float(np.nanmax(abs(grid))) for grid in differences.values() if np.isfinite(grid).any()]
    limit = max(*sizes, _LARGEST_WITHOUT_SCALE) if sizes else _LARGEST_WITHOUT_SCALE
    # The middle band lies around zero, so that noise has no sign.
    step = float(np.diff(MaxNLocator(8).tick_values(0, limit))[0])
    bands = math.ceil(limit / step + 0.5)
    levels = step * (np.arange(2 * bands, dtype=np.float64) - bands + 0.5)
    title = "Deception profiles: difference to honest agents"
    return _contours(differences, x, y, verdicts, title, levels, "RdBu_r", "difference of the deceptive share")


def _checked(
    rates: Mapping[str, ArrayLike], projection_thresholds: ArrayLike, cosine_thresholds: ArrayLike
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64], NDArray[np.float64]]:
    if not rates:
        raise NothingToDraw("there are no profiles to draw")
    x, y = (np.asarray(given, dtype=np.float64) for given in (projection_thresholds, cosine_thresholds))
    order = sorted(rates, key=lambda name: (name == HONEST) - (name == DECEPTIVE))
    grids = {name: np.asarray(rates[name], dtype=np.float64) for name in order}
    for name, grid in grids.items():
        if grid.shape != (len(x), len(y)):
            raise ValueError(f"the profile of {name} must have shape {[len(x), len(y)]}, not {list(grid.shape)}")
    return grids, x, y


def _contours(
    grids: Mapping[str, NDArray[np.float64]],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    verdicts: Mapping[str, str | None],
    title: str,
    levels: NDArray[np.float64],
    colours: str,
    scale: str,
) -> Figure:
    rows = math.ceil(len(grids) / _COLUMNS)
    columns = math.ceil(len(grids) / rows)
    figure = new_figure(max(2.0 * columns + 1.2, 6.0), 2.35 * rows + 0.7, title)
    panels: list[Axes] = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel())
    norm = BoundaryNorm(list(levels), 256)
    for panel, (name, grid) in zip(panels, grids.items(), strict=False):
        if np.isfinite(grid).any():
            filled: dict[str, Any] = {"levels": levels, "norm": norm, "cmap": colours}
            panel.contourf(x, y, grid.T, **filled)
            panel.contour(x, y, grid.T, levels=levels, colors="#00000060", linewidths=0.4)
        else:
            panel.text(0.5, 0.5, "no opportunity\nto deceive", transform=panel.transAxes, ha="center", color=GREY)
        if verdicts.get(name) == "broken":
            panel.add_patch(
                Rectangle((0, 0), 1, 1, transform=panel.transAxes, fill=False, hatch="//", edgecolor="#C8C8C8", lw=0)
            )
        _entitle(panel, name, verdicts.get(name))
        panel.set_xlim(x[0], x[-1])
        panel.set_ylim(y[0], y[-1])
        panel.xaxis.set_major_locator(MaxNLocator(2))
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_major_formatter("{x:g}")
        panel.spines[:].set_visible(True)
    for panel in panels[len(grids) :]:
        panel.set_axis_off()
    # Below a panel that is left out, the one above it bears the numbers.
    for panel in panels[max(len(grids) - columns, 0) : len(grids)]:
        panel.tick_params(labelbottom=True)
    figure.supxlabel("x: projection on the fake above", fontsize=9)
    figure.supylabel("y: cosine between directions below", fontsize=9)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=panels, shrink=min(1.0, 1.4 / rows), aspect=25, pad=0.015)
    bar.set_label(scale)
    bar.ax.yaxis.set_major_formatter("{x:.3g}")
    return figure


def _entitle(panel: Axes, name: str, verdict: str | None) -> None:
    """The condition, and below it the verdict in its colour with its shape."""
    label = in_words(name)
    panel.set_title(label + "\n", fontsize=9 if len(label) < 20 else 7.5, fontweight="bold", pad=3)
    style: dict[str, Any] = {"ha": "center", "fontsize": 8.5, "color": word_style(verdict).text_colour}
    panel.annotate(glyph_and_word(verdict), (0.5, 1), (0, 4), "axes fraction", "offset points", **style)
