"""One kind of interval, and a method for each kind of quantity, chosen by measured coverage.

======================================  ================================================================
quantity                                method
======================================  ================================================================
count of agents or prompts              Wilson: :func:`share_interval`
rate in [0, 1], mean over seeds         one seed that was not seen: :func:`rate_interval`
other number, mean over seeds           Student's t, within the range: :func:`mean_interval`
two conditions of the same seeds        Student's t of the differences: :func:`paired_difference`
fraction of a baseline's mean           Fieller, paired by seed: :func:`ratio_interval`
any smooth figure of several groups     jackknife, Student's t: :func:`jackknife_interval`
share over seeds and prompts            jackknife, Wilson: :func:`crossed_share_interval`
======================================  ================================================================

All aim at a coverage of 95 %. One unit alone gives no interval, and neither do equal values whose range is not known:
the ends are None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator
from scipy import stats

FloatArray = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""Coverage that every interval aims at."""

RESAMPLES = 9999
"""Draws behind the interval of a rate."""

UNBOUNDED = (-math.inf, math.inf)
NOT_NEGATIVE = (0.0, math.inf)

_TAIL = (1 - CONFIDENCE) / 2


def nan_to_none(value: Any) -> Any:
    """None for NaN, everything else as it is."""
    return None if isinstance(value, float | np.floating) and math.isnan(value) else value


Number = Annotated[FiniteFloat | None, BeforeValidator(nan_to_none)]
"""A finite number, or None where nothing could be measured."""


class Interval(BaseModel):
    """An estimate and its 95 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimate: Number = Field(description="The estimate.")
    low: Number = Field(None, description="Lower end of the 95 % interval.")
    high: Number = Field(None, description="Upper end of the 95 % interval.")
    n: int = Field(ge=0, description="How many independent units (seeds, agents, pairs) the estimate rests on.")

    @model_validator(mode="after")
    def _ends_in_order(self) -> Self:
        check_order(self.low, self.high)
        return self


def check_order(low: float | None, high: float | None) -> None:
    """Refuse an interval whose ends are the wrong way round.

    Raises:
        ValueError: the low end exceeds the high one.
    """
    if low is not None and high is not None and low > high:
        raise ValueError(f"the interval's low end {low} must not exceed its high end {high}")


def share_interval(count: float, n: int) -> Interval:
    """The share ``count / n`` of n independent units with Wilson's interval (Wilson 1927).

    Args:
        count: how many of the units have the property, 0 to n; a fraction where the share is itself a mean.
        n: how many units there are; 0 gives no estimate.

    Raises:
        ValueError: count is negative or larger than n.
    """
    if not 0 <= count <= n:
        raise ValueError(f"a count of {count} in {n} is no share: give a count between 0 and n")
    if n == 0:
        return Interval(estimate=None, n=0)
    share = count / n
    return _interval(share, *_wilson(share, n, float(stats.norm.isf(_TAIL))), n, (0.0, 1.0))


def mean_interval(values: npt.ArrayLike, bounds: tuple[float, float] = UNBOUNDED) -> Interval:
    """The mean over independent units with Student's t interval, cut off where the quantity's range ends.

    Args:
        values: one number per unit ``[S]``; NaN and None are left out and do not count in ``n``.
        bounds: range of the quantity.

    Raises:
        ValueError: the values are not one-dimensional, or one is infinite or out of range.
    """
    sample = _sample(values, bounds)
    if len(sample) < 2 or np.ptp(sample) == 0:
        return Interval(estimate=_mean(sample), n=len(sample))
    half = _student(len(sample) - 1) * float(stats.sem(sample))
    mean = float(sample.mean())
    return _interval(mean, mean - half, mean + half, len(sample), bounds)


def rate_interval(values: npt.ArrayLike, generator: np.random.Generator) -> Interval:
    """The mean of rates in [0, 1] over independent units, with an interval that allows for units that fail.

    Seeds that agree say nothing of the one in ten that fails, and t and bootstrap intervals over ten therefore miss the
    mean of such a mixture in a third of the cases. Here one unit more than was seen is added, with the rate 0 in half
    of the draws and 1 in the others; the units get weights from a flat Dirichlet distribution, and the middle 95 % of
    the weighted means is the interval. With the two halves taken as two one-sided limits this is Gaffke's bound (2005),
    which is that of Clopper and Pearson where all rates are 0 or 1; together they are its mid-p form. However much the
    seeds agree, S of them leave open that a share of ``1 - 0.05 ** (1 / S)`` does the opposite.

    Args:
        values: one rate per unit ``[S]``; NaN and None are left out and do not count in ``n``.
        generator: source of the draws.

    Raises:
        ValueError: the values are not one-dimensional, or one lies outside [0, 1].
    """
    sample = _sample(values, (0.0, 1.0))
    if len(sample) < 2:
        return Interval(estimate=_mean(sample), n=len(sample))
    weights = generator.dirichlet(np.ones(len(sample) + 1), RESAMPLES)
    failed = weights[:, :-1] @ sample
    low, high = np.quantile(np.concatenate((failed, failed + weights[:, -1])), (_TAIL, 1 - _TAIL))
    return _interval(_mean(sample), float(low), float(high), len(sample), (0.0, 1.0))


def paired_difference(values: npt.ArrayLike, others: npt.ArrayLike) -> Interval:
    """The mean difference between two conditions of the same seeds, as :func:`mean_interval` has it.

    Args:
        values: ``[S]``; NaN or None where missing.
        others: the other condition ``[S]``, the same seeds in the same order.
    """
    return mean_interval(np.asarray(values, dtype=np.float64) - np.asarray(others, dtype=np.float64))


def ratio_interval(values: npt.ArrayLike, baseline: npt.ArrayLike) -> Interval:
    """The mean of values as a fraction of a baseline's mean, with Fieller's interval (1954), paired by seed.

    The interval holds every fraction f for which the t interval of ``values - f * baseline`` holds 0, so the baseline's
    own spread counts. There is no estimate where the baseline's mean is not positive, as a fraction of nothing or of a
    loss says nothing; and no interval where the baseline's mean is not clear of 0.

    Args:
        values: ``[S]``; NaN or None where missing.
        baseline: ``[S]``, the same seeds in the same order.

    Raises:
        ValueError: the values are not one-dimensional and of one length, or one is infinite.
    """
    numerator, denominator = (np.asarray(each, dtype=np.float64) for each in (values, baseline))
    reference = _mean(_sample(denominator, UNBOUNDED))
    if reference is None or reference <= 0:
        return Interval(estimate=None, n=0)
    sample = _sample(numerator / reference, UNBOUNDED)
    none = Interval(estimate=_mean(sample), n=len(sample))
    paired = ~np.isnan(numerator) & ~np.isnan(denominator)
    if paired.sum() < 2:
        return none
    y, x = numerator[paired], denominator[paired]
    variance, covariance = np.cov(y, x)[0], np.cov(y, x)[1]
    squared_t = _student(len(y) - 1) ** 2 / len(y)
    a = x.mean() ** 2 - squared_t * covariance[1]
    b = x.mean() * y.mean() - squared_t * covariance[0]
    c = y.mean() ** 2 - squared_t * variance[0]
    root = b * b - a * c
    # Without width where every value is the same multiple of its baseline.
    if a <= 0 or root <= 1e-12 * b * b:
        return none
    low, high = (float(b + sign * math.sqrt(root)) / float(a) for sign in (-1, 1))
    return _interval(none.estimate, low, high, len(sample), UNBOUNDED)


def jackknife_interval(
    statistic: Callable[..., FloatArray], sizes: Sequence[int], *, logarithm: bool = False
) -> tuple[float, float]:
    """Ends of an interval of a smooth figure of several independent groups, each of which is left out unit by unit.

    The variance adds up over groups, with Student's t at the degrees of freedom of Satterthwaite (1946).

    Args:
        statistic: the figure ``[B]`` for weights ``[B, size]``, one array per group, each row of which adds up to one.
        sizes: how many units each group has; a group of one cannot be left out and adds nothing.
        logarithm: work on the logarithm, for figures that are positive and skewed.

    Returns:
        Both NaN where the figure does not change, or has no logarithm.
    """

    def figure(*weights: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            found = statistic(*weights)
            return np.log(found) if logarithm else found

    value, variance, freedom = _jackknife(figure, sizes)
    if not (math.isfinite(value) and 0 < variance < math.inf):
        return math.nan, math.nan
    half = _student(freedom) * math.sqrt(variance)
    return (math.exp(value - half), math.exp(value + half)) if logarithm else (value - half, value + half)


def crossed_share_interval(hits: FloatArray, counted: FloatArray) -> tuple[float, float]:
    """Ends of the interval of a share over seeds that all answered the same prompts.

    Wilson's interval, for so many independent answers as would make the share as uncertain as the jackknife over seeds
    and over prompts finds it (Korn and Graubard 1998), but never for more than there are prompts. It sees seeds that
    differ, and not that one more could fail where all agree.

    Args:
        hits: ``[S, N]``, answers with the property of each seed to each prompt.
        counted: ``[S, N]``, answers that count, at least one.
    """
    seeds, prompts = hits.shape
    independent = int(counted.any(axis=0).sum())

    def share(of_seeds: FloatArray, of_prompts: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore"):
            found: FloatArray = ((of_seeds @ hits) * of_prompts).sum(-1) / ((of_seeds @ counted) * of_prompts).sum(-1)
        return found

    value, variance, freedom = _jackknife(share, (seeds, prompts))
    if variance > 0 and seeds > 1 and (found := value * (1 - value) / variance) < independent:
        return _wilson(value, found, _student(freedom))
    return _wilson(value, independent, float(stats.norm.isf(_TAIL)))


def _jackknife(statistic: Callable[..., FloatArray], sizes: Sequence[int]) -> tuple[float, float, float]:
    """Value, jackknife variance and its degrees of freedom."""
    whole = [np.full((1, size), 1 / size) for size in sizes]
    value, variance, squares = float(statistic(*whole)[0]), 0.0, 0.0
    for group, size in enumerate(sizes):
        if size > 1:
            weights = [np.repeat(each, size, axis=0) for each in whole]
            weights[group] = (1 - np.eye(size)) / (size - 1)
            found = statistic(*weights)
            # Nothing counts without this unit.
            found = found[~np.isnan(found)]
            part = float((size - 1) * found.var()) if len(found) else 0.0
            variance += part
            squares += part**2 / (size - 1)
    return value, variance, variance**2 / squares if squares > 0 else math.inf


def _wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    squared = quantile**2
    middle = (share + squared / (2 * n)) / (1 + squared / n)
    half = quantile / (1 + squared / n) * math.sqrt(share * (1 - share) / n + squared / (4 * n**2))
    # Rounding can put an end a hair beyond the share at 0 and 1.
    return max(min(middle - half, share), 0.0), min(max(middle + half, share), 1.0)


def _student(freedom: float) -> float:
    return float(stats.t.isf(_TAIL, freedom))


def _interval(estimate: float | None, low: float, high: float, n: int, bounds: tuple[float, float]) -> Interval:
    """An interval within the range that holds its estimate whatever the rounding."""
    ends = max(low, bounds[0]), min(high, bounds[1])
    if estimate is not None:
        ends = min(ends[0], estimate), max(ends[1], estimate)
    return Interval(estimate=estimate, low=ends[0], high=ends[1], n=n)


def _sample(values: npt.ArrayLike, bounds: tuple[float, float]) -> FloatArray:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1:
        raise ValueError(f"values must be one number per unit, a one-dimensional array, not of shape {sample.shape}")
    sample = sample[~np.isnan(sample)]
    if not np.isfinite(sample).all():
        raise ValueError("values must be finite; leave out or mark as NaN what could not be measured")
    # Shares in single precision can lie a hair outside.
    if len(sample) and not (bounds[0] - 1e-6 <= sample.min() and sample.max() <= bounds[1] + 1e-6):
        raise ValueError(
            f"values must lie between {bounds[0]:g} and {bounds[1]:g}, not {sample.min():g} to {sample.max():g}"
        )
    return sample


def _mean(sample: FloatArray) -> float | None:
    """The mean, exactly the value where all are equal; None of nothing."""
    if not len(sample):
        return None
    return float(sample[0] if np.ptp(sample) == 0 else sample.mean())
