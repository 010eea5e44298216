import numpy as np
import pytest
from finetuning_data import CENTRES, FOUR, made_up, x_of, y_of
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from soo_marl.report.figures.conditions import behavioural_differences, gain_from_seeing, lasting
from soo_marl.report.figures.verdict_styles import WORDS
from soo_marl.storage.records import Interval
from soo_marl.studies.finetuning.records import ConditionSummary


def condition(name: str, verdict: str | None = None, after: bool = False, **measures: object) -> ConditionSummary:
    """Measures are estimates, or (low, estimate, high)."""
    intervals = {}
    for key, value in measures.items():
        low, estimate, high = value if isinstance(value, tuple) else (None, value, None)
        intervals[key] = Interval(estimate=estimate, low=low, high=high, n=10)
    return ConditionSummary(condition=name, method=name, verdict=verdict, after=after, measures=intervals)


def marked(panel: Axes, marker: str) -> list[Line2D]:
    return [line for line in panel.lines if line.get_marker() == marker]


def bars(panel: Axes) -> list[Rectangle]:
    return [patch for patch in panel.patches if isinstance(patch, Rectangle)]


def texts(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.texts]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that lie over one another."""
    figure.draw_without_rendering()
    (panel,) = figure.axes
    found = [*panel.texts, *panel.get_yticklabels()]
    boxes = [text.get_window_extent() for text in found]
    return [
        (found[i].get_text(), found[j].get_text())
        for i in range(len(found))
        for j in range(i)
        if boxes[i].overlaps(boxes[j])
    ]


def test_bars_are_fractions_of_the_deceptive_baseline_s_difference() -> None:
    figure = behavioural_differences(
        [
            condition("deceptive", "still deceptive", difference_to_honest=(0.03, 0.04, 0.06), goal_rate=0.94),
            condition("soo", "blind", difference_to_honest=0.01, difference_to_deceptive=0.05, goal_rate=0.97),
            condition("random", "broken", difference_to_honest=0.002, goal_rate=0.02),
            condition("soo", "still deceptive", after=True, difference_to_honest=0.03),
            condition("anchor", "honest"),
        ]
    )
    (panel,) = figure.axes
    found = bars(panel)
    assert [bar.get_width() for bar in found] == pytest.approx([1, 0.25, 0.05])
    assert [to_hex(bar.get_facecolor()).upper() for bar in found] == [
        WORDS[word].fill for word in ("still deceptive", "blind", "broken")
    ]
    assert [bool(bar.get_hatch()) for bar in found] == [False, False, True]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["deceptive", "soo", "random"]
    (diamond,) = marked(panel, "D")
    assert (x_of(diamond)[0], y_of(diamond)[0]) == pytest.approx((1.25, 1))
    whiskers = [line for line in panel.lines if len(x_of(line)) == 2 and line.get_linewidth() == 1.4]
    np.testing.assert_allclose(x_of(whiskers[0]), [0.75, 1.5])
    assert {"0.94", "0.97", "0.02", "■ blind", "✖ broken", "▲ still deceptive"} <= set(texts(panel))
    assert "broken" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_differences_need_a_deceptive_baseline_that_differs() -> None:
    with pytest.raises(ValueError, match="no differences to honest agents to draw"):
        behavioural_differences([condition("deceptive", trap_rate=0.9)])
    for baseline in (condition("deceptive", difference_to_honest=0.0), condition("deceptive")):
        with pytest.raises(ValueError, match="fractions of the deceptive baseline's, which must be above zero"):
            behavioural_differences([baseline, condition("soo", difference_to_honest=0.1)])


def test_gain_from_seeing_shows_interval_word_and_the_honest_band() -> None:
    (panel,) = gain_from_seeing(
        [
            condition("honest", "honest", seeing_gain=(180.0, 200.0, 220.0)),
            condition("soo", "blind", seeing_gain=(-4.0, 3.0, 9.0)),
            condition("none", "still deceptive"),
        ]
    ).axes
    (band,) = bars(panel)
    assert (band.get_x(), band.get_width()) == pytest.approx((180, 40))
    (square,) = marked(panel, "s")
    assert (x_of(square)[0], y_of(square)[0]) == (3, 1)
    assert to_hex(square.get_color()).upper() == WORDS["blind"].colour
    assert any(np.array_equal(x_of(line), [-4, 9]) for line in panel.lines)
    assert [label.get_text() for label in panel.get_yticklabels()] == ["honest", "soo"]
    assert "–" in texts(panel), "a goal rate that was not measured"
    with pytest.raises(ValueError, match="no gains from seeing to draw"):
        gain_from_seeing([condition("soo", after=True, seeing_gain=3.0)])


def test_lasting_joins_both_times_of_a_condition() -> None:
    (panel,) = lasting(
        [
            condition("deceptive", "still deceptive", trap_rate=(0.94, 0.97, 0.99)),
            condition("soo", "blind", trap_rate=(0.2, 0.27, 0.3)),
            condition("soo", "still deceptive", after=True, trap_rate=0.61),
            condition("blank", "blind", trap_rate=0.28),
            condition("anchor", trap_rate=0.9),
            condition("anchor", after=True),
        ]
    ).axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["soo"]
    (start,), (end,) = marked(panel, "s"), marked(panel, "^")
    assert (x_of(start)[0], x_of(end)[0]) == (0.27, 0.61)
    assert to_hex(start.get_markerfacecolor()).upper() == "#FFFFFF"
    assert to_hex(end.get_markerfacecolor()).upper() == WORDS["still deceptive"].colour
    assert any(np.array_equal(x_of(line), [0.27, 0.61]) for line in panel.lines)
    (band,) = bars(panel)
    assert band.get_x() == pytest.approx(0.94)
    assert texts(panel) == ["right after", "■ blind", "later", "▲ still deceptive"]


def test_lasting_needs_both_times() -> None:
    with pytest.raises(ValueError, match="both right after fine-tuning and later to draw"):
        lasting([condition("soo", trap_rate=0.3), condition("none", after=True, trap_rate=0.3)])


@pytest.mark.parametrize("names", [FOUR, tuple(CENTRES)])
def test_no_text_hides_another(names: tuple[str, ...]) -> None:
    conditions = made_up(names, seeds=3).conditions
    for draw in (behavioural_differences, gain_from_seeing, lasting):
        assert overlapping(draw(conditions)) == []
