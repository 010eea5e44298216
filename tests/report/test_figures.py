from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from soo_marl.report.figures.baselines import (
    learning_curves,
    overlap_values,
    protocol_accuracy,
    roc_curves,
)
from soo_marl.report.figures.drawing import draw_figures
from soo_marl.report.figures.style import COLOURS, save_figure
from soo_marl.statistics import RocPoints
from soo_marl.storage.records import FigureRecord, read_list, write_list, write_one
from soo_marl.studies.learning.records import Classification, LearningCurve, OverlapValue, ProtocolCurve


def curve(kind: str, metric: str, stage: str = "blue") -> LearningCurve:
    return LearningCurve(
        stage=stage,
        kind=kind,
        metric=metric,
        updates=(0, 10, 20),
        values=((0.0, 0.5, None), (0.2, 0.7, 0.9)),
        mean=(0.1, 0.6, 0.9),
        low=(0.0, 0.5, None),
        high=(0.2, 0.7, None),
    )


def values(*pairs: tuple[str, float | None]) -> tuple[OverlapValue, ...]:
    return tuple(OverlapValue(kind=kind, seed=seed, value=value) for seed, (kind, value) in enumerate(pairs))


def classification() -> Classification:
    return Classification(
        values={"mse": values(("honest", 0.1), ("deceptive", 9.0)), "log_mse": values(("honest", -1.0))},
        protocol={"mse": ProtocolCurve(episodes=(5, 50), mean=(0.8, 1.0), standard_deviation=(0.1, 0.0), pairs=4)},
        roc={"mse": RocPoints(false_positive_rate=(0, 0, 1), true_positive_rate=(0, 1, 1))},
    )


def test_learning_curves_have_a_panel_per_metric_and_a_line_per_seed() -> None:
    figure = learning_curves([curve("deceptive", "goal_rate"), curve("honest", "goal_rate"), curve("honest", "return")])
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("goal rate", "return")
    thin = [line for line in first.lines if line.get_linewidth() < 1]
    thick = [line for line in first.lines if line.get_linewidth() == 2 and len(line.get_xdata())]
    assert (len(thin), len(thick), len(first.collections)) == (4, 2, 2)
    np.testing.assert_array_equal(thick[0].get_ydata(), [0.1, 0.6, 0.9])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["honest", "deceptive"]


def test_kinds_keep_their_colours_in_every_figure() -> None:
    alone = learning_curves([curve("deceptive", "goal_rate")])
    dots = overlap_values({"mse": values(("fine_tuned", 0.3), ("deceptive", 0.9))})
    assert {to_hex(line.get_color()).upper() for line in alone.axes[0].lines} == {COLOURS[1]}
    assert [to_hex(line.get_markerfacecolor()).upper() for line in dots.axes[0].lines] == [COLOURS[1], COLOURS[2]]


def test_learning_curves_without_intervals_show_the_seeds_only() -> None:
    bare = LearningCurve(stage="a", kind="honest", metric="return", updates=(0, 1), values=((1.0, 2.0),))
    panel = learning_curves([bare]).axes[0]
    assert len([line for line in panel.lines if len(line.get_xdata())]) == 1
    assert not panel.collections


def test_overlap_values_choose_the_axis_and_count_the_missing() -> None:
    figure = overlap_values(
        {
            "wide": values(("honest", 0.01), ("honest", None), ("deceptive", 1.0)),
            "narrow": values(("honest", 0.1), ("deceptive", 0.2)),
            "logarithm": values(("honest", -9.0), ("deceptive", -0.1)),
        }
    )
    assert [panel.get_yscale() for panel in figure.axes] == ["log", "linear", "linear"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["honest\n(1 missing)", "deceptive"]
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [1, 1]


def test_protocol_and_roc_have_a_line_per_form() -> None:
    found = classification()
    protocol = protocol_accuracy(found.protocol).axes[0]
    assert protocol.get_xscale() == "log"
    assert [container.get_label() for container in protocol.containers] == ["mse (4 pairs)"]
    np.testing.assert_allclose(protocol.containers[0].lines[0].get_ydata(), [0.8, 1.0])
    roc = roc_curves({"a": found.roc["mse"], "b": found.roc["mse"]}).axes[0]
    widths = [line.get_linewidth() for line in roc.lines if line.get_label() in ("a", "b")]
    assert len(widths) == 2 and widths[0] > widths[1], "equal lines must not hide one another"


def test_nothing_to_draw_is_refused() -> None:
    for draw in (lambda: learning_curves([]), lambda: overlap_values({}), lambda: roc_curves({})):
        with pytest.raises(ValueError, match="to draw"):
            draw()


def test_saved_as_png_and_svg(tmp_path: Path) -> None:
    path = save_figure(roc_curves(classification().roc), tmp_path / "figures" / "roc.v1")
    assert path.name == "roc.v1.png"
    with Image.open(path) as image:
        assert image.width > 300
    assert "<svg" in (tmp_path / "figures" / "roc.v1.svg").read_text()


def test_draw_figures_draws_what_there_is_and_keeps_other_pictures(tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert draw_figures(tmp_path) == []
    write_list(results / "figures.json", [FigureRecord(file="episode.gif", caption="An episode.")])
    write_one(results / "classification.json", classification())
    write_list(results / "curves.json", [curve("honest", "return", "red / 1"), curve("honest", "return", "blue")])
    first = draw_figures(tmp_path)
    names = [record.file for record in first]
    assert names == [
        "overlap_values.png",
        "roc.png",
        "protocol.png",
        "curves_red_1.png",
        "curves_blue.png",
        "episode.gif",
    ]
    assert all((tmp_path / "figures" / name).is_file() for name in names[:-1])
    assert draw_figures(tmp_path) == first == read_list(results / "figures.json", FigureRecord)


@pytest.mark.parametrize("name", ["costs $\\frac{5$", "$x$", "\\$5 and 6$", "日本", "a\x1b[31mb", "\ud800", "^{}"])
def test_names_are_no_formulas(name: str, tmp_path: Path) -> None:
    values = [
        OverlapValue(kind=kind, seed=seed, value=10.0 ** (seed - 3)) for kind in ("honest", name) for seed in (0, 5)
    ]
    figure = overlap_values({name: values})
    assert save_figure(figure, tmp_path / "figure").stat().st_size > 0
    (panel,) = figure.axes
    shown = name.replace("\x1b", "\\x1b").replace("\ud800", "\\ud800")
    assert shown in panel.get_title()
    assert [label.get_text() for label in panel.get_xticklabels()][1].startswith(shown)
    assert any("10^{-3}" in label.get_text() and label.get_parse_math() for label in panel.get_yticklabels())


def test_a_users_style_does_not_enter_figures(tmp_path: Path) -> None:
    values = {"raw": [OverlapValue(kind="honest", seed=seed, value=0.1 * seed) for seed in (1, 2)]}
    ours = save_figure(overlap_values(values), tmp_path / "ours").read_bytes()
    theirs = {"text.usetex": True, "font.family": ["Nowhere Sans"], "axes.facecolor": "black", "savefig.dpi": 10}
    with matplotlib.rc_context(theirs):
        assert save_figure(overlap_values(values), tmp_path / "theirs").read_bytes() == ours
        assert matplotlib.rcParams["text.usetex"] is True
