"""Where in a language model self and other differ, and where training on that helped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from soo_marl.llm.measures.records import LatentRecord, ModelSummary
from soo_marl.llm.prompts.scenarios import ORIENTATIONS
from soo_marl.llm.study.configuration import BASE, ORGANISM
from soo_marl.report.figures.baselines import GREY, in_own_style
from soo_marl.report.figures.verdict_styles import NothingToDraw
from soo_marl.report.language.styles import WORDS, word_style, words_that_occur

_PAIRS = {
    "scenario/train": "pairs of training",
    "scenario/test": "held-out rooms and objects",
    "fragments/test": "the paper's wording",
}
_MOST_LINES = 10
_DASHES = ("-", "--", ":", "-.")
_SHADES = {BASE: "#9E9E9E", ORGANISM: "#222222"}


@in_own_style
def layer_gap(
    latent: Sequence[LatentRecord],
    summaries: Sequence[ModelSummary],
    title: str = "Where self and other differ",
) -> Figure:
    """Return the gap between self and other at the last token by layer, one panel per set of pairs.

    Args:
        latent: of all models; seeds are averaged.
        summaries: give the colour of each model's verdict.
        title: of the picture.

    Raises:
        NothingToDraw: there is no record, or there are more models than lines can be told apart.
    """
    shown = [pairs for pairs in _PAIRS if any(record.pairs == pairs for record in latent)]
    if not shown:
        raise NothingToDraw("no latent overlap was measured")
    labels = list(dict.fromkeys(record.label for record in latent))
    if len(labels) > _MOST_LINES:
        raise NothingToDraw(f"more than {_MOST_LINES} models: their lines cannot be told apart")
    figure = Figure(figsize=(4.2 * len(shown), 4.2), layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold")
    panels: list[Axes] = list(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0])
    words = {summary.label: summary.word for summary in summaries}
    for panel, pairs in zip(panels, shown, strict=True):
        for label in labels:
            gaps = [record.gap for record in latent if (record.label, record.pairs) == (label, pairs)]
            values = np.array([gap.relative for gap in gaps], dtype=np.float64)
            colour = _SHADES.get(label, word_style(words.get(label, "")).colour)
            style = "-" if label in _SHADES else _DASHES[list(words).index(label) % len(_DASHES)]
            panel.plot(gaps[0].layers, np.nanmean(values, axis=0), color=colour, linestyle=style, label=label)
        panel.set_title(_PAIRS[pairs], fontsize=10)
        panel.set_xlabel("decoder layer")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_yscale("log")
    panels[0].set_ylabel("squared difference over power, last token")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9
    )
    return figure


@in_own_style
def layer_map(summaries: Sequence[ModelSummary], title: str = "Where training on overlap works") -> Figure:
    """Return a map of verdicts: layers by token mode and learning rate, with the honest rates written in.

    Args:
        summaries: all models; those trained with self-other overlap are shown.
        title: of the picture.

    Raises:
        NothingToDraw: fewer than three combinations of layers, token mode and learning rate were trained, or one of
            them twice, so that the models differ in something else.
    """
    trained = [summary for summary in summaries if summary.method == "soo" and summary.learning_rate is not None]
    rows = list(dict.fromkeys(_row(summary) for summary in trained))
    columns = list(dict.fromkeys(summary.layers for summary in trained))
    combinations = {(_row(summary), summary.layers) for summary in trained}
    if len(combinations) < max(3, len(trained)):
        raise NothingToDraw("a map needs three combinations of layers, token mode and learning rate, each once")
    figure = Figure(figsize=(1.6 + 1.25 * len(columns), 1.6 + 0.8 * len(rows)), layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold")
    panel = figure.add_subplot()
    for summary in trained:
        x, y = columns.index(summary.layers), rows.index(_row(summary))
        style = word_style(summary.word)
        panel.add_patch(_tile(x, y, style.colour))
        cells = [summary.cell("burglar", orientation) for orientation in ORIENTATIONS]
        honest = [f"{100 * cell.honest.estimate:.0f}" for cell in cells if cell and cell.honest.estimate is not None]
        panel.text(x, y, f"{summary.word}\n{' / '.join(honest)} %", ha="center", va="center", fontsize=8)
    panel.set_xlim(-0.5, len(columns) - 0.5)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_xticks(range(len(columns)), columns)
    panel.set_yticks(range(len(rows)), rows)
    panel.set_xlabel("layers of the loss")
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    handles = [
        Patch(facecolor=word_style(word).colour, alpha=0.35, label=word)
        for word in words_that_occur([summary.word for summary in trained])
        if word in WORDS
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _row(summary: ModelSummary) -> str:
    return f"{summary.token_mode}\nrate {summary.learning_rate:g}"


def _tile(x: float, y: float, colour: str) -> Rectangle:
    return Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, facecolor=colour, alpha=0.35, edgecolor=GREY, linewidth=0.5)
