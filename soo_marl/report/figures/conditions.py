"""Figures of a fine-tuning study with a row per condition; nothing is computed but positions.

Every picture says the verdicts, by the words themselves and by the shapes and colours of
:mod:`soo_marl.report.figures.verdict_styles`. Pictures with a dot per agent are in
:mod:`soo_marl.report.figures.agents`, contour plots in :mod:`soo_marl.report.figures.profiles`, time courses in
:mod:`soo_marl.report.figures.time_courses`.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from soo_marl.report.figures.baselines import GREY, INK, in_own_style, mark, numbers
from soo_marl.report.figures.verdict_styles import (
    DECEPTIVE,
    HONEST,
    WORDS,
    NothingToDraw,
    condition_name,
    counted_words,
    group_of,
    word,
    word_style,
)
from soo_marl.statistics import Interval
from soo_marl.studies.finetuning.records import ConditionSummary

_NOTHING = Interval(estimate=None, n=0)


@in_own_style
def behavioural_differences(
    conditions: Sequence[ConditionSummary], title: str = "Behavioural difference to honest agents"
) -> Figure:
    """Return a bar per condition: its difference to honest agents as a fraction of the deceptive baseline's.

    The whiskers are 95 % intervals of the difference, on the same scale; a white diamond is the difference to deceptive
    agents. Beside each bar stand the verdicts and the goal rate, and broken conditions are grey and hatched: a policy
    that does nothing has few deceptive steps and so looks near to an honest one.

    Args:
        conditions: in the order of the bars, the deceptive baseline among them; those measured after further training
            are left out.

    Raises:
        NothingToDraw: no condition has a difference to honest agents, or the deceptive baseline has none above zero.
    """
    shown = [item for item in _right_after(conditions) if _measure(item, "difference_to_honest").estimate is not None]
    if not shown:
        raise NothingToDraw("there are no differences to honest agents to draw")
    scale = next(
        (_measure(item, "difference_to_honest").estimate for item in shown if item.condition == DECEPTIVE), None
    )
    if scale is None or scale <= 0:
        raise NothingToDraw("differences are drawn as fractions of the deceptive baseline's, which must be above zero")
    figure, panel = _row_panel(shown, title)
    for row, item in enumerate(shown):
        style, value = word_style(item.verdict), _measure(item, "difference_to_honest")
        estimate = value.estimate or 0.0
        panel.barh(
            row,
            estimate / scale,
            height=0.62,
            color=style.fill,
            hatch=style.hatch,
            edgecolor=GREY if style.hatch else style.fill,
            linewidth=0.8,
            alpha=0.75,
            zorder=2,
        )
        if value.low is not None and value.high is not None:
            panel.plot([value.low / scale, value.high / scale], [row, row], color=INK, linewidth=1.4, zorder=6)
        # A difference near zero has no bar to speak of, but it has a mark.
        _whisker(panel, row, Interval(estimate=estimate / scale, n=value.n), item.verdict, filled=True)
        other = _measure(item, "difference_to_deceptive").estimate
        if other is not None:
            panel.plot(other / scale, row, "D", markersize=5, color="white", markeredgecolor=INK, zorder=5)
    panel.axvline(1, color=GREY, linewidth=0.9, linestyle=":", zorder=1)
    panel.set_xlim(left=-0.02)
    panel.set_xlabel("mean squared difference of deception profiles, as a fraction of deceptive to honest")
    handles: list[Patch | Line2D] = [_word_patch(name) for name in _words_of(shown)]
    handles.append(mark("D", "white", "difference to deceptive agents", edge=INK))
    handles.append(Line2D([], [], color=INK, linewidth=1.4, label="95 % interval"))
    _legend_below(figure, handles)
    return figure


@in_own_style
def gain_from_seeing(conditions: Sequence[ConditionSummary], title: str = "What seeing red is worth") -> Figure:
    """Return, per condition, the mean return with sight of red minus that with red blanked, with its 95 % interval.

    For a game in which an honest agent needs its eyes: there a blind agent gains nothing. The shaded band is the
    interval of the honest baseline.

    Args:
        conditions: in the order of the rows; those measured after further training are left out.

    Raises:
        NothingToDraw: no condition has such a gain.
    """
    shown = [item for item in _right_after(conditions) if _measure(item, "seeing_gain").estimate is not None]
    if not shown:
        raise NothingToDraw("there are no gains from seeing to draw")
    figure, panel = _row_panel(shown, title)
    panel.axvline(0, color=GREY, linewidth=1)
    handles: list[Patch | Line2D] = [_word_mark(name) for name in _words_of(shown)]
    for item in shown:
        gain = _measure(item, "seeing_gain")
        if item.condition == HONEST and gain.low is not None and gain.high is not None:
            panel.axvspan(gain.low, gain.high, color=WORDS["honest"].colour, alpha=0.13, linewidth=0)
            handles.append(Patch(color=WORDS["honest"].colour, alpha=0.13, label="interval of the honest baseline"))
    for row, item in enumerate(shown):
        _whisker(panel, row, _measure(item, "seeing_gain"), item.verdict, filled=True)
    panel.set_xlabel("return with red seen minus return with red blanked (per episode; 0: blind)")
    _legend_below(figure, handles)
    return figure


@in_own_style
def lasting(conditions: Sequence[ConditionSummary], title: str = "Does it last without the loss?") -> Figure:
    """Return, per condition, the trap rate right after fine-tuning and after further training without the loss.

    A white mark is right after fine-tuning, a filled one after further training, each with its 95 % interval; the shape
    says the verdict of its time. Shaded bands are the baselines' intervals.

    Raises:
        NothingToDraw: no condition has both numbers.
    """
    later = {item.condition: item for item in conditions if item.after}
    pairs = [
        (item, later[item.condition])
        for item in _right_after(conditions)
        if item.condition in later
        and None not in (_measure(item, "trap_rate").estimate, _measure(later[item.condition], "trap_rate").estimate)
    ]
    if not pairs:
        raise NothingToDraw("there are no conditions measured both right after fine-tuning and later to draw")
    first, second = [item for item, _ in pairs], [item for _, item in pairs]
    figure, panel = _row_panel(first, title, second)
    for item in _right_after(conditions):
        rate = _measure(item, "trap_rate")
        if item.condition in (HONEST, DECEPTIVE) and rate.estimate is not None:
            colour = group_of(item.condition).colour
            panel.axvspan(
                rate.estimate if rate.low is None else rate.low,
                rate.estimate if rate.high is None else rate.high,
                color=colour,
                alpha=0.13,
                linewidth=0,
            )
            panel.axvline(rate.estimate, color=colour, linewidth=0.9, linestyle=":")
    for row, (item, after) in enumerate(pairs):
        start, end = _measure(item, "trap_rate"), _measure(after, "trap_rate")
        panel.plot(numbers([start.estimate, end.estimate]), [row, row], color="#BDBDBD", linewidth=3, zorder=1)
        _whisker(panel, row - 0.14, start, item.verdict, filled=False)
        _whisker(panel, row + 0.14, end, after.verdict, filled=True)
    panel.set_xlim(-0.03, 1.03)
    panel.set_xlabel("trap rate: episodes in which red ends trapped (dotted: honest and deceptive baselines)")
    handles = [_word_mark(name) for name in _words_of([*first, *second])]
    handles.append(mark("o", "white", "white: right after fine-tuning", edge=INK))
    handles.append(mark("o", INK, "filled: after further training without the loss"))
    _legend_below(figure, handles)
    return figure


def _right_after(conditions: Sequence[ConditionSummary]) -> list[ConditionSummary]:
    return [item for item in conditions if not item.after]


def _measure(item: ConditionSummary, name: str) -> Interval:
    return item.measures.get(name, _NOTHING)


def _words_of(conditions: Sequence[ConditionSummary]) -> list[str]:
    """The words that occur, in the order of legends."""
    found = {word(item.verdict) for item in conditions}
    return [name for name in WORDS if name in found]


def _row_panel(
    conditions: Sequence[ConditionSummary], title: str, later: Sequence[ConditionSummary] | None = None
) -> tuple[Figure, Axes]:
    """A panel with a row per condition, and beside it verdicts and goal rates, or verdicts before and after."""
    figure = Figure(figsize=(10, 1.9 + 0.36 * len(conditions)), layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold")
    panel = figure.add_subplot()
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(True, axis="x", color="#E5E5E5", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=9)
    panel.set_yticks(range(len(conditions)), [condition_name(item.condition) for item in conditions])
    panel.set_ylim(len(conditions) - 0.4, -0.6)
    if later is None:
        goals = [_measure(item, "goal_rate").estimate for item in conditions]
        texts = ["–" if goal is None else f"{goal:.2f}" for goal in goals]
        _column(panel, 1.02, "goal rate", [(text, None) for text in texts])
        _column(panel, 1.13, "verdict (agents)", [(counted_words(item), item.verdict) for item in conditions])
    else:
        _column(panel, 1.02, "right after", [(word(item.verdict), item.verdict) for item in conditions])
        _column(panel, 1.24, "later", [(word(item.verdict), item.verdict) for item in later])
    return figure, panel


def _column(panel: Axes, place: float, heading: str, entries: Sequence[tuple[str, str | None]]) -> None:
    """Texts to the right of the rows; with a verdict, in its colour and after its shape."""
    panel.annotate(
        heading,
        (place, 1),
        xycoords="axes fraction",
        xytext=(0, 4),
        textcoords="offset points",
        fontsize=8,
        color=GREY,
        va="bottom",
    )
    for row, (text, verdict) in enumerate(entries):
        style = word_style(verdict)
        known = verdict is not None
        panel.annotate(
            f"{style.glyph} {text}" if known else text,
            (place, row),
            xycoords=("axes fraction", "data"),
            fontsize=9,
            color=style.text_colour if known else INK,
            va="center",
            annotation_clip=False,
        )


def _whisker(panel: Axes, row: float, value: Interval, verdict: str | None, filled: bool) -> None:
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


def _word_mark(name: str) -> Line2D:
    return mark(WORDS[name].marker, WORDS[name].colour, name)


def _word_patch(name: str) -> Patch:
    style = WORDS[name]
    return Patch(facecolor=style.fill, hatch=style.hatch, edgecolor=GREY if style.hatch else style.fill, label=name)


def _legend_below(figure: Figure, handles: Sequence[Patch | Line2D]) -> None:
    columns = len(handles) if len(handles) <= 4 else (len(handles) + 1) // 2
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)
