"""Timing a subject and its references in turn, so that a machine that slows down slows all of them.

This module needs NumPy alone, since peers import it in environments of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Work = Callable[[], float]
"""Does a piece of work, and returns how many units of work that was."""

Rates = NDArray[np.float64]
"""Units of work per second ``[repeats]``."""


def interleaved(works: Mapping[str, Work], repeats: int, seconds: float) -> dict[str, Rates]:
    """Time several kinds of work in turn; every second repeat goes through them backwards.

    Each is done once untimed before.

    Args:
        works: what to time, by name.
        repeats: how often.
        seconds: least duration of each timing; the work is done again until they are over.
    """
    for work in works.values():
        work()
    rates: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats):
        for name in list(works)[:: 1 if repeat % 2 == 0 else -1]:
            rates[name].append(rate(works[name], seconds))
    return {name: np.array(values) for name, values in rates.items()}


def rate(work: Work, seconds: float) -> float:
    """Units of work per second, over at least so many seconds and one piece of work."""
    start = time.perf_counter()
    done = work()
    while (elapsed := time.perf_counter() - start) < seconds:
        done += work()
    return done / elapsed
