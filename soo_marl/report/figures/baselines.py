"""The report's figures: each function takes records and returns a matplotlib figure; nothing is computed but positions.

Colours are Okabe and Ito's, told apart with any kind of colour vision; shapes and line styles say the same once more.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogFormatter, MaxNLocator
from numpy.typing import NDArray

from soo_marl.statistics import RocPoints
from soo_marl.storage.files import plain, write_bytes
from soo_marl.studies.learning.records import LearningCurve, OverlapValue, ProtocolCurve

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
KIND_ORDER = ("honest", "deceptive")
"""These kinds always have the first two colours and markers, whatever else a figure shows."""

INK = "#222222"
GREY = "#767676"
LOG_RANGE = 20.0
"""Positive values that spread over more than this factor are drawn on a logarithmic axis."""

Arguments = ParamSpec("Arguments")


def in_own_style(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Draw in matplotlib's default style, whatever its user prefers, with names as they are.

    A matplotlibrc may ask for TeX or for fonts that are not there, and a dollar sign in a name begins a formula.
    """

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with matplotlib.style.context(["default", {"text.parse_math": False}]):
            figure = draw(*args, **kwargs)
            for text in figure.findobj(Text):
                if isinstance(text, Text):
                    text.set_text(plain(text.get_text()))
            for axis in (axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)):
                formatter = axis.get_major_formatter()
                if isinstance(formatter, FuncFormatter):
                    axis.set_major_formatter(FuncFormatter(_plain_labels(formatter)))
                elif isinstance(formatter, LogFormatter):
                    # Powers of ten are formulas of matplotlib's own.
                    for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                        tick.label1.set_parse_math(True)
        return figure

    return drawn


def _plain_labels(labels: FuncFormatter) -> Callable[[float, int | None], str]:
    return lambda value, place: plain(labels(value, place))


@in_own_style
def learning_curves(curves: Sequence[LearningCurve], title: str = "Learning curves") -> Figure:
    """Return one panel per metric: a thin line per seed, the mean as a thick line, its 95 % interval as a band.

    Mean and band are drawn where a curve brings them.

    Raises:
        ValueError: there are no curves.
    """
    _require(curves, "curves")
    metrics = list(dict.fromkeys(curve.metric for curve in curves))
    styles = _styles(curve.kind for curve in curves)
    figure, panels = _panels(len(metrics), title, height=2.7)
    for panel, metric in zip(panels, metrics, strict=True):
        for curve in (curve for curve in curves if curve.metric == metric):
            style = styles[curve.kind]
            updates = np.asarray(curve.updates)
            for row in curve.values:
                panel.plot(updates, numbers(row), color=COLOURS[style], linewidth=0.6, alpha=0.35)
            if curve.low is not None and curve.high is not None:
                panel.fill_between(
                    updates, numbers(curve.low), numbers(curve.high), color=COLOURS[style], alpha=0.2, linewidth=0
                )
            if curve.mean is not None:
                panel.plot(updates, numbers(curve.mean), color=COLOURS[style], linewidth=2, linestyle=LINES[style])
        panel.set_title(_words(metric), fontsize=10)
        panel.set_xlabel("updates")
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for kind, style in styles.items():
        panels[0].plot([], [], color=COLOURS[style], linewidth=2, linestyle=LINES[style], label=_words(kind))
    _legend_below(figure, panels[0])
    return figure


@in_own_style
def overlap_values(values: Mapping[str, Sequence[OverlapValue]], title: str = "Overlap value of each agent") -> Figure:
    """Return one panel per form: a dot per agent, in one column per kind; agents without a value are counted.

    A panel's axis is logarithmic where all its values are positive and spread widely.

    Raises:
        ValueError: there are no values.
    """
    _require(values, "values")
    styles = _styles(item.kind for items in values.values() for item in items)
    figure, panels = _panels(len(values), title, height=3.0, sharing_legend=False)
    for panel, (form, items) in zip(panels, values.items(), strict=True):
        labels = []
        for column, (kind, style) in enumerate(styles.items()):
            group = [item for item in items if item.kind == kind]
            present = sorted(item.value for item in group if item.value is not None)
            missing = len(group) - len(present)
            offsets = _spread(len(present))
            panel.plot(
                column + offsets,
                present,
                linestyle="none",
                marker=MARKERS[style],
                markersize=6,
                markerfacecolor=COLOURS[style],
                markeredgecolor="white",
                markeredgewidth=0.5,
                alpha=0.85,
            )
            labels.append(_words(kind) + (f"\n({missing} missing)" if missing else ""))
        if _wants_logarithm([item.value for item in items if item.value is not None]):
            panel.set_yscale("log")
        panel.set_title(_words(form), fontsize=10)
        panel.set_xticks(range(len(styles)), labels)
        panel.set_xlim(-0.6, len(styles) - 0.4)
        panel.margins(y=0.12)
    panels[0].set_ylabel("overlap value (lower = more overlap)")
    return figure


@in_own_style
def protocol_accuracy(
    protocol: Mapping[str, ProtocolCurve], title: str = "Published protocol: accuracy against episodes"
) -> Figure:
    """Return the paired protocol's accuracy against episodes per seed: mean and standard deviation over pairs, by form.

    Raises:
        ValueError: there are no curves.
    """
    _require(protocol, "protocol curves")
    figure, (panel,) = _panels(1, title, height=3.8, width=6.4)
    for index, (form, curve) in enumerate(protocol.items()):
        # Forms that agree would hide one another: each is moved aside by a few per cent.
        episodes = np.asarray(curve.episodes, dtype=float) * 1.03 ** (index - (len(protocol) - 1) / 2)
        panel.errorbar(
            episodes,
            numbers(curve.mean),
            yerr=np.nan_to_num(numbers(curve.standard_deviation)),
            color=COLOURS[index % len(COLOURS)],
            linestyle=LINES[index % len(COLOURS)],
            marker=MARKERS[index % len(COLOURS)],
            markersize=5,
            linewidth=1.5,
            elinewidth=0.9,
            capsize=2,
            label=f"{_words(form)} ({curve.pairs} pairs)",
        )
    panel.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    panel.annotate(
        "chance",
        (1, 0.5),
        xycoords=("axes fraction", "data"),
        xytext=(-3, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=GREY,
    )
    panel.set_xscale("log")
    ticks = sorted({count for curve in protocol.values() for count in curve.episodes})
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.minorticks_off()
    panel.set_ylim(0, 1.05)
    panel.set_xlabel("episodes per evaluation seed")
    panel.set_ylabel("accuracy (mean ± sd over pairs)")
    _legend_below(figure, panel)
    return figure


@in_own_style
def roc_curves(
    roc: Mapping[str, RocPoints], title: str = "Deceptive agents found, against honest ones accused"
) -> Figure:
    """Return the ROC curves, one line per form; equal lines stay visible, since later ones are thinner.

    Raises:
        ValueError: there are no curves.
    """
    _require(roc, "ROC curves")
    figure, (panel,) = _panels(1, title, height=4.6, width=5.0)
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for index, (form, curve) in enumerate(roc.items()):
        panel.plot(
            curve.false_positive_rate,
            curve.true_positive_rate,
            color=COLOURS[index % len(COLOURS)],
            linewidth=1.5 * (len(roc) - index),
            solid_capstyle="butt",
            label=_words(form),
            clip_on=False,
        )
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)
    panel.set_aspect("equal")
    panel.set_xlabel("false positive rate")
    panel.set_ylabel("true positive rate")
    _legend_below(figure, panel)
    return figure


def save_figure(figure: Figure, stem: Path) -> Path:
    """Write a figure as ``<stem>.png`` (130 dots per inch) and ``<stem>.svg``, atomically; return the PNG's path.

    Raises:
        RunDirectoryError: a file cannot be written.
    """
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        buffer = io.BytesIO()
        # Without a salt, names inside an SVG are random, and the same figure is another file every time.
        with matplotlib.style.context(["default", {"svg.hashsalt": "soo-marl"}]), warnings.catch_warnings():
            # Of names in scripts that the font has no letters for; they are boxes then.
            warnings.filterwarnings("ignore", r"Glyph \d+")
            figure.savefig(
                buffer, format=suffix[1:], dpi=130, bbox_inches="tight", facecolor="white", metadata=metadata
            )
        write_bytes(stem.with_name(stem.name + suffix), buffer.getvalue())
    return stem.with_name(stem.name + ".png")


def _require(content: Sequence[object] | Mapping[str, object], what: str) -> None:
    if not content:
        raise ValueError(f"there are no {what} to draw")


def _panels(
    count: int, title: str, height: float, width: float = 3.2, sharing_legend: bool = True
) -> tuple[Figure, list[Axes]]:
    columns = 2 if count == 4 else min(count, 3)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    figure.suptitle(title, fontsize=11, fontweight="bold")
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, color="#E5E5E5", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8)
        panel.xaxis.label.set_fontsize(9)
        panel.yaxis.label.set_fontsize(9)
    return figure, axes


def _legend_below(figure: Figure, panel: Axes) -> None:
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=2 if len(labels) == 4 else min(len(labels), 3),
        fontsize=8,
        frameon=False,
    )


def _styles(kinds: Iterable[str]) -> dict[str, int]:
    """Index of colour, marker and line for each kind, in the order in which the kinds are shown."""
    found = list(dict.fromkeys(kinds))
    others = [kind for kind in found if kind not in KIND_ORDER]
    ordered = {kind: index for index, kind in enumerate((*KIND_ORDER, *others))}
    return {kind: index % len(COLOURS) for kind, index in ordered.items() if kind in found}


def numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    """The values with NaN, which matplotlib leaves out, where one is missing."""
    return np.asarray(values, dtype=np.float64)


def _spread(count: int) -> NDArray[np.float64]:
    """Sideways positions that keep the sorted dots of one column from hiding one another."""
    order = np.arange(count)
    return 0.18 * (((order * 2) % 5) - 2) / 2


def _wants_logarithm(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) > LOG_RANGE * min(values)


def _words(name: str) -> str:
    return name.replace("_", " ")


def mark(marker: str, colour: str, label: str, edge: str | None = None) -> Line2D:
    """A mark for a legend."""
    return Line2D([], [], linestyle="", marker=marker, markersize=7, color=colour, markeredgecolor=edge, label=label)
