"""What a measurement found, and the record that is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from soo_marl.statistics import RESAMPLES
from soo_marl.storage.records import Record


@dataclass(frozen=True)
class Measurement:
    """One figure of the benchmark."""

    name: str
    values: NDArray[np.float64]
    """One per repeat."""
    unit: str
    text: str | None = None
    """A remark."""

    @property
    def median(self) -> float:
        """The estimate."""
        return float(np.median(self.values))

    def record(self, command: str) -> Record:
        """The median over repeats, with its 95 % bootstrap interval (percentile) over repeats."""
        low = high = None
        if len(self.values) > 1:
            interval = stats.bootstrap(
                (self.values,), np.median, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
            ).confidence_interval
            low, high = float(interval.low), float(interval.high)
        return Record(
            name=self.name,
            estimate=self.median,
            low=low,
            high=high,
            n=len(self.values),
            unit=self.unit,
            command=command,
            text=self.text,
        )


def measurement(name: str, values: ArrayLike, unit: str, text: str | None = None) -> Measurement:
    """A measurement of one value per repeat, or of a single one."""
    return Measurement(name, np.atleast_1d(np.asarray(values, dtype=np.float64)), unit, text)


def merged(measurements: Iterable[Measurement]) -> list[Measurement]:
    """The same with all values of one name together: a reference is timed anew beside every subject."""
    by_name: dict[str, Measurement] = {}
    for found in measurements:
        before = by_name.get(found.name)
        values = found.values if before is None else np.concatenate((before.values, found.values))
        by_name[found.name] = replace(found, values=values)
    return list(by_name.values())


def best(measurements: Sequence[Measurement], pattern: str, name: str) -> list[Measurement]:
    """The measurement with the largest median among those whose names fit, under another name; none where none fits.

    Args:
        measurements: where to choose from.
        pattern: of names; ``*`` stands for anything.
        name: the new name.
    """
    fitting = [found for found in measurements if fnmatchcase(found.name, pattern)]
    if not fitting:
        return []
    largest = max(fitting, key=lambda found: found.median)
    return [replace(largest, name=name, text=f"the largest of {len(fitting)}: {largest.name}")]
