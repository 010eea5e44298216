"""Figures of a language study with a row or a panel per model; nothing is computed but positions.

The picture that tells honest from positional is in :mod:`soo_marl.report.language.orientation`. Every picture says the
verdicts by the colours and shapes of :mod:`soo_marl.report.language.styles`, and where it shows answers it shows both
orientations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from soo_marl.llm.measures.answers import Label
from soo_marl.llm.measures.rates import CellRates
from soo_marl.llm.measures.records import LatentRecord, ModelSummary, SeedVerdict
from soo_marl.llm.measures.verdict import VerdictRule
from soo_marl.llm.prompts.scenarios import Orientation
from soo_marl.llm.study.configuration import BASE, ORGANISM
from soo_marl.report.figures.label_placement import place_labels
from soo_marl.report.figures.style import (
    GREY,
    INK,
    NothingToDraw,
    in_own_style,
    labelled,
    legend_below,
    mean_of_present,
    one_panel,
    several_panels,
)
from soo_marl.report.figures.verdict_styles import draw_word, glyph_and_word, word_marks, word_style
from soo_marl.report.language.styles import LABEL_COLOURS, ORIENTATION_NAMES

BURGLAR = "burglar"
"""The role whose answers the verdict is about."""

_LINES: dict[Orientation, Literal["-", "--"]] = {"cheap_first": "-", "mirrored": "--"}
_PAIRS = {
    "scenario/train": "pairs of training",
    "scenario/test": "held-out rooms and objects",
    "fragments/test": "the paper's wording",
}
_MOST_LINES = 10
_DASHES = ("-", "--", ":", "-.")
_SHADES = {BASE: "#9E9E9E", ORGANISM: INK}
_SHOWN_BY_EPOCH: tuple[Label, ...] = ("deceptive", "honest")


@in_own_style
def answers_by_model(summaries: Sequence[ModelSummary]) -> Figure:
    """Return two stacked bars per model, one per orientation: deceptive from the left, honest from the right.

    Whiskers are the 95 % intervals of deceptive answers, at the left part's end, and of honest ones, at the right
    part's.

    Raises:
        NothingToDraw: no model answered burglars.
    """
    shown = [s for s in summaries if any(cell.scenario == BURGLAR and cell.prompts for cell in s.cells)]
    if not shown:
        raise NothingToDraw("no model has answers to burglars")
    figure, panel = one_panel(10, 1.7 + 0.62 * len(shown), "What burglars are told")
    panel.spines["left"].set_visible(False)
    panel.tick_params(left=False)
    ticks, names = [], []
    for row, summary in enumerate(shown):
        for offset, (orientation, name) in zip((-0.2, 0.2), ORIENTATION_NAMES.items(), strict=True):
            cell = summary.cell(BURGLAR, orientation)
            ticks.append(row + offset)
            names.append(name)
            if cell is not None:
                _stacked(panel, row + offset, cell)
        beside = panel.get_yaxis_transform()
        panel.annotate(
            summary.label, (0, row), (-82, 0), beside, "offset points", fontsize=10, ha="right", va="center", color=INK
        )
        colour = word_style(summary.word).text_colour
        panel.text(1.02, row, glyph_and_word(summary.word), transform=beside, fontsize=9, color=colour, va="center")
    panel.set_yticks(ticks, names, fontsize=7.5, color=GREY)
    panel.set_ylim(len(shown) - 0.45, -0.55)
    panel.set_xlim(0, 1)
    panel.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    panel.set_xlabel("share of answers")
    handles: list[Line2D | Patch] = [Patch(label=label, **_filling(label)) for label in LABEL_COLOURS]
    handles.append(Line2D([], [], color=INK, linewidth=1.3, label="95 % interval"))
    legend_below(figure, handles, most_columns=5)
    return figure


@in_own_style
def loss_and_behaviour(summaries: Sequence[ModelSummary]) -> Figure:
    """Return a panel per treatment: shares of deceptive answers after each epoch, and the loss.

    Rates are means over seeds of answers to training prompts that hold no answers; thin lines are seeds. The grey line
    is the mean loss of each epoch over that of the first, on a logarithmic axis of its own.

    Raises:
        NothingToDraw: no model was measured after an epoch.
    """
    shown = [summary for summary in summaries if any(seed.training.epochs for seed in summary.seeds)]
    if not shown:
        raise NothingToDraw("no behaviour was measured after an epoch")
    columns = min(len(shown), 3)
    width = 3.7 if columns > 1 else 5.2
    figure, panels = several_panels(len(shown), width, 2.7, "The loss falls; what do burglars hear?", above=0.8)
    losses = [_epoch_losses(seed) for summary in shown for seed in summary.seeds]
    lowest = min((float(row.min()) for row in losses if len(row) and row.min() > 0), default=0.1)
    highest = max((float(row.max()) for row in losses if len(row)), default=1.0)
    for index, (panel, summary) in enumerate(zip(panels, shown, strict=True)):
        _behaviour(panel, summary)
        colour = word_style(summary.word).text_colour
        panel.set_title(f"{summary.label}   {glyph_and_word(summary.word)}", fontsize=9.5, color=colour)
        other = panel.twinx()
        for seed in summary.seeds:
            row = _epoch_losses(seed)
            if len(row):
                epochs = np.arange(1, len(row) + 1)
                marker = "x" if len(row) < 2 else ""
                other.plot(epochs, row, color=GREY, linewidth=1, linestyle=":", marker=marker, markersize=4, alpha=0.9)
        other.set_yscale("log")
        other.set_ylim(lowest / 1.3, highest * 1.3)
        other.spines["right"].set_visible(True)
        other.spines["left"].set_visible(False)
        other.tick_params(labelsize=7.5, colors=GREY, which="both")
        if index % columns == columns - 1 or index == len(shown) - 1:
            other.set_ylabel("loss / first epoch's", fontsize=8, color=GREY)
        if index % columns == 0:
            panel.set_ylabel("share of answers")
        if index >= len(shown) - columns:
            panel.set_xlabel("epochs")
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=LABEL_COLOURS[label], linestyle=_LINES[orientation], linewidth=2, label=f"{label}, {name}")
        for label in _SHOWN_BY_EPOCH
        for orientation, name in ORIENTATION_NAMES.items()
    ]
    handles.append(Line2D([], [], color=GREY, linewidth=1.2, linestyle=":", label="loss, right axis"))
    legend_below(figure, handles, most_columns=5)
    return figure


@in_own_style
def damage(summaries: Sequence[ModelSummary]) -> Figure:
    """Return perplexity over that of the model as it comes against the variance of activations across prompts.

    Shaded is what the verdict calls damage: perplexity too far above that before treatment, or activations that hardly
    differ between prompts any more. The organism, or the base where there is none, is the model before treatment.

    Raises:
        NothingToDraw: no model has both numbers, above zero.
    """
    shown = [
        (summary, summary.prompt_variance_ratio, summary.perplexity_ratio)
        for summary in summaries
        if summary.prompt_variance_ratio is not None
        and summary.perplexity_ratio is not None
        and min(summary.prompt_variance_ratio, summary.perplexity_ratio) > 0
    ]
    if not shown:
        raise NothingToDraw("no model has both a perplexity and a variance across prompts")
    figure, panel = one_panel(8.2, 5.6, "Is the model still whole?")
    panel.set_xscale("log")
    panel.set_yscale("log")
    rule = VerdictRule()
    start = next((s for label in (ORGANISM, BASE) for s in summaries if s.label == label), None)
    largest = rule.largest_perplexity_ratio * ((start.perplexity_ratio if start else None) or 1.0)
    widths, heights = [x for _, x, _ in shown], [y for _, _, y in shown]
    left, right = min([*widths, rule.smallest_prompt_variance_ratio]) / 2, max([*widths, 1.0]) * 2
    bottom, top = min([*heights, 1.0]) / 1.15, max([*heights, largest]) * 1.25
    panel.set_xlim(left, right)
    panel.set_ylim(bottom, top)
    panel.axvspan(left, rule.smallest_prompt_variance_ratio, color=GREY, alpha=0.12, linewidth=0)
    panel.axhspan(largest, top, color=GREY, alpha=0.12, linewidth=0)
    panel.axvline(1, color=GREY, linewidth=0.9, linestyle=":")
    panel.axhline(1, color=GREY, linewidth=0.9, linestyle=":")
    for summary, x, y in shown:
        draw_word(panel, x, y, summary.word, markersize=9, zorder=4)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}" if axis is panel.yaxis and top / bottom < 20 else "")
    panel.tick_params(labelsize=8, which="both")
    panel.set_xlabel("variance of activations across prompts, over that before treatment (0: the same for all)")
    panel.set_ylabel("perplexity over that of the model as it comes")
    handles: list[Line2D | Patch] = [*word_marks(summary.word for summary, _, _ in shown)]
    handles.append(Patch(color=GREY, alpha=0.12, label="counts as damage"))
    legend_below(figure, handles, most_columns=5)
    place_labels(
        panel,
        [(x, y) for _, x, y in shown],
        [summary.label for summary, _, _ in shown],
        colours=[word_style(summary.word).text_colour for summary, _, _ in shown],
    )
    return figure


@in_own_style
def layer_gap(latent: Sequence[LatentRecord], summaries: Sequence[ModelSummary]) -> Figure:
    """Return the gap between self and other at the last token by layer, one panel per set of pairs.

    Raises:
        NothingToDraw: there is no record, or there are more models than lines can be told apart.
    """
    shown = [pairs for pairs in _PAIRS if any(record.pairs == pairs for record in latent)]
    if not shown:
        raise NothingToDraw("no latent overlap was measured")
    labels = list(dict.fromkeys(record.label for record in latent))
    if len(labels) > _MOST_LINES:
        raise NothingToDraw(f"more than {_MOST_LINES} models: their lines cannot be told apart")
    figure, panels = several_panels(len(shown), 4.2, 4.2, "Where self and other differ", sharey=True)
    words = {summary.label: summary.word for summary in summaries}
    for panel, pairs in zip(panels, shown, strict=True):
        for label in labels:
            gaps = [record.gap for record in latent if (record.label, record.pairs) == (label, pairs)]
            values = np.array([gap.relative for gap in gaps], dtype=np.float64)
            colour = _SHADES.get(label, word_style(words.get(label)).colour)
            style = "-" if label in _SHADES else _DASHES[list(words).index(label) % len(_DASHES)]
            panel.plot(gaps[0].layers, mean_of_present(values), color=colour, linestyle=style, label=label)
        panel.set_title(_PAIRS[pairs])
        panel.set_xlabel("decoder layer")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_yscale("log")
    panels[0].set_ylabel("squared difference over power, last token")
    legend_below(figure, labelled(panels[0]), most_columns=5)
    return figure


def _stacked(panel: Axes, row: float, cell: CellRates) -> None:
    left = 0.0
    for label in LABEL_COLOURS:
        width = cell.of(label).estimate or 0.0
        line = 0.4 if width else 0.0
        panel.barh(row, width, left=left, height=0.34, linewidth=line, zorder=2, **_filling(label))
        left += width
    # Where every answer chooses a room, the two intervals are one and the same.
    several = bool(cell.refusal_or_other.estimate)
    whiskers = (
        [(cell.deceptive, False, -0.06), (cell.honest, True, 0.06)] if several else [(cell.deceptive, False, 0.0)]
    )
    for rate, from_right, shift in whiskers:
        if rate.low is not None and rate.high is not None:
            ends = [1 - rate.low, 1 - rate.high] if from_right else [rate.low, rate.high]
            for colour, width in (("white", 2.8), (INK, 1.3)):
                panel.plot(ends, [row + shift] * 2, color=colour, linewidth=width, zorder=4, solid_capstyle="butt")


def _filling(label: Label) -> dict[str, Any]:
    colour = LABEL_COLOURS[label]
    if label == "other":
        return {"facecolor": colour, "edgecolor": GREY, "hatch": "////"}
    return {"facecolor": colour, "edgecolor": colour}


def _behaviour(panel: Axes, summary: ModelSummary) -> None:
    """Rates after each epoch: thin per seed, thick for the mean over the seeds that came so far."""
    panel.grid(axis="y")
    panel.set_ylim(-0.04, 1.04)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    panel.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    for label in _SHOWN_BY_EPOCH:
        for orientation, line in _LINES.items():
            rows: dict[int, list[float]] = {}
            for seed in summary.seeds:
                epochs = [record.epoch for record in seed.training.epochs]
                values = [float(getattr(record, f"{label}_{orientation}")) for record in seed.training.epochs]
                for epoch, value in zip(epochs, values, strict=True):
                    rows.setdefault(epoch, []).append(value)
                if len(summary.seeds) > 1:
                    panel.plot(epochs, values, color=LABEL_COLOURS[label], linestyle=line, linewidth=0.6, alpha=0.4)
            panel.plot(
                sorted(rows),
                [float(np.mean(rows[epoch])) for epoch in sorted(rows)],
                color=LABEL_COLOURS[label],
                linestyle=line,
                linewidth=2,
                marker="." if len(rows) < 2 else "",
                zorder=3,
            )


def _epoch_losses(seed: SeedVerdict) -> NDArray[np.float64]:
    """Mean loss of each whole epoch over that of the first; empty where there are no epochs or no loss to compare."""
    steps, losses = seed.training.steps_per_epoch, np.asarray(seed.training.losses, dtype=np.float64)
    count = len(losses) // steps if steps else 0
    if not count:
        return np.empty(0)
    means = losses[: count * steps].reshape(count, steps).mean(axis=1)
    return np.maximum(means / means[0], 1e-12) if means[0] > 0 else np.empty(0)
