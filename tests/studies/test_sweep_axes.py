import json

import numpy as np
import pytest

from soo_marl.studies.learning.recipes import baseline_config
from soo_marl.studies.sweep.axes import ListedAxis, Point, RangeAxis, make_points, read_axes
from soo_marl.studies.sweep.study import sweep_config

BASE = baseline_config(seeds=(0, 1))
RATE = "maddpg.actor_learning_rate=log:0.0005:0.01"


def values(*options: str, draws: int = 16, search_seed: int = 0) -> list[dict[str, object]]:
    """The points of a random search."""
    return [point.values for point in make_points(read_axes([], options, BASE), draws, search_seed)]


def test_a_grid_takes_every_combination() -> None:
    axes = read_axes(["maddpg.tau=0.01,0.05", 'maddpg.activation=relu,"tanh"'], [], BASE)
    points = make_points(axes, draws=16, search_seed=0)
    assert [point.number for point in points] == [0, 1, 2, 3]
    assert [tuple(point.values.values()) for point in points] == [
        (0.01, "relu"),
        (0.01, "tanh"),
        (0.05, "relu"),
        (0.05, "tanh"),
    ]


def test_lists_and_nothing_can_be_values() -> None:
    (kinds, limit) = read_axes(
        ['kinds=["honest"],["deceptive","honest"]', "game.blue_speed_limit=null,1.2,0.8"], [], BASE
    )
    assert isinstance(kinds, ListedAxis) and kinds.values == (["honest"], ["deceptive", "honest"])
    assert isinstance(limit, ListedAxis) and limit.values == (None, 1.2, 0.8)


def test_the_same_search_seed_gives_the_same_points_and_another_one_others() -> None:
    assert values(RATE) == values(RATE)
    assert values(RATE) != values(RATE, search_seed=1)
    assert values(RATE, draws=5) == values(RATE, draws=9)[:5]


@pytest.mark.parametrize("search", ["log", "uniform"])
def test_ranges_are_filled_evenly(search: str) -> None:
    drawn = np.array(
        [row["game.red_sight_radius"] for row in values(f"game.red_sight_radius={search}:0.1:1", draws=64)]
    )
    assert 0.1 <= drawn.min() < 0.13 and 0.95 < drawn.max() <= 1
    middle = 0.1**0.5 if search == "log" else 0.55
    assert np.median(drawn) == pytest.approx(middle, rel=0.1)
    assert all(float(f"{number:.4g}") == number for number in drawn), "they can be typed again"


def test_a_field_of_whole_numbers_gets_whole_numbers() -> None:
    (axis,) = read_axes([], ["maddpg.hidden_units=uniform:1:3"], BASE)
    assert isinstance(axis, RangeAxis) and axis.whole
    drawn = [
        row["maddpg.hidden_units"] for row in values("maddpg.hidden_units=uniform:1:3", "maddpg.tau=uniform:0.1:1")
    ]
    assert {type(number) for number in drawn} == {int} and set(drawn) == {1, 2, 3}
    spread = [row["maddpg.hidden_units"] for row in values("maddpg.hidden_units=log:8:512", draws=30)]
    assert {type(number) for number in spread} == {int} and min(spread) >= 8 and max(spread) <= 512


def test_every_cell_of_the_grid_gets_the_same_draws() -> None:
    points = make_points(read_axes(["maddpg.tau=0.01,0.05"], [RATE], BASE), draws=3, search_seed=0)
    rates = [point.values["maddpg.actor_learning_rate"] for point in points]
    assert len(points) == 6 and rates[:3] == rates[3:] and len(set(rates)) == 3


def test_equal_draws_are_made_once() -> None:
    drawn = values("maddpg.hidden_units=choice:32,64", draws=20)
    assert sorted(json.dumps(row["maddpg.hidden_units"]) for row in drawn) == ["32", "64"]


def test_a_point_is_the_base_with_its_values() -> None:
    config = Point(number=0, values={"maddpg.tau": 0.5, "stages.1.training.noise_start": 2.0}).config(BASE)
    assert config.maddpg == BASE.maddpg.model_copy(update={"tau": 0.5})
    assert config.stages[1].training.noise_start == 2.0
    assert config.seeds == BASE.seeds and config.stages[0] == BASE.stages[0]


@pytest.mark.parametrize(
    ("grid", "random", "words"),
    [
        ([], [], "nothing to sweep over"),
        (["maddpg.tau"], [], "--grid takes field=value,value"),
        (["maddpg.tau=0.1"], [], "needs two or more values, all different"),
        (["maddpg.tau=0.1,0.1"], [], "needs two or more values, all different"),
        (["maddpg.taw=0.1,0.2"], [], "^maddpg.taw=0.1: there is no field maddpg.taw; did you mean maddpg.tau?"),
        ([], ["maddpg.taw=log:0.1:0.2"], "no field maddpg.taw; did you mean maddpg.tau?"),
        ([], ["maddpg.tau=0.1,0.2"], "--random takes field=uniform:low:high"),
        ([], ["maddpg.tau=normal:0.1:0.2"], "--random takes field=uniform:low:high"),
        ([], ["maddpg.tau=log:0.1"], "--random takes field=uniform:low:high"),
        ([], ["maddpg.tau=uniform:0:inf"], "--random takes field=uniform:low:high"),
        ([], ["maddpg.tau=uniform:0.2:0.1"], "must ascend, but goes from 0.2 to 0.1"),
        ([], ["maddpg.tau=log:0:0.1"], "must begin above 0"),
        ([], ["maddpg.hidden_units=uniform:16:32.5"], "holds whole numbers"),
        (["maddpg.tau=0.1,0.2"], ["maddpg.tau=log:0.1:0.2"], "vary the same thing"),
        (["stages.1.training.updates=1,2", "stages.1.training={},1"], [], "vary the same thing"),
        (["seeds=[0],[1]"], [], "name them with --seeds"),
        # The last of three points.
        (["maddpg.tau=0.1,0.2,1.5"], [], "maddpg.tau\n  Input should be less than or equal to 1"),
        # Each value fits its field, and one combination does not fit together.
        (["game.trapped_start_share=0,0.6", "stages.1.alone_share=0.5,0.3"], [], "together they must not exceed 1"),
    ],
)
def test_what_makes_no_sense_is_refused(grid: list[str], random: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("[", r"\[").replace("?", r"\?")):
        sweep_config(BASE, grid, random)


def test_too_many_points_are_refused_before_they_are_made() -> None:
    with pytest.raises(ValueError, match="give 1,000,000,000 points, and a sweep has at most 10,000"):
        sweep_config(BASE, [], [RATE], draws=10**9)
    for draws, seed in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match="--points must be 1 or more and --search-seed 0 or more"):
            sweep_config(BASE, [], [RATE], draws=draws, search_seed=seed)
