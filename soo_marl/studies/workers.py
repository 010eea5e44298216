"""Shards of a study over local worker processes, each with one torch thread.

Two processes with one thread each use two cores better than one process with two threads for networks this small.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


class Interrupted(Exception):
    """Work stopped on request after everything needed to continue was written."""


_report_queue: multiprocessing.Queue[tuple[int, float]] | None = None
_stop_event: Event | None = None


def usable_cores() -> int:
    """Number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_shards(
    function: Callable[..., Result],
    shards: Sequence[tuple[Any, ...]],
    workers: int | None = None,
    on_progress: Callable[[int, float], None] | None = None,
) -> list[Result]:
    """Call ``function(*shard, report=..., stop=...)`` for every shard and return the results in order.

    The function calls ``report(units of work done)`` now and then, and stops soon once ``stop()`` is true.

    Args:
        function: a module-level function, since other processes must find it.
        shards: the arguments of each call.
        workers: processes at once; as many as there are usable cores by default, 0 for none but this one.
        on_progress: called in this process as ``on_progress(shard index, units of work done)``.

    Raises:
        KeyboardInterrupt: Ctrl-C; all shards were asked to stop and have done so.
        Exception: whatever the first failing shard raised; the others were asked to stop and have done so.
    """
    on_progress = on_progress or (lambda shard, done: None)
    workers = usable_cores() if workers is None else workers
    if workers == 0:
        return [
            function(*shard, report=partial(on_progress, index), stop=lambda: False)
            for index, shard in enumerate(shards)
        ]
    context = multiprocessing.get_context("spawn")
    reports: multiprocessing.Queue[tuple[int, float]] = context.Queue()
    stop_event = context.Event()
    with ProcessPoolExecutor(
        min(workers, len(shards)), mp_context=context, initializer=_start_worker, initargs=(reports, stop_event)
    ) as executor:
        futures = [executor.submit(_run_shard, function, index, shard) for index, shard in enumerate(shards)]
        try:
            _watch(futures, reports, on_progress)
        except BaseException:
            stop_event.set()
            for future in futures:
                future.cancel()
            raise
    return [future.result() for future in futures]


def _watch(
    futures: Sequence[Future[Any]],
    reports: multiprocessing.Queue[tuple[int, float]],
    on_progress: Callable[[int, float], None],
) -> None:
    """Pass reports on until all shards are done; raise what the first failing one raised."""
    unfinished: set[Future[Any]] = set(futures)
    while unfinished:
        done, unfinished = wait(unfinished, timeout=0.2, return_when=FIRST_EXCEPTION)
        while True:
            try:
                on_progress(*reports.get_nowait())
            except queue.Empty:
                break
        for future in done:
            future.result()


def _start_worker(reports: multiprocessing.Queue[tuple[int, float]], stop_event: Event) -> None:
    global _report_queue, _stop_event
    # Ctrl-C reaches every process of the group: the parent decides, and workers stop at the next safe point.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _report_queue, _stop_event = reports, stop_event


def _run_shard(function: Callable[..., Result], index: int, arguments: tuple[Any, ...]) -> Result:
    assert _report_queue is not None and _stop_event is not None
    reports, stop_event = _report_queue, _stop_event
    return function(*arguments, report=lambda done: reports.put((index, done)), stop=stop_event.is_set)
