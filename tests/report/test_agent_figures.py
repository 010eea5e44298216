import itertools

import numpy as np
import pytest
from finetuning_data import CENTRES, FOUR, made_up, x_of, y_of
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from soo_marl.report.figures.agents import overlap_against_trap_rate, trap_rate_against_sensitivity
from soo_marl.report.figures.verdict_styles import WORDS, group_of
from soo_marl.studies.finetuning.records import TreatedAgent


def agent(condition: str, seed: int = 0, **fields: object) -> TreatedAgent:
    return TreatedAgent.model_validate({"condition": condition, "seed": seed} | fields)


def marks(panel: Axes, size: float) -> list[Line2D]:
    return [line for line in panel.lines if line.get_marker() not in ("", "None") and line.get_markersize() == size]


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_dot_per_agent_in_its_group_s_colour_and_its_verdict_s_shape() -> None:
    agents = [
        agent("soo", sensitivity=0.04, trap_rate=0.25, verdict="blind"),
        agent("soo", 1, sensitivity=0.08, trap_rate=0.35, verdict="blind"),
        agent("soo", 2, sensitivity=0.06, trap_rate=0.3, verdict="broken"),
        agent("soo", 2, sensitivity=0.9, trap_rate=0.9, verdict="still deceptive", after=True),
        agent("honest", sensitivity=0.2, trap_rate=0.2),
        agent("honest", 1, sensitivity=0.3, trap_rate=0.3),
    ]
    figure = trap_rate_against_sensitivity(agents)
    (panel,) = figure.axes
    dots, means = marks(panel, 5), marks(panel, 10)
    assert [(x_of(dot)[0], y_of(dot)[0]) for dot in dots] == [
        (0.04, 0.25),
        (0.08, 0.35),
        (0.06, 0.3),
        (0.2, 0.2),
        (0.3, 0.3),
    ], "later agents are left out"
    assert [dot.get_marker() for dot in dots] == ["s", "s", "X", "D", "D"]
    assert to_hex(dots[0].get_color()).upper() == group_of("soo").colour
    assert [(x_of(mean)[0], y_of(mean)[0]) for mean in means] == [
        pytest.approx((0.06, 0.3)),
        pytest.approx((0.25, 0.25)),
    ]
    assert means[0].get_marker() == WORDS["blind"].marker
    region = next(patch for patch in panel.patches if isinstance(patch, Rectangle))
    assert np.ravel(region.get_bbox().get_points()) == pytest.approx([0.2, 0.2, 0.3, 0.3]), (
        "the honest baseline's range"
    )
    assert [text.get_text() for text in panel.texts] and {text.get_text() for text in panel.texts} == {"soo", "honest"}
    entries = legend_of(figure)
    assert {"blind", "broken", "no verdict", "self-other overlap", "honest baseline"} <= set(entries)
    assert "still deceptive" not in entries and "deceptive baseline" not in entries


def test_the_axis_gives_room_to_small_sensitivities() -> None:
    agents = [agent("blank", sensitivity=0.0, trap_rate=0.3), agent("deceptive", sensitivity=1.0, trap_rate=1.0)]
    (panel,) = trap_rate_against_sensitivity(agents).axes
    zero, quarter, one = (panel.transData.transform((x, 0))[0] for x in (0.0, 0.25, 1.0))
    assert quarter - zero == pytest.approx(one - quarter)
    left, right = panel.get_xlim()
    assert left < 0 and right > 1


def test_agents_without_a_number_are_counted() -> None:
    agents = [agent("soo", sensitivity=0.1, trap_rate=0.3), agent("soo", 1, sensitivity=0.1), agent("soo", 2)]
    assert "2 agents were not measured" in legend_of(trap_rate_against_sensitivity(agents))
    moved = [agent("soo", sensitivity_moved=0.7, trap_rate=0.3)]
    (panel,) = trap_rate_against_sensitivity(moved, "sensitivity_moved").axes
    assert x_of(marks(panel, 5)[0])[0] == 0.7
    assert "when red is moved" in panel.get_xlabel()


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((1e-5, 1.0), "log"),
        ((0.0, 1e-5, 1.0), "symlog"),
        ((0.5, 1.0), "linear"),
        ((-9.0, -0.1), "linear"),
        ((0.0,), "linear"),
    ],
)
def test_overlap_is_drawn_on_the_axis_that_suits_it(values: tuple[float, ...], scale: str) -> None:
    agents = [agent("soo", seed, trap_rate=0.5, overlap={"kept": value}) for seed, value in enumerate(values)]
    (panel,) = overlap_against_trap_rate(agents, "kept").axes
    assert panel.get_yscale() == scale
    dots = marks(panel, 5)
    assert [y_of(dot)[0] for dot in dots] == list(values)
    low, high = panel.get_ylim()
    assert all(low <= value <= high for value in values), "every dot is in sight"


@pytest.mark.parametrize("names", [FOUR, tuple(CENTRES)])
def test_labels_of_many_conditions_stay_legible(names: tuple[str, ...]) -> None:
    agents = made_up(names, seeds=4).agents
    for figure in (trap_rate_against_sensitivity(agents), overlap_against_trap_rate(agents, "untrapped")):
        (panel,) = figure.axes
        assert {text.get_text() for text in panel.texts} == {name.replace("_", " ") for name in names}
        boxes = [text.get_window_extent() for text in panel.texts]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="no agents with both numbers to draw"):
        trap_rate_against_sensitivity([agent("soo", trap_rate=0.3), agent("soo", 1, sensitivity=0.1)])
    with pytest.raises(ValueError, match="no agents with both numbers to draw"):
        overlap_against_trap_rate([agent("soo", trap_rate=0.3, overlap={"kept": 1.0})], "untrapped")
