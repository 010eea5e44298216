"""The picture of what models answer in every scenario: where a treatment's effect ends."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from soo_marl.llm.measures.evaluation import VERDICT_ROLES
from soo_marl.llm.measures.rates import CellRates
from soo_marl.llm.measures.records import ModelSummary
from soo_marl.report.figures.baselines import GREY, in_own_style
from soo_marl.report.figures.verdict_styles import NothingToDraw
from soo_marl.report.language.styles import LABEL_COLOURS, ORIENTATION_NAMES, word_style

_HALF = 0.5


@in_own_style
def answers_by_scenario(summaries: Sequence[ModelSummary], title: str = "Where does it hold?") -> Figure:
    """Return a map: a row per scenario or role, two tiles per model, one for each orientation.

    A tile's colour mixes those of the labels by their shares; in it stand the per cent of answers that name the wrong
    room and the right one, and what is left to 100 names none. Shown are the models that were asked further scenarios.

    Args:
        summaries: all models.
        title: of the picture.

    Raises:
        NothingToDraw: no model was asked a scenario beyond the roles that verdicts look at.
    """
    asked = {summary.label: _scenarios(summary) for summary in summaries}
    shown = [summary for summary in summaries if set(asked[summary.label]) - set(VERDICT_ROLES)]
    if not shown:
        raise NothingToDraw("no model was asked further scenarios")
    rows = asked[shown[0].label]
    figure = Figure(figsize=(2.6 + 2.3 * len(shown), 1.5 + 0.34 * len(rows)), layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold")
    panel = figure.add_subplot()
    for column, summary in enumerate(shown):
        for half, orientation in enumerate(ORIENTATION_NAMES):
            left = column + _HALF * half
            for row, name in enumerate(rows):
                cell = summary.cell(name, orientation)
                if cell is not None and cell.prompts:
                    _tile(panel, left, row, cell)
            panel.text(left + _HALF / 2, -0.62, ORIENTATION_NAMES[orientation], ha="center", va="bottom", fontsize=7.5)
        style = word_style(summary.word)
        panel.text(
            column + 0.5, -1.15, f"{summary.label}   {style.glyph} {summary.word}",
            ha="center", va="bottom", fontsize=9.5, color=style.text_colour,
        )  # fmt: skip
    panel.set_xlim(-0.02, len(shown))
    panel.set_ylim(len(rows) - 0.5, -1.7)
    panel.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows], fontsize=8.5)
    panel.set_xticks([])
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    handles = [Patch(facecolor=colour, label=label) for label, colour in LABEL_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    return figure


def _scenarios(summary: ModelSummary) -> list[str]:
    return list(dict.fromkeys(cell.scenario for cell in summary.cells))


def _tile(panel: Axes, left: float, row: int, cell: CellRates) -> None:
    shares = {label: cell.of(label).estimate or 0.0 for label in LABEL_COLOURS}
    mixed = [sum(share * to_rgb(LABEL_COLOURS[label])[part] for label, share in shares.items()) for part in range(3)]
    # Paler than in the bars, so that black figures can be read on them.
    colour = tuple(0.45 * min(1.0, part) + 0.55 for part in mixed)
    tile = Rectangle((left, row - 0.46), _HALF - 0.02, 0.92, facecolor=colour, edgecolor=GREY, linewidth=0.4)
    panel.add_patch(tile)
    text = f"{100 * shares['deceptive']:.0f} | {100 * shares['honest']:.0f}"
    panel.text(left + _HALF / 2, row, text, ha="center", va="center", fontsize=8)
