import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from soo_marl.deception import (
    DeceptionProfile,
    behavioural_difference,
    relative_difference,
)


def profiles(counts: Any, totals: list[int], x: tuple[float, ...] = (0.0, 0.5)) -> DeceptionProfile:
    """Runs with the given counts ``[R, 2, 2]`` and opportunities."""
    total = torch.tensor(totals)
    return DeceptionProfile(
        projection_thresholds=torch.tensor(x, dtype=torch.float64),
        cosine_thresholds=torch.tensor([0.0, 1.0], dtype=torch.float64),
        counts=torch.as_tensor(counts, dtype=torch.int64),
        opportunities=total[:, None].expand(-1, 2),
        total_opportunities=total,
    )


def drawn(runs: int, share: float, seed: int, totals: tuple[int, int] = (50, 100)) -> DeceptionProfile:
    """Runs whose deceptive steps are random, about the given share of the opportunities."""
    generator = np.random.default_rng(seed)
    total = generator.integers(*totals, size=runs)
    counts = generator.binomial(total[:, None, None], np.clip(share + 0.05 * generator.normal(size=(runs, 2, 2)), 0, 1))
    return profiles(counts, total.tolist())


def part(profile: DeceptionProfile, index: Any) -> DeceptionProfile:
    """Some of the runs."""
    return profiles(profile.counts[index], profile.total_opportunities[index].tolist())


def welch(leave_one_out: list[list[float]], value: float) -> tuple[float, float]:
    """Interval on the logarithm from the statistic without each run of each group."""
    parts = [(len(group) - 1) * np.var(np.log(group)) for group in leave_one_out]
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(group) - 1) for part, group in zip(parts, leave_one_out, strict=True)
    )
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    return value * math.exp(-half), value * math.exp(half)


def without(statistic: Any, *groups: np.ndarray) -> list[list[float]]:
    """The statistic of the grids themselves without each run of each group."""
    return [
        [
            statistic(
                *(np.delete(group, run, axis=0) if other == left else group for other, group in enumerate(groups))
            )
            for run in range(len(groups[left]))
        ]
        for left in range(len(groups))
    ]


def mean_squared_error(grids: np.ndarray, others: np.ndarray) -> float:
    return float(((grids - others.mean(0)) ** 2).mean())


def grids(profile: DeceptionProfile) -> np.ndarray:
    return profile.rates.flatten(1).numpy()


def test_by_hand() -> None:
    # Mean counts of the others: [[2, 4], [0, 2]]; their rates [[.2, .4], [0, 0]] and [[.2, .4], [0, .4]].
    profile = profiles([[[2, 4], [0, 2]], [[4, 8], [2, 2]]], [10, 20])
    other = profiles([[[2, 4], [0, 0]], [[2, 4], [0, 4]]], [10, 10])
    found = behavioural_difference(profile, other)
    assert found.published.tolist() == [0, (4 + 16 + 4) / 4]
    assert found.rate_based.tolist() == pytest.approx([0, (0.1**2 + 0.1**2) / 4])
    assert found.rate_based_mean == pytest.approx(0.0025)
    assert found.low <= found.rate_based_mean <= found.high


def test_twice_the_opportunities_change_counts_alone() -> None:
    other = profiles([[[2, 4], [0, 2]], [[4, 6], [0, 2]]], [10, 10])
    doubled = profiles(other.counts * 2, [20, 20])
    once, twice = (behavioural_difference(group, other) for group in (other, doubled))
    assert torch.equal(once.rate_based, twice.rate_based)
    assert (twice.published > once.published).all()


def test_runs_without_opportunity_are_left_out() -> None:
    profile = profiles([[[0, 0], [0, 0]], [[4, 8], [2, 2]], [[2, 4], [0, 2]]], [0, 20, 10])
    other = profiles([[[2, 4], [0, 0]], [[0, 0], [0, 0]], [[2, 4], [0, 4]]], [10, 0, 10])
    found = behavioural_difference(profile, other)
    assert found.published.isnan().tolist() == found.rate_based.isnan().tolist() == [True, False, False]
    assert found.published[1:].tolist() == [6, 0] and found.rate_based_mean == pytest.approx(0.0025)
    present = behavioural_difference(part(profile, [1, 2]), part(other, [0, 2]))
    assert (found.low, found.high) == (present.low, present.high)


def test_interval_is_that_of_grids_without_each_run() -> None:
    profile, other = drawn(6, 0.6, seed=1), drawn(5, 0.3, seed=2)
    found = behavioural_difference(profile, other)
    assert found.rate_based_mean == pytest.approx(mean_squared_error(grids(profile), grids(other)))
    expected = welch(without(mean_squared_error, grids(profile), grids(other)), found.rate_based_mean)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)


def test_alike_runs_give_no_interval() -> None:
    profile, other = profiles([[[2, 4], [0, 2]]] * 3, [10] * 3), profiles([[[2, 4], [0, 0]]] * 2, [10] * 2)
    found = behavioural_difference(profile, other)
    assert found.rate_based_mean == pytest.approx(0.01) and math.isnan(found.low) and math.isnan(found.high)


def test_an_interval_needs_two_seeds_of_each_group() -> None:
    single, two = profiles([[[2, 4], [0, 2]]], [10]), profiles([[[2, 4], [0, 2]], [[0, 0], [0, 0]]], [10, 0])
    for profile, other, counts in ((single, drawn(3, 0.3, 0), "1 and 3"), (drawn(3, 0.3, 0), two, "3 and 1")):
        with pytest.raises(ValueError, match=f"at least two runs .* in every group, not {counts}: add seeds"):
            behavioural_difference(profile, other)
        found = behavioural_difference(profile, other, interval=False)
        assert math.isnan(found.low) and math.isnan(found.high) and found.rate_based_mean >= 0


def test_relative_difference_by_hand() -> None:
    honest = profiles([[[1, 1], [1, 1]], [[3, 3], [3, 3]]], [10, 10])
    deceptive = profiles([[[6, 6], [6, 6]], [[6, 6], [6, 6]]], [10, 10])
    between = profiles([[[2, 2], [2, 2]], [[4, 4], [4, 4]], [[0, 0], [0, 0]], [[6, 6], [6, 6]]], [10, 10, 0, 10])
    found = relative_difference(between, honest, deceptive)
    # The honest mean is .2; half the way is a quarter of the squared error.
    assert found.mean == pytest.approx((0 + 0.25 + 1) / 3)
    assert 0 <= found.low <= found.mean <= found.high
    # Each honest run lies .2 from the other, and the deceptive ones .4 from their mean.
    assert found.honest == pytest.approx(0.25)
    assert relative_difference(deceptive, honest, deceptive).mean == pytest.approx(1)


def test_interval_of_the_relative_difference_counts_all_three_groups() -> None:
    runs, honest, deceptive = drawn(6, 0.4, seed=1), drawn(5, 0.3, seed=2), drawn(4, 0.7, seed=3)

    def ratio(chosen: np.ndarray, reference: np.ndarray, scale: np.ndarray) -> float:
        return mean_squared_error(chosen, reference) / mean_squared_error(scale, reference)

    found = relative_difference(runs, honest, deceptive)
    expected = welch(without(ratio, grids(runs), grids(honest), grids(deceptive)), found.mean)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)
    left_out = [
        mean_squared_error(grids(honest)[[run]], np.delete(grids(honest), run, axis=0))
        for run in range(len(grids(honest)))
    ]
    assert found.honest == pytest.approx(np.mean(left_out) / mean_squared_error(grids(deceptive), grids(honest)))


def test_relative_difference_needs_a_scale() -> None:
    honest = profiles([[[2, 2], [2, 2]]] * 2, [10] * 2)
    with pytest.raises(ValueError, match="deceptive agents do not differ"):
        relative_difference(honest, honest, honest)
    with pytest.raises(ValueError, match="no honest or no deceptive run has an opportunity"):
        relative_difference(honest, honest, profiles([[[0, 0], [0, 0]]], [0]))
    single = profiles([[[6, 6], [6, 6]]], [10])
    with pytest.raises(ValueError, match="in every group, not 2 and 2 and 1"):
        relative_difference(honest, honest, single)
    found = relative_difference(single, part(honest, [0]), single, interval=False)
    assert found.mean == 1 and math.isnan(found.low) and math.isnan(found.honest)


def test_bad_input_is_refused() -> None:
    profile = drawn(3, 0.4, seed=0)
    stacked = replace(
        profile,
        counts=profile.counts[None],
        opportunities=profile.opportunities[None],
        total_opportunities=profile.total_opportunities[None],
    )
    with pytest.raises(ValueError, match="over different thresholds cannot be compared"):
        other = profiles(profile.counts, profile.total_opportunities.tolist(), x=(0.0, 0.6))
        behavioural_difference(profile, other)
    with pytest.raises(ValueError, match="profile must hold one profile per run"):
        behavioural_difference(stacked, profile)
    with pytest.raises(ValueError, match="deceptive must hold one profile per run"):
        relative_difference(profile, profile, stacked)
    with pytest.raises(ValueError, match="no run of the other group has an opportunity"):
        none = profiles(torch.zeros(3, 2, 2), [0, 0, 0])
        behavioural_difference(profile, none)


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 5))
@settings(deadline=None, max_examples=50)
def test_differences_are_those_of_plain_loops_whatever_the_order_of_runs(seed: int, runs: int, others: int) -> None:
    profile, other = drawn(runs, 0.5, seed, (0, 4)), drawn(others, 0.3, seed + 1, (1, 30))
    found = behavioural_difference(profile, other, interval=False)
    for run in range(runs):
        if profile.total_opportunities[run] == 0:
            assert found.rate_based[run].isnan() and found.published[run].isnan()
            continue
        counts = (profile.counts[run] - other.counts.double().mean(0)).square().mean()
        assert float(found.published[run]) == pytest.approx(float(counts))
        rate = (profile.rates[run] - other.rates.mean(0)).square().mean()
        assert float(found.rate_based[run]) == pytest.approx(float(rate))
        assert 0 <= float(rate) <= 1
    back = list(range(runs))[::-1]
    turned = behavioural_difference(
        part(profile, back),
        part(other, list(range(others))[::-1]),
        interval=False,
    )
    torch.testing.assert_close(turned.rate_based, found.rate_based[back], equal_nan=True)
