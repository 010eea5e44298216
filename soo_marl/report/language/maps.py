"""Maps of a language study: what is answered in every scenario, and where training on overlap works."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from soo_marl.llm.measures.evaluation import VERDICT_ROLES
from soo_marl.llm.measures.records import ModelSummary
from soo_marl.llm.prompts.scenarios import ORIENTATIONS
from soo_marl.report.data import in_words
from soo_marl.report.figures.style import GREY, NothingToDraw, in_own_style, legend_below, one_panel
from soo_marl.report.figures.verdict_styles import LANGUAGE_WORDS, glyph_and_word, word_style, words_that_occur
from soo_marl.report.language.styles import LABEL_COLOURS, ORIENTATION_NAMES

_HALF = 0.5
_PALE = 0.35
"""Opacity of a verdict's colour below what stands on it."""


@in_own_style
def answers_by_scenario(summaries: Sequence[ModelSummary]) -> Figure:
    """Return a map: a row per scenario or role, two tiles per model, one for each orientation.

    A tile's colour mixes those of the labels by their shares; in it stand the per cent of answers that name the wrong
    room and the right one, and what is left to 100 names none. Shown are the models that were asked further scenarios.

    Raises:
        NothingToDraw: no model was asked a scenario beyond the roles that verdicts look at.
    """
    asked = {summary.label: list(dict.fromkeys(cell.scenario for cell in summary.cells)) for summary in summaries}
    shown = [summary for summary in summaries if set(asked[summary.label]) - set(VERDICT_ROLES)]
    if not shown:
        raise NothingToDraw("no model was asked further scenarios")
    rows = asked[shown[0].label]
    figure, panel = one_panel(2.6 + 2.3 * len(shown), 1.5 + 0.34 * len(rows), "Where does it hold?")
    for column, summary in enumerate(shown):
        for half, (orientation, name) in enumerate(ORIENTATION_NAMES.items()):
            middle = column + _HALF * (half + 0.5)
            for row, scenario in enumerate(rows):
                cell = summary.cell(scenario, orientation)
                if cell is None or not cell.prompts:
                    continue
                shares = {label: cell.of(label).estimate or 0.0 for label in LABEL_COLOURS}
                mixed = sum(share * np.array(to_rgb(LABEL_COLOURS[label])) for label, share in shares.items())
                # Paler than in the bars, so that black figures can be read on them.
                colour = 0.45 * np.minimum(mixed, 1) + 0.55
                tile = Rectangle((middle - 0.25, row - 0.46), _HALF - 0.02, 0.92, facecolor=colour, linewidth=0.4)
                _tile(panel, tile, (middle, row), f"{100 * shares['deceptive']:.0f} | {100 * shares['honest']:.0f}")
            panel.text(middle, -0.62, name, ha="center", va="bottom", fontsize=7.5)
        colour_of_word = word_style(summary.word).text_colour
        heading = f"{summary.label}   {glyph_and_word(summary.word)}"
        panel.text(column + 0.5, -1.15, heading, ha="center", va="bottom", fontsize=9.5, color=colour_of_word)
    panel.set_xlim(-0.02, len(shown))
    panel.set_ylim(len(rows) - 0.5, -1.7)
    panel.set_yticks(range(len(rows)), [in_words(name) for name in rows], fontsize=8.5)
    panel.set_xticks([])
    _bare(panel)
    legend_below(figure, [Patch(facecolor=colour, label=label) for label, colour in LABEL_COLOURS.items()])
    return figure


@in_own_style
def layer_map(summaries: Sequence[ModelSummary]) -> Figure:
    """Return a map of verdicts: layers by token mode and learning rate, with the honest rates written in.

    Shown are models trained with self-other overlap.

    Raises:
        NothingToDraw: fewer than three combinations of layers, token mode and learning rate were trained, or one of
            them twice, so that the models differ in something else.
    """
    trained = [summary for summary in summaries if summary.method == "soo" and summary.learning_rate is not None]
    places = [(s.layers, f"{s.token_mode}\nrate {s.learning_rate:g}") for s in trained]
    columns, rows = (list(dict.fromkeys(place[part] for place in places)) for part in (0, 1))
    if len(set(places)) < max(3, len(trained)):
        raise NothingToDraw("a map needs three combinations of layers, token mode and learning rate, each once")
    figure, panel = one_panel(1.6 + 1.25 * len(columns), 1.6 + 0.8 * len(rows), "Where training on overlap works")
    for summary, (layers, row) in zip(trained, places, strict=True):
        x, y = columns.index(layers), rows.index(row)
        cells = [summary.cell("burglar", orientation) for orientation in ORIENTATIONS]
        honest = [f"{100 * cell.honest.estimate:.0f}" for cell in cells if cell and cell.honest.estimate is not None]
        colour = word_style(summary.word).colour
        tile = Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, facecolor=colour, alpha=_PALE, linewidth=0.5)
        _tile(panel, tile, (x, y), f"{summary.word}\n{' / '.join(honest)} %")
    panel.set_xlim(-0.5, len(columns) - 0.5)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_xticks(range(len(columns)), columns)
    panel.set_yticks(range(len(rows)), rows)
    panel.set_xlabel("layers of the loss")
    _bare(panel)
    words = [word for word in words_that_occur(summary.word for summary in trained) if word in LANGUAGE_WORDS]
    legend_below(figure, [Patch(facecolor=word_style(word).colour, alpha=_PALE, label=word) for word in words])
    return figure


def _tile(panel: Axes, tile: Rectangle, middle: tuple[float, float], text: str) -> None:
    tile.set_edgecolor(GREY)
    panel.add_patch(tile)
    panel.text(*middle, text, ha="center", va="center", fontsize=8)


def _bare(panel: Axes) -> None:
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
