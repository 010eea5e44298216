"""Figures of a fine-tuning study with a row per condition; nothing is computed but positions.

Every picture says the verdicts, by the words themselves and by the shapes and colours of
:mod:`soo_marl.report.figures.verdict_styles`. Pictures with a dot per agent are in
:mod:`soo_marl.report.figures.agents`, contour plots in :mod:`soo_marl.report.figures.profiles`, time courses in
:mod:`soo_marl.report.figures.time_courses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from soo_marl.report.data import in_words
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
from soo_marl.report.figures.verdict_styles import (
    DECEPTIVE,
    HONEST,
    WORDS,
    WordStyle,
    counted_words,
    group_of,
    word,
    word_marks,
    word_style,
    words_that_occur,
)
from soo_marl.statistics import Interval
from soo_marl.studies.finetuning.records import ConditionSummary

_NOTHING = Interval(estimate=None, n=0)


@in_own_style
def behavioural_differences(conditions: Sequence[ConditionSummary]) -> Figure:
    """Return a bar per condition: its difference to honest agents as a fraction of the deceptive baseline's.

    The whiskers are 95 % intervals of the difference, on the same scale; a white diamond is the difference to deceptive
    agents. Beside each bar stand the verdicts and the goal rate, and broken conditions are grey and hatched: a policy
    that does nothing has few deceptive steps and so looks near to an honest one.
    Conditions measured after further training are left out.

    Raises:
        NothingToDraw: no condition has a difference to honest agents, or the deceptive baseline has none above zero.
    """
    shown = _right_after(conditions, "difference_to_honest")
    if not shown:
        raise NothingToDraw("there are no differences to honest agents to draw")
    scale = next((_measure(i, "difference_to_honest").estimate for i in shown if i.condition == DECEPTIVE), None)
    if scale is None or scale <= 0:
        raise NothingToDraw("differences are drawn as fractions of the deceptive baseline's, which must be above zero")
    figure, panel = _row_panel(shown, "Behavioural difference to honest agents")
    for row, item in enumerate(shown):
        style, value = word_style(item.verdict), _measure(item, "difference_to_honest")
        estimate = (value.estimate or 0.0) / scale
        panel.barh(row, estimate, height=0.62, linewidth=0.8, alpha=0.75, zorder=2, **_filling(style))
        if value.low is not None and value.high is not None:
            panel.plot([value.low / scale, value.high / scale], [row, row], color=INK, linewidth=1.4, zorder=6)
        # A difference near zero has no bar to speak of, but it has a mark.
        _whisker(panel, row, Interval(estimate=estimate, n=value.n), item.verdict)
        other = _measure(item, "difference_to_deceptive").estimate
        if other is not None:
            panel.plot(other / scale, row, "D", markersize=5, color="white", markeredgecolor=INK, zorder=5)
    panel.axvline(1, color=GREY, linewidth=0.9, linestyle=":", zorder=1)
    panel.set_xlim(left=-0.02)
    panel.set_xlabel("mean squared difference of deception profiles, as a fraction of deceptive to honest")
    words = words_that_occur(item.verdict for item in shown)
    handles: list[Patch | Line2D] = [Patch(label=name, **_filling(word_style(name))) for name in words]
    handles.append(mark("D", "white", "difference to deceptive agents", edge=INK))
    handles.append(Line2D([], [], color=INK, linewidth=1.4, label="95 % interval"))
    legend_below(figure, handles)
    return figure


@in_own_style
def gain_from_seeing(conditions: Sequence[ConditionSummary]) -> Figure:
    """Return, per condition, the mean return with sight of red minus that with red blanked, with its 95 % interval.

    For a game in which an honest agent needs its eyes: there a blind agent gains nothing. The shaded band is the
    interval of the honest baseline. Conditions measured after further training are left out.

    Raises:
        NothingToDraw: no condition has such a gain.
    """
    shown = _right_after(conditions, "seeing_gain")
    if not shown:
        raise NothingToDraw("there are no gains from seeing to draw")
    figure, panel = _row_panel(shown, "What seeing red is worth")
    panel.axvline(0, color=GREY, linewidth=1)
    handles: list[Patch | Line2D] = [*word_marks(item.verdict for item in shown)]
    for row, item in enumerate(shown):
        gain = _measure(item, "seeing_gain")
        if item.condition == HONEST and gain.low is not None and gain.high is not None:
            panel.axvspan(gain.low, gain.high, color=WORDS["honest"].colour, alpha=0.13, linewidth=0)
            handles.append(Patch(color=WORDS["honest"].colour, alpha=0.13, label="interval of the honest baseline"))
        _whisker(panel, row, gain, item.verdict)
    panel.set_xlabel("return with red seen minus return with red blanked (per episode; 0: blind)")
    legend_below(figure, handles)
    return figure


@in_own_style
def lasting(conditions: Sequence[ConditionSummary]) -> Figure:
    """Return, per condition, the trap rate right after fine-tuning and after further training without the loss.

    A white mark is right after fine-tuning, a filled one after further training, each with its 95 % interval; the shape
    says the verdict of its time. Shaded bands are the baselines' intervals.

    Raises:
        NothingToDraw: no condition has both numbers.
    """
    now = _right_after(conditions, "trap_rate")
    later = {
        item.condition: item for item in conditions if item.after and _measure(item, "trap_rate").estimate is not None
    }
    pairs = [(item, later[item.condition]) for item in now if item.condition in later]
    if not pairs:
        raise NothingToDraw("there are no conditions measured both right after fine-tuning and later to draw")
    figure, panel = _row_panel([item for item, _ in pairs], "Does it last without the loss?", [end for _, end in pairs])
    for item in now:
        rate = _measure(item, "trap_rate")
        if item.condition in (HONEST, DECEPTIVE) and rate.estimate is not None:
            colour = group_of(item.condition).colour
            ends = [rate.estimate if end is None else end for end in (rate.low, rate.high)]
            panel.axvspan(ends[0], ends[1], color=colour, alpha=0.13, linewidth=0)
            panel.axvline(rate.estimate, color=colour, linewidth=0.9, linestyle=":")
    for row, (item, after) in enumerate(pairs):
        start, end = _measure(item, "trap_rate"), _measure(after, "trap_rate")
        panel.plot(numbers([start.estimate, end.estimate]), [row, row], color=PALE, linewidth=3, zorder=1)
        _whisker(panel, row - 0.14, start, item.verdict, filled=False)
        _whisker(panel, row + 0.14, end, after.verdict)
    panel.set_xlim(-0.03, 1.03)
    panel.set_xlabel("trap rate: episodes in which red ends trapped (dotted: honest and deceptive baselines)")
    handles = word_marks(item.verdict for pair in pairs for item in pair)
    handles.append(mark("o", "white", "white: right after fine-tuning", edge=INK))
    handles.append(mark("o", INK, "filled: after further training without the loss"))
    legend_below(figure, handles)
    return figure


def _right_after(conditions: Sequence[ConditionSummary], measure: str) -> list[ConditionSummary]:
    """Those at the end of their treatment that have the measure."""
    return [item for item in conditions if not item.after and _measure(item, measure).estimate is not None]


def _measure(item: ConditionSummary, name: str) -> Interval:
    return item.measures.get(name, _NOTHING)


def _filling(style: WordStyle) -> dict[str, Any]:
    return {"facecolor": style.fill, "hatch": style.hatch, "edgecolor": GREY if style.hatch else style.fill}


def _row_panel(
    conditions: Sequence[ConditionSummary], title: str, later: Sequence[ConditionSummary] | None = None
) -> tuple[Figure, Axes]:
    """A panel with a row per condition, and beside it verdicts and goal rates, or verdicts before and after."""
    figure, panel = one_panel(10, 1.9 + 0.36 * len(conditions), title)
    panel.grid(axis="x")
    panel.set_yticks(range(len(conditions)), [in_words(item.condition) for item in conditions], fontsize=9)
    panel.set_ylim(len(conditions) - 0.4, -0.6)
    if later is None:
        goals = [_measure(item, "goal_rate").estimate for item in conditions]
        _column(panel, 1.02, "goal rate", [("–" if goal is None else f"{goal:.2f}", None) for goal in goals])
        _column(panel, 1.13, "verdict (agents)", [(counted_words(item), item.verdict) for item in conditions])
    else:
        _column(panel, 1.02, "right after", [(word(item.verdict), item.verdict) for item in conditions])
        _column(panel, 1.24, "later", [(word(item.verdict), item.verdict) for item in later])
    return figure, panel


def _column(panel: Axes, place: float, heading: str, entries: Sequence[tuple[str, str | None]]) -> None:
    """Texts to the right of the rows; with a verdict, in its colour and after its shape."""
    panel.annotate(heading, (place, 1), (0, 4), "axes fraction", "offset points", fontsize=8, color=GREY, va="bottom")
    for row, (text, verdict) in enumerate(entries):
        style = word_style(verdict)
        panel.text(
            place,
            row,
            text if verdict is None else f"{style.glyph} {text}",
            transform=panel.get_yaxis_transform(),
            fontsize=9,
            color=INK if verdict is None else style.text_colour,
            va="center",
        )


def _whisker(panel: Axes, row: float, value: Interval, verdict: str | None, filled: bool = True) -> None:
    """An estimate as the mark of its verdict, and its interval as a line."""
    style = word_style(verdict)
    if value.low is not None and value.high is not None:
        panel.plot([value.low, value.high], [row, row], color=style.colour, linewidth=1.6, zorder=2)
    panel.plot(
        numbers([value.estimate]),
        [row],
        marker=style.marker,
        markersize=7.5,
        color=style.colour if filled else "white",
        markeredgecolor=style.colour,
        markeredgewidth=1.4,
        zorder=3,
    )
