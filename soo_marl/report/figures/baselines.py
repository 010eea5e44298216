"""Figures of a baseline study, and of our MADDPG against published curves; nothing is computed but positions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from soo_marl.report.data import in_words
from soo_marl.report.figures.style import (
    COLOURS,
    GREY,
    LINES,
    MARKERS,
    NothingToDraw,
    in_own_style,
    labelled,
    legend_below,
    numbers,
    several_panels,
    spread_widely,
)
from soo_marl.statistics import RocPoints
from soo_marl.studies.baselines.reference_curves import ReferenceCurve
from soo_marl.studies.learning.records import LearningCurve, OverlapValue, ProtocolCurve

KIND_ORDER = ("honest", "deceptive")
"""These kinds always have the first two colours and markers, whatever else a figure shows."""


@in_own_style
def learning_curves(curves: Sequence[LearningCurve], title: str = "Learning curves") -> Figure:
    """Return one panel per metric: a thin line per seed, the mean as a thick line, its 95 % interval as a band.

    Mean and band are drawn where a curve brings them.

    Raises:
        NothingToDraw: there are no curves.
    """
    _require(curves, "curves")
    metrics = list(dict.fromkeys(curve.metric for curve in curves))
    styles = _styles(curve.kind for curve in curves)
    figure, panels = _panels(len(metrics), title, height=2.7)
    for panel, metric in zip(panels, metrics, strict=True):
        for curve in (curve for curve in curves if curve.metric == metric):
            style = styles[curve.kind]
            colour, updates = COLOURS[style], np.asarray(curve.updates)
            for row in curve.values:
                panel.plot(updates, numbers(row), color=colour, linewidth=0.6, alpha=0.35)
            if curve.low is not None and curve.high is not None:
                panel.fill_between(
                    updates, numbers(curve.low), numbers(curve.high), color=colour, alpha=0.2, linewidth=0
                )
            if curve.mean is not None:
                panel.plot(updates, numbers(curve.mean), color=colour, linewidth=2, linestyle=LINES[style])
        panel.set_title(in_words(metric))
        panel.set_xlabel("updates")
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    handles = [
        Line2D([], [], color=COLOURS[style], linewidth=2, linestyle=LINES[style], label=in_words(kind))
        for kind, style in styles.items()
    ]
    legend_below(figure, handles, most_columns=3)
    return figure


@in_own_style
def overlap_values(values: Mapping[str, Sequence[OverlapValue]]) -> Figure:
    """Return one panel per form: a dot per agent, in one column per kind; agents without a value are counted.

    A panel's axis is logarithmic where all its values are positive and spread widely.

    Raises:
        NothingToDraw: there are no values.
    """
    _require(values, "values")
    styles = _styles(item.kind for items in values.values() for item in items)
    figure, panels = _panels(len(values), "Overlap value of each agent", height=3.0)
    for panel, (form, items) in zip(panels, values.items(), strict=True):
        labels = []
        for column, (kind, style) in enumerate(styles.items()):
            group = [item for item in items if item.kind == kind]
            present = sorted(item.value for item in group if item.value is not None)
            missing = len(group) - len(present)
            # Moved sideways, the sorted dots of one column don't hide one another.
            offsets = 0.09 * ((2 * np.arange(len(present))) % 5 - 2)
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
            labels.append(in_words(kind) + (f"\n({missing} missing)" if missing else ""))
        shown = [item.value for item in items if item.value is not None]
        if spread_widely(shown) and min(shown) > 0:
            panel.set_yscale("log")
        panel.set_title(in_words(form))
        panel.set_xticks(range(len(styles)), labels)
        panel.set_xlim(-0.6, len(styles) - 0.4)
        panel.margins(y=0.12)
    panels[0].set_ylabel("overlap value (lower = more overlap)")
    return figure


@in_own_style
def protocol_accuracy(protocol: Mapping[str, ProtocolCurve]) -> Figure:
    """Return the paired protocol's accuracy against episodes per seed: mean and standard deviation over pairs, by form.

    Raises:
        NothingToDraw: there are no curves.
    """
    _require(protocol, "protocol curves")
    figure, (panel,) = _panels(1, "Published protocol: accuracy against episodes", height=3.8, width=6.4)
    for index, (form, curve) in enumerate(protocol.items()):
        # Forms that agree would hide one another: each is moved aside by a few per cent.
        episodes = np.asarray(curve.episodes, dtype=float) * 1.03 ** (index - (len(protocol) - 1) / 2)
        style = index % len(COLOURS)
        panel.errorbar(
            episodes,
            numbers(curve.mean),
            yerr=np.nan_to_num(numbers(curve.standard_deviation)),
            color=COLOURS[style],
            linestyle=LINES[style],
            marker=MARKERS[style],
            markersize=5,
            linewidth=1.5,
            elinewidth=0.9,
            capsize=2,
            label=f"{in_words(form)} ({curve.pairs} pairs)",
        )
    panel.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    panel.text(0.99, 0.51, "chance", transform=panel.get_yaxis_transform(), ha="right", fontsize=8, color=GREY)
    panel.set_xscale("log")
    ticks = sorted({count for curve in protocol.values() for count in curve.episodes})
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.minorticks_off()
    panel.set_ylim(0, 1.05)
    panel.set_xlabel("episodes per evaluation seed")
    panel.set_ylabel("accuracy (mean ± sd over pairs)")
    legend_below(figure, labelled(panel), most_columns=3)
    return figure


@in_own_style
def roc_curves(roc: Mapping[str, RocPoints]) -> Figure:
    """Return the ROC curves, one line per form; equal lines stay visible, since later ones are thinner.

    Raises:
        NothingToDraw: there are no curves.
    """
    _require(roc, "ROC curves")
    figure, (panel,) = _panels(1, "Deceptive agents found, against honest ones accused", height=4.6, width=5.8)
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for index, (form, curve) in enumerate(roc.items()):
        panel.plot(
            curve.false_positive_rate,
            curve.true_positive_rate,
            color=COLOURS[index % len(COLOURS)],
            linewidth=1.5 * (len(roc) - index),
            solid_capstyle="butt",
            label=in_words(form),
            clip_on=False,
        )
    panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="false positive rate", ylabel="true positive rate")
    legend_below(figure, labelled(panel), most_columns=3)
    return figure


@in_own_style
def reference_figure(curves: Sequence[ReferenceCurve], published: Mapping[str, float]) -> Figure:
    """One panel per dialect: training return per episode, each seed thin, their mean thick, published ends dashed.

    The published ends are mean returns of the ``openai`` dialect by team.

    Raises:
        NothingToDraw: there are no curves.
    """
    _require(curves, "curves")
    figure, panels = _panels(len(curves), "", height=3.8, width=5.2)
    for panel, curve in zip(panels, curves, strict=True):
        thousands = curve.episodes / 1_000
        for (team, returns), colour in zip(
            (("good", curve.good), ("adversary", curve.adversary)), COLOURS, strict=False
        ):
            panel.plot(thousands, returns.T, color=colour, linewidth=0.5, alpha=0.5)
            mean = f"{team}, mean of {len(returns)}"
            panel.plot(thousands, returns.mean(axis=0), color=colour, linewidth=2, label=mean)
            if curve.dialect == "openai":
                end = f"{team}, published end"
                panel.axhline(published[team], color=colour, linestyle="--", linewidth=1, label=end)
        # The first window is far below all others and would flatten the picture.
        first = min(1, len(curve.episodes) - 1)
        settled = np.concatenate([returns[:, first:].ravel() for returns in (curve.good, curve.adversary)])
        panel.set_ylim(float(settled.min()) - 1.5, float(settled.max()) + 1.5)
        panel.set_title(f"simple_adversary, {curve.dialect} dialect")
        panel.set_xlabel("thousand episodes")
        panel.set_ylabel("return per training episode")
        panel.legend(loc="center right")
    return figure


def _require(content: Sequence[object] | Mapping[str, object], what: str) -> None:
    if not content:
        raise NothingToDraw(f"there are no {what} to draw")


def _panels(count: int, title: str, height: float, width: float = 3.2) -> tuple[Figure, list[Axes]]:
    figure, panels = several_panels(count, width, height, title, columns=2 if count == 4 else 3)
    for panel in panels:
        panel.grid()
    return figure, panels


def _styles(kinds: Iterable[str]) -> dict[str, int]:
    """Index of colour, marker and line for each kind, in the order in which the kinds are shown."""
    found = list(dict.fromkeys(kinds))
    others = [kind for kind in found if kind not in KIND_ORDER]
    ordered = {kind: index for index, kind in enumerate((*KIND_ORDER, *others))}
    return {kind: index % len(COLOURS) for kind, index in ordered.items() if kind in found}
