"""What mattered, on results that are made up so that the answer is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from soo_marl.studies.learning.recipes import baseline_config
from soo_marl.studies.sweep.axes import Axis, Point, make_points, read_axes
from soo_marl.studies.sweep.importance import axis_records, point_means
from soo_marl.studies.sweep.records import AxisRecord

BASE = baseline_config(seeds=(0,))
TAU, GAMMA, UNITS = "maddpg.tau", "maddpg.gamma", "maddpg.hidden_units"
RANDOM = [f"{TAU}=log:0.001:0.1", f"{GAMMA}=uniform:0.8:1", f"{UNITS}=choice:16,32,64"]
GRID = [f"{TAU}=0.01,0.05", f"{GAMMA}=0.9,0.95,0.99"]

Effect = Callable[[Point], float]


def simulate(
    grid: list[str], random: list[str], effect: Effect, seeds: int, noise: float = 0.1, draws: int = 24, luck: int = 0
) -> tuple[tuple[Axis, ...], tuple[Point, ...], np.ndarray]:
    """A sweep's axes, points, and a metric: the effect, plus luck of the seed and of the run."""
    axes = read_axes(grid, random, BASE)
    points = make_points(axes, draws, search_seed=luck)
    generator = np.random.default_rng(luck)
    metric = np.array([[effect(point)] for point in points]) + noise * generator.standard_normal((len(points), seeds))
    return axes, points, metric + noise * generator.standard_normal(seeds)


def found(*arguments: Any, **options: Any) -> dict[str, AxisRecord]:
    axes, points, metric = simulate(*arguments, **options)
    return {record.field: record for record in axis_records(axes, points, "honest/return", metric)}


def test_the_axis_of_a_grid_that_matters() -> None:
    records = found(GRID, [], lambda point: float(point.values[TAU] == 0.05), seeds=3)
    assert list(records) == [TAU, GAMMA], "the larger share first"
    assert records[TAU].matters and records[TAU].share == pytest.approx(0.9, abs=0.1)
    assert not records[GAMMA].matters and records[GAMMA].share == pytest.approx(0, abs=0.05)
    assert [(group.label, group.points) for group in records[TAU].groups] == [("0.01", (0, 1, 2)), ("0.05", (3, 4, 5))]
    assert records[TAU].groups[1].mean.estimate == pytest.approx(1, abs=0.2)


def test_a_weak_axis_beside_a_strong_one_is_found_by_comparing_like_with_like() -> None:
    records = found(GRID, [], lambda point: 10 * (point.values[TAU] == 0.05) + point.values[GAMMA], seeds=5, noise=0.01)
    assert records[TAU].matters and records[GAMMA].matters
    assert 0 < records[GAMMA].share < 0.01


def test_the_drawn_axis_that_matters() -> None:
    records = found([], RANDOM, lambda point: float(point.values[GAMMA] > 0.9), seeds=2)
    assert records[GAMMA].matters and records[GAMMA].share > 0.5
    for dead in (TAU, UNITS):
        assert not records[dead].matters and records[dead].share < 0.15
    low, middle, high = records[GAMMA].groups
    assert low.high < middle.low <= middle.high < high.low
    assert sum(len(group.points) for group in (low, middle, high)) == 24


def test_an_optimum_in_the_middle_of_a_range_is_found() -> None:
    records = found([], RANDOM, lambda point: -abs(np.log10(point.values[TAU]) + 2), seeds=2)
    assert records[TAU].matters and not records[GAMMA].matters


def test_choices_and_both_searches_together() -> None:
    records = found(GRID[:1], RANDOM[1:], lambda point: point.values[UNITS] / 64 + (point.values[TAU] == 0.01), seeds=2)
    assert records[UNITS].matters and records[TAU].matters and not records[GAMMA].matters
    assert [group.label for group in records[UNITS].groups] == ["16", "32", "64"]


@pytest.mark.parametrize(("grid", "random"), [(GRID, []), ([], RANDOM), (GRID[:1], RANDOM[1:])])
def test_dead_axes_are_called_dead(grid: list[str], random: list[str]) -> None:
    """Luck alone makes some axis look alive in about one sweep in twenty."""
    sweeps = [found(grid, random, lambda point: 0.0, seeds=3, draws=9, luck=luck) for luck in range(20)]
    assert sum(any(record.matters for record in records.values()) for records in sweeps) <= 3
    assert np.mean([record.share for records in sweeps for record in records.values()]) < 0.06


@pytest.mark.parametrize(
    ("grid", "random", "seeds", "draws"),
    [
        ([*GRID[:1], f"{GAMMA}=0.9,0.95"], [], 2, 0),
        (GRID[:1], [], 5, 0),
        (GRID[1:], [], 1, 0),
        ([], RANDOM[:1], 10, 6),
        ([], RANDOM[:1], 10, 1),
    ],
)
def test_too_few_runs_give_no_number(grid: list[str], random: list[str], seeds: int, draws: int) -> None:
    records = found(grid, random, lambda point: point.values.get(TAU, 0.0), seeds=seeds, draws=max(draws, 1))
    for record in records.values():
        assert (record.share, record.p_value, record.matters) == (None, None, False)
        assert record.groups


@pytest.mark.parametrize(("grid", "seeds"), [([*GRID[:1], f"{GAMMA}=0.9,0.95"], 3), (GRID[:1], 6), (GRID[1:], 3)])
def test_so_many_runs_suffice(grid: list[str], seeds: int) -> None:
    records = found(grid, [], lambda point: 10 * sum(point.values.values()), seeds=seeds, noise=1e-3)
    assert all(record.matters for record in records.values())


def test_missing_values_are_left_out() -> None:
    axes, points, metric = simulate(GRID, [], lambda point: float(point.values[TAU] == 0.05), seeds=4, luck=1)
    metric[0, :] = metric[3, 1] = np.nan
    records = {record.field: record for record in axis_records(axes, points, "honest/return", metric)}
    assert records[TAU].matters and not records[GAMMA].matters
    assert records[TAU].groups[0].mean.n == 2
    nothing = axis_records(axes, points, "honest/return", np.full_like(metric, np.nan))
    assert all(record.share is None and record.groups[0].mean.estimate is None for record in nothing)


def test_no_points_and_no_differences() -> None:
    axes, points, metric = simulate(GRID, [], lambda point: 0.0, seeds=4)
    assert all(record.groups == () for record in axis_records(axes, (), "honest/return", np.zeros((0, 4))))
    flat = axis_records(axes, points, "honest/return", np.full_like(metric, 0.1))
    assert [(record.share, record.p_value, record.matters) for record in flat] == [(0, 1, False)] * 2


def test_means_over_seeds() -> None:
    means = point_means(np.array([[1.0, 3.0], [np.nan, 2.0], [np.nan, np.nan]]))
    assert means[:2].tolist() == [2, 2] and np.isnan(means[2])
