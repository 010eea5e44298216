"""Cases: what is measured in one process, with the most memory that it took."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.measurements import Measurement, measurement
from benchmarks.settings import Settings


@dataclass(frozen=True)
class Case:
    """Measurements that share a process: ``function(settings, *arguments)``."""

    name: str
    function: Callable[..., list[Measurement]]
    """A module-level function, since another process must find it."""
    arguments: tuple[Any, ...] = ()


def carry_out(case: Case, settings: Settings) -> list[Measurement]:
    """Measure in a fresh process with one torch thread, so that no case finds the memory or the caches of another.

    Raises:
        Exception: whatever the case raised.
        concurrent.futures.process.BrokenProcessPool: its process died, for want of memory perhaps.
    """
    if settings.quick:
        return case.function(settings, *case.arguments)
    with one_worker() as process:
        found, peak = process.submit(_with_peak_memory, case, settings).result()
    return [*found, measurement(f"{case.name}/peak_memory", peak, "MiB")]


def one_worker(initialiser: Callable[..., None] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """One fresh process with one torch thread; it calls the initialiser before any work."""
    return ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(initialiser, arguments),
    )


def _start(initialiser: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    if initialiser is not None:
        initialiser(*arguments)


def _with_peak_memory(case: Case, settings: Settings) -> tuple[list[Measurement], float]:
    found = case.function(settings, *case.arguments)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    # Linux counts in KiB, macOS in bytes. Linux also lets a process begin with its parent's peak; here the parent has
    # loaded the same libraries and holds nothing else.
    return found, peak / (2**20 if sys.platform == "darwin" else 2**10)
