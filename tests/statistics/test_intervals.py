import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from soo_marl.statistics import (
    NOT_NEGATIVE,
    Interval,
    crossed_share_interval,
    jackknife_interval,
    mean_interval,
    paired_difference,
    rate_interval,
    ratio_interval,
    share_interval,
)

Draw = Callable[[np.random.Generator, int], np.ndarray]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def coverage(found: list[Interval], truth: float) -> float:
    return float(np.mean([each.low <= truth <= each.high for each in found]))  # type: ignore[operator]


def test_wilson_by_hand_and_as_scipy_has_it() -> None:
    # 8 of 10 with z = 1.959964: (0.8 + 0.192073) / 1.384146 -+ 1.959964 * sqrt(0.016 + 0.0096036) / 1.384146.
    found = share_interval(8, 10)
    assert (found.low, found.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    for count in range(13):
        expected, found = stats.binomtest(count, 12).proportion_ci(method="wilson"), share_interval(count, 12)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert share_interval(0, 0) == Interval(estimate=None, n=0)
    with pytest.raises(ValueError, match="no share"):
        share_interval(4, 3)


def test_student_by_hand() -> None:
    # Mean 2, standard error 1 / sqrt(3), and 4.302653 at two degrees of freedom.
    found = mean_interval([1.0, 2.0, 3.0])
    assert (found.estimate, found.n) == (2, 3)
    assert found.high == pytest.approx(2 + 4.302653 / math.sqrt(3)) and found.low == pytest.approx(4 - found.high)
    assert mean_interval([1.0, 2.0, 3.0], NOT_NEGATIVE).low == 0


@pytest.mark.parametrize(("ones", "low", "high"), [(10, 0.05**0.1, 1.0), (0, 0.0, 1 - 0.05**0.1)])
def test_rates_that_all_fail_or_all_work_leave_the_unseen_seed(ones: int, low: float, high: float) -> None:
    found = rate_interval([1.0] * ones + [0.0] * (10 - ones), generator())
    assert (found.low, found.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))


def test_rates_of_zero_and_one_have_the_mid_p_interval_of_their_count() -> None:
    def excess(share: float) -> float:
        """Distribution at a share: the mean of those of both limits of Clopper and Pearson."""
        return float((stats.beta(7, 4).cdf(share) + stats.beta(8, 3).cdf(share)) / 2)

    found = rate_interval([1.0] * 7 + [0.0] * 3, generator())
    assert found.low is not None and found.high is not None
    assert excess(found.low) == pytest.approx(0.025, abs=0.005)
    assert excess(found.high) == pytest.approx(0.975, abs=0.005)


def failing(share: float) -> Draw:
    return lambda random, n: np.where(random.random(n) < share, random.beta(2, 8, n), random.beta(60, 1.2, n))


@pytest.mark.parametrize("n", [3, 5, 10, 20])
@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda random, n: np.clip(random.normal(0.5, 0.1, n), 0, 1), 0.5),
        (failing(0.1), 0.9 * 60 / 61.2 + 0.1 * 0.2),
        (failing(0.2), 0.8 * 60 / 61.2 + 0.2 * 0.2),
        (lambda random, n: random.beta(2, 0.2, n), 2 / 2.2),
        (lambda random, n: (random.random(n) < 0.9).astype(float), 0.9),
        (lambda random, n: (random.random(n) < 0.98).astype(float), 0.98),
        (lambda random, n: np.ones(n), 1.0),
    ],
)
def test_intervals_of_rates_cover_the_truth(draw: Draw, mean: float, n: int) -> None:
    random = generator(n)
    assert coverage([rate_interval(draw(random, n), random) for _ in range(120)], mean) > 0.92


@pytest.mark.parametrize("n", [2, 3, 10])
def test_intervals_of_means_differences_and_ratios_cover_the_truth(n: int) -> None:
    random = generator(1)
    drawn = random.normal([[1.0], [0.7]], 0.1, (400, 2, n)) + random.normal(0, 0.1, (400, 1, n))
    assert coverage([mean_interval(values) for values, _ in drawn], 1.0) > 0.92
    assert coverage([paired_difference(values, others) for values, others in drawn], 0.3) > 0.92
    ratios = [found for values, others in drawn if (found := ratio_interval(values, others)).low is not None]
    assert len(ratios) > 100 and coverage(ratios, 1 / 0.7) > 0.9


def test_ratio_counts_the_spread_of_the_baseline() -> None:
    # The ends by hand: the fractions at which the t interval of values - f * baseline begins or ends at 0.
    values, baseline = np.array([7.0, 8.0, 7.4, 7.9]), np.array([1.0, 0.8, 1.1, 1.2])
    found = ratio_interval(values, baseline)
    assert found.estimate == pytest.approx(values.mean() / baseline.mean())
    for end in (found.low, found.high):
        test = stats.ttest_1samp(values - end * baseline, 0.0)
        assert test.pvalue == pytest.approx(0.05)
    known = mean_interval(values / baseline.mean())
    assert found.low < known.low < known.high < found.high  # type: ignore[operator]


def test_ratio_to_nothing_and_to_itself() -> None:
    assert ratio_interval([1.0, 2.0], [-1.0, 0.5]) == Interval(estimate=None, n=0)
    assert ratio_interval([1.0, 2.0, 4.0], [1.0, 2.0, 4.0]) == Interval(estimate=1, n=3)
    unclear = ratio_interval([1.0, 2.0, 3.0], [-1.0, 0.5, 2.0])
    assert unclear.estimate == 4 and unclear.low is None and unclear.high is None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_intervals_of_rates_lie_in_range_hold_the_mean_and_have_a_width(values: list[float], seed: int) -> None:
    found = rate_interval(values, generator(seed))
    assert found == rate_interval(values, generator(seed))
    assert found.low is not None and found.high is not None and found.estimate is not None
    assert 0 <= found.low <= found.estimate <= found.high <= 1 and found.low < found.high
    turned = rate_interval([1 - value for value in values], generator(seed))
    assert turned.low == pytest.approx(1 - found.high, abs=0.02)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8), st.floats(-5, 5))
def test_intervals_of_means_move_with_the_values(values: list[float], shift: float) -> None:
    found, moved = mean_interval(values), mean_interval([value + shift for value in values])
    assert found == mean_interval(values[::-1]) or found.estimate == pytest.approx(mean_interval(values[::-1]).estimate)
    if found.low is not None and moved.low is not None:
        assert moved.low == pytest.approx(found.low + shift, abs=1e-6)


@pytest.mark.parametrize("of", [mean_interval, lambda values: rate_interval(values, generator())])
def test_one_value_and_no_value_give_no_interval(of: Callable[[list[float]], Interval]) -> None:
    assert of([0.3]) == Interval(estimate=0.3, low=None, high=None, n=1)
    assert of([math.nan, 0.3]) == Interval(estimate=0.3, low=None, high=None, n=1)
    assert of([]) == Interval(estimate=None, low=None, high=None, n=0)
    with pytest.raises(ValueError, match="finite"):
        of([1.0, math.inf])
    with pytest.raises(ValueError, match="one-dimensional"):
        of([[1.0, 0.0]])  # type: ignore[list-item]


def test_equal_values_have_an_interval_only_in_a_range() -> None:
    assert mean_interval([0.3] * 5) == Interval(estimate=0.3, low=None, high=None, n=5)
    with pytest.raises(ValueError, match=r"between 0 and 1, not 0\.5 to 1\.5"):
        rate_interval([0.5, 1.5], generator())


def test_jackknife_of_a_mean_is_the_t_interval() -> None:
    values = np.array([1.0, 4.0, 2.5, 7.0])
    expected = mean_interval(values)
    assert jackknife_interval(lambda weights: weights @ values, [4]) == pytest.approx((expected.low, expected.high))
    low, high = jackknife_interval(lambda weights: np.exp(weights @ values), [4], logarithm=True)
    assert (math.log(low), math.log(high)) == pytest.approx((expected.low, expected.high))
    assert all(map(math.isnan, jackknife_interval(lambda weights: weights @ np.ones(3), [3])))
    assert all(map(math.isnan, jackknife_interval(lambda weights: -(weights @ values), [4], logarithm=True)))


def test_jackknife_of_two_groups_is_welch() -> None:
    one, other = np.array([1.0, 4.0, 2.5, 7.0]), np.array([0.0, 0.4, 0.1])
    found = jackknife_interval(lambda first, second: first @ one - second @ other, [4, 3])
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert found == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("logit", [0.0, 2.6])
def test_intervals_over_seeds_and_prompts_cover_the_truth(logit: float, seeds: int) -> None:
    random = generator(seeds)
    share = 1 / (1 + np.exp(-(logit + math.sqrt(2) * random.normal(size=200_000))))
    held = []
    for _ in range(200):
        logits = logit + random.normal(size=(seeds, 1)) + random.normal(size=(1, 40))
        hits = (random.random((seeds, 40)) < 1 / (1 + np.exp(-logits))).astype(float)
        low, high = crossed_share_interval(hits, np.ones_like(hits))
        held.append(low <= share.mean() <= high)
    assert np.mean(held) > 0.9


def test_seeds_that_agree_have_the_interval_of_their_prompts() -> None:
    hits = np.repeat([[1.0] * 30 + [0.0] * 10], 5, axis=0)
    low, high = crossed_share_interval(hits, np.ones_like(hits))
    expected = share_interval(30, 40)
    assert low <= expected.low + 1e-9 and high >= expected.high - 1e-9  # type: ignore[operator]
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.02)
