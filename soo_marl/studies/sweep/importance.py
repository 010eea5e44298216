"""Which axes of a sweep mattered: how much of a metric's variance each axis alone explains, and what chance would.

The statistic is the share of the variance over all runs (points times seeds) that lies between the groups of an axis:
its values, or the thirds of its range. Chance is what the same share comes to when the axis is shuffled:

* an axis of the grid among runs of the same seed that differ in nothing else, so like is compared with like;
* a drawn axis among the draws, which were made independently of everything else.

The share that is reported is what remains beyond chance. Only effects of an axis alone are seen: two axes that matter
together and neither by itself look dead, and so does a shape within a third of a range.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from soo_marl.statistics import Interval
from soo_marl.storage.records import over_seeds
from soo_marl.studies.sweep.axes import Axis, ListedAxis, Point, value_text
from soo_marl.studies.sweep.records import AxisRecord, GroupRecord

Integers = NDArray[np.int64]
Numbers = NDArray[np.float64]

SIGNIFICANT = 0.05
"""Largest adjusted p-value of an axis that is said to matter."""

FEWEST_SHUFFLES = 1 / SIGNIFICANT
"""Where fewer different shuffles exist, no result could ever be significant."""

_SHUFFLES = (*[100] * 19, 99)
"""So many at once: all 1,999 of a large sweep would not fit into memory."""


def axis_records(axes: Sequence[Axis], points: Sequence[Point], metric: str, values: Numbers) -> tuple[AxisRecord, ...]:
    """What each axis did to a metric, the axis with the largest share first.

    Args:
        axes: what was varied.
        points: the ``P`` finished points.
        metric: name of the metric.
        values: the metric ``[P, S]`` of every point and seed, NaN where it is missing.
    """
    generator = np.random.default_rng(0)
    tests = [_test(axis, axes, points, values, generator) for axis in axes]
    p_values = [p_value for _, p_value in filter(None, tests)]
    adjusted = iter(false_discovery_control(p_values).tolist() if p_values else ())
    records = []
    for axis, test in zip(axes, tests, strict=True):
        share, p_value = (None, None) if test is None else (test[0], next(adjusted))
        records.append(
            AxisRecord(
                field=axis.field,
                metric=metric,
                groups=_groups(axis, points, values, metric, generator),
                share=share,
                p_value=p_value,
                matters=p_value is not None and p_value <= SIGNIFICANT,
            )
        )
    return tuple(sorted(records, key=lambda record: -1.0 if record.share is None else record.share, reverse=True))


def _test(
    axis: Axis, axes: Sequence[Axis], points: Sequence[Point], values: Numbers, generator: np.random.Generator
) -> tuple[float, float] | None:
    """Share of the variance beyond chance, and the p-value; None where there are too few points or seeds to tell."""
    rows, seeds = np.nonzero(~np.isnan(values))
    codes, blocks, units = _shuffling(axis, axes, points, rows, seeds)
    if _different_shuffles(codes, blocks) < FEWEST_SHUFFLES:
        return None
    metric = values[rows, seeds]
    total = float(np.square(metric - metric.mean()).sum())
    of_rows = blocks[units]
    centred = metric - (np.bincount(of_rows, metric) / np.maximum(np.bincount(of_rows), 1))[of_rows]
    within = float(np.square(centred).sum())
    if within <= 1e-12 * float(np.square(metric).sum()):
        return 0.0, 1.0
    found = float(_explained(codes[None, units], centred)[0])
    chance = np.concatenate(
        [_explained(_shuffled(codes, blocks, times, generator)[:, units], centred) for times in _SHUFFLES]
    )
    share = within / total * (found - chance.mean()) / (within - chance.mean())
    # Shuffles that change nothing must count as equal, whatever the rounding.
    as_much = int((chance >= found * (1 - 1e-9)).sum())
    return min(max(float(share), 0.0), 1.0), (1 + as_much) / (1 + len(chance))


def _shuffling(
    axis: Axis, axes: Sequence[Axis], points: Sequence[Point], rows: Integers, seeds: Integers
) -> tuple[Integers, Integers, Integers]:
    """What may be shuffled: the group of each of U units, the block that it stays in, and the unit of each run.

    ``rows`` and ``seeds`` are the indices of each run's point and seed.
    """
    codes = _codes(axis, points)
    if axis.search == "grid":
        others = [_key(point, [other for other in axes if other is not axis]) for point in points]
        runs = zip(rows.tolist(), seeds.tolist(), strict=True)
        return codes[rows], _numbered([f"{seed} {others[row]}" for row, seed in runs]), np.arange(len(rows))
    draws = _numbered([_key(point, [other for other in axes if other.search != "grid"]) for point in points])
    used, first, units = np.unique(draws[rows], return_index=True, return_inverse=True)
    return codes[rows[first]], np.zeros(len(used), dtype=np.int64), units


def _explained(codes: Integers, centred: Numbers) -> Numbers:
    """Sum of squares between groups ``[K]`` for codes ``[K, N]``; all ``N`` runs together have the mean 0."""
    groups = int(codes.max()) + 1
    cells = (codes + groups * np.arange(len(codes))[:, None]).ravel()
    sums = np.bincount(cells, np.tile(centred, len(codes)), groups * len(codes))
    counts = np.bincount(cells, minlength=groups * len(codes))
    explained: Numbers = (np.square(sums) / np.maximum(counts, 1)).reshape(len(codes), groups).sum(axis=1)
    return explained


def _shuffled(codes: Integers, blocks: Integers, times: int, generator: np.random.Generator) -> Integers:
    """The codes ``[U]`` in other orders ``[times, U]``, within blocks."""
    shuffled = np.empty((times, len(codes)), dtype=np.int64)
    order = np.argsort(blocks + generator.random((times, len(blocks))), axis=1)
    shuffled[:, np.argsort(blocks, kind="stable")] = codes[order]
    return shuffled


def _different_shuffles(codes: Integers, blocks: Integers) -> float:
    """In how many different ways shuffling can group the units, whatever the groups are called."""
    logarithm = -math.lgamma(len(np.unique(codes)) + 1)
    for block in np.unique(blocks):
        counts = np.unique(codes[blocks == block], return_counts=True)[1]
        logarithm += math.lgamma(int(counts.sum()) + 1) - sum(math.lgamma(int(count) + 1) for count in counts)
    return math.exp(min(logarithm, 700.0)) * (1 + 1e-9)


def _codes(axis: Axis, points: Sequence[Point]) -> Integers:
    """The group of every point ``[P]``: its place in the list, or the third of the drawn values that it lies in."""
    if isinstance(axis, ListedAxis):
        places = {json.dumps(value): place for place, value in enumerate(axis.values)}
        return np.array([places[json.dumps(point.values[axis.field])] for point in points], dtype=np.int64)
    drawn = _drawn(axis, points)
    thirds = np.quantile(drawn, [1 / 3, 2 / 3]) if points else drawn
    return np.searchsorted(thirds, drawn).astype(np.int64)


def _groups(
    axis: Axis, points: Sequence[Point], values: Numbers, metric: str, generator: np.random.Generator
) -> tuple[GroupRecord, ...]:
    codes = _codes(axis, points)
    groups = []
    for code in np.unique(codes):
        members = np.flatnonzero(codes == code)
        low = high = None
        if isinstance(axis, ListedAxis):
            label = value_text(axis.values[int(code)])
        else:
            drawn = _drawn(axis, points)[members]
            low, high = float(drawn.min()), float(drawn.max())
            label = f"{low:g} to {high:g}"
        sample = values[members[0]] if len(members) == 1 else point_means(values[members])
        groups.append(
            GroupRecord(
                label=label,
                low=low,
                high=high,
                points=tuple(points[member].number for member in members.tolist()),
                mean=over_metric(metric, sample, generator),
            )
        )
    return tuple(groups)


def over_metric(metric: str, values: Numbers, generator: np.random.Generator) -> Interval:
    """The mean of a metric over seeds or points; every metric but returns is a rate."""
    return over_seeds(values, generator, rate=not metric.endswith("/return"))


def point_means(values: Numbers) -> Numbers:
    """Mean over seeds ``[P]`` of values ``[P, S]``, leaving missing ones out; NaN where all are missing."""
    means: Numbers = np.ma.masked_invalid(values).mean(axis=1).filled(np.nan)
    return means


def _drawn(axis: Axis, points: Sequence[Point]) -> Numbers:
    return np.array([point.values[axis.field] for point in points], dtype=np.float64)


def _key(point: Point, axes: Sequence[Axis]) -> str:
    """The point's values on some axes, as text."""
    return json.dumps([point.values[axis.field] for axis in axes])


def _numbered(keys: Sequence[str]) -> Integers:
    """Numbers from 0 for keys, equal for equal keys."""
    return np.unique(np.array(keys, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
