import numpy as np
import pytest
from finetuning_data import CENTRES, FOUR, made_up, x_of, y_of
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from soo_marl.report.figures.time_courses import MOST_LINES, time_courses
from soo_marl.storage.records import Interval
from soo_marl.studies.finetuning.records import ConditionSummary
from soo_marl.studies.learning.records import LearningCurve


def curve(
    condition: str,
    stage: str,
    updates: tuple[int, ...],
    mean: tuple[float | None, ...],
    metric: str = "trap_rate",
) -> LearningCurve:
    return LearningCurve(
        stage=stage, kind=condition, metric=metric, updates=updates, values=(mean,), mean=mean, low=mean, high=mean
    )


def courses(panel: Axes) -> list[Line2D]:
    return [line for line in panel.lines if line.get_linewidth() == 1.8 and len(x_of(line))]


def ends(panel: Axes) -> list[float]:
    return [x_of(line)[0] for line in panel.lines if line.get_linewidth() == 1]


def summary(condition: str, verdict: str, after: bool = False, **measures: float) -> ConditionSummary:
    intervals = {name: Interval(estimate=value, n=3) for name, value in measures.items()}
    return ConditionSummary(condition=condition, method=condition, verdict=verdict, after=after, measures=intervals)


def test_the_second_stage_follows_the_first_behind_a_line() -> None:
    figure = time_courses(
        [
            curve("soo", "finetune", (0, 50, 100), (0.9, 0.5, 0.2)),
            curve("soo", "after", (0, 200), (0.2, 0.6)),
            curve("none", "finetune", (0, 400), (0.9, None)),
            curve("soo", "settle", (0, 400), (0.1, 0.1)),
        ]
    )
    (panel,) = figure.axes
    first, second = courses(panel)
    np.testing.assert_array_equal(x_of(first), [0, 50, 100, 100, 300])
    np.testing.assert_array_equal(y_of(first), [0.9, 0.5, 0.2, 0.2, 0.6])
    np.testing.assert_array_equal(x_of(second), [0, 400])
    assert first.get_linestyle() != second.get_linestyle() and first.get_color() != second.get_color()
    assert ends(panel) == [100], "where nothing follows, no loss is taken away"
    assert len(panel.collections) == 2, "a band each"


def test_words_and_baselines_come_from_the_conditions() -> None:
    figure = time_courses(
        [curve("soo", "finetune", (0, 9), (0.9, 0.2)), curve("none", "finetune", (0, 9), (0.9, 0.9))],
        conditions=[
            summary("honest", "honest", trap_rate=0.26),
            summary("soo", "blind"),
            summary("soo", "still deceptive", after=True),
            summary("none", "still deceptive"),
            summary("none", "still deceptive", after=True),
        ],
    )
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["soo: ■ blind → ▲ still deceptive", "none: ▲ still deceptive"]
    assert "honest baseline" in labels
    levels = [y_of(line)[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert levels == [0.26]


def test_few_conditions_share_a_panel_per_metric() -> None:
    figure = time_courses(made_up(FOUR, seeds=2).curves)
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == ["trap rate", "goal rate", "goal rate alone", "rubric rate", "overlap", "sensitivity"]
    assert [panel.get_yscale() for panel in figure.axes] == ["linear"] * 4 + ["log", "linear"]
    assert all(len(courses(panel)) == 2 for panel in figure.axes)


def test_many_conditions_are_split_by_group_and_every_line_is_told_apart() -> None:
    study = made_up(seeds=2)
    two = [curve for curve in study.curves if curve.metric in ("trap_rate", "overlap")]
    figure = time_courses(two, study.conditions)
    rows = [panel for panel in figure.axes if panel.get_legend() is None]
    legends = [legend for panel in figure.axes if (legend := panel.get_legend()) is not None]
    assert len(rows) == len(legends) and len(figure.axes) == 2 * len(rows), "two metrics, the absent one left out"
    shown = [text.get_text().split("\n")[0] for legend in legends for text in legend.get_texts()]
    trained = [name.replace("_", " ") for name in CENTRES if name not in ("honest", "deceptive", "blank")]
    assert sorted(shown) == sorted(trained)
    for panel in figure.axes:
        lines = courses(panel)
        assert 1 <= len(lines) <= MOST_LINES
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines)
    assert sum(len(courses(panel)) for panel in rows) == len(trained)
    # Panels of one metric share their scale, however much their own lines spread.
    for column in (figure.axes[0::2], figure.axes[1::2]):
        assert len({panel.get_ylim() for panel in column}) == 1


def test_zeros_of_overlap_and_missing_means_are_drawn() -> None:
    zero = curve("soo", "finetune", (0, 1, 2), (1.0, 1e-4, 0.0), "overlap")
    bare = LearningCurve(
        stage="finetune", kind="none", metric="overlap", updates=(0, 1, 2), values=((1, 2, None), (3, None, None))
    )
    (panel,) = time_courses([zero, bare]).axes
    assert panel.get_yscale() == "symlog"
    np.testing.assert_array_equal(y_of(courses(panel)[1]), [2, 2, np.nan])


def test_nothing_to_draw_is_refused() -> None:
    for curves in (
        [],
        [curve("soo", "settle", (0, 1), (0.1, 0.2))],
        [curve("soo", "finetune", (0,), (0.1,), "return")],
    ):
        with pytest.raises(ValueError, match="no time courses of fine-tuning to draw"):
            time_courses(curves)
