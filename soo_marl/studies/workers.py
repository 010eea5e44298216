"""Shards of a study over local worker processes, each with one torch thread.

Two processes with one thread each use two cores better than one process with two threads for networks this small.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


class Interrupted(Exception):
    """Work stopped on request after everything needed to continue was written."""


class WorkerLostError(Exception):
    """A worker process ended without a word; the message is one sentence for the user."""


_report_queue: multiprocessing.Queue[tuple[int, float]] | None = None
_stop_event: Event | None = None
_working = threading.Lock()
"""Held by a worker process while it computes a shard."""


def usable_cores() -> int:
    """Number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_machine(workers: int | None, device: str) -> None:
    """Find out before anything is begun whether this machine can compute as asked.

    Raises:
        ValueError: the number of workers is negative, or there is no such device here.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers must be 0 (this process alone) or more, not {workers}")
    try:
        torch.zeros(1, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        # Torch adds paragraphs of advice.
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"cannot compute on the device {device!r}: {reason}") from error


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Compute with one torch thread; for networks this small two that share busy cores are many times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_shards(
    function: Callable[..., Result],
    shards: Sequence[tuple[Any, ...]],
    workers: int | None = None,
    on_progress: Callable[[int, float], None] | None = None,
) -> list[Result]:
    """Call ``function(*shard, report=..., stop=...)`` for every shard and return the results in order.

    The function calls ``report(units of work done)`` now and then, and raises :class:`Interrupted` soon once ``stop()``
    is true. That is so after Ctrl-C, when another shard failed, and when the process that began the work is gone.

    Args:
        function: a module-level function, since other processes must find it.
        shards: the arguments of each call.
        workers: processes at once; as many as there are usable cores by default, 0 for none but this one.
        on_progress: called in this process as ``on_progress(shard index, units of work done)``.

    Raises:
        ValueError: the number of workers is negative.
        WorkerLostError: a worker process was killed.
        KeyboardInterrupt: Ctrl-C; all shards were asked to stop and have done so.
        Exception: whatever the first failing shard raised; the others were asked to stop and have done so.
    """
    on_progress = on_progress or (lambda shard, done: None)
    workers = usable_cores() if workers is None else workers
    if workers < 0:
        raise ValueError(f"workers must be 0 (this process alone) or more, not {workers}")
    if not shards:
        return []
    if workers == 0:
        return _run_here(function, shards, on_progress)
    context = multiprocessing.get_context("spawn")
    reports: multiprocessing.Queue[tuple[int, float]] = context.Queue()
    stop_event = context.Event()
    with ProcessPoolExecutor(
        min(workers, len(shards)), mp_context=context, initializer=_start_worker, initargs=(reports, stop_event)
    ) as executor:
        futures: list[Future[Result]] = []
        try:
            with _interrupts_held_back():
                futures = [executor.submit(_run_shard, function, index, shard) for index, shard in enumerate(shards)]
            _watch(futures, reports, on_progress)
        except BaseException as error:
            stop_event.set()
            for future in futures:
                future.cancel()
            if isinstance(error, BrokenProcessPool):
                raise WorkerLostError(
                    "a worker process was killed, perhaps for lack of memory; run the same command again to go on, "
                    "with fewer --workers if it happens again"
                ) from error
            raise
    return [future.result() for future in futures]


def _run_here(
    function: Callable[..., Result], shards: Sequence[tuple[Any, ...]], on_progress: Callable[[int, float], None]
) -> list[Result]:
    with _interrupts_asking() as stop, one_torch_thread():
        try:
            return [
                function(*shard, report=partial(on_progress, index), stop=stop) for index, shard in enumerate(shards)
            ]
        except Interrupted:
            raise KeyboardInterrupt from None


@contextmanager
def _interrupts_asking() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C within the block into a request, which the yielded function tells of; a second one acts."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait until the block ends; processes started within it never see one.

    Ctrl-C reaches every process of the terminal's group, and one that comes while a worker still loads its modules
    would end it with a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    threading.Thread(target=_follow_parent, args=(stop_event,), daemon=True).start()


def _follow_parent(stop_event: Event) -> None:
    """Ask the work to stop once the parent is gone, and leave.

    Otherwise a worker would go on for hours, and get into the way of the command that continues the work.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    stop_event.set()
    with _working:
        os._exit(1)


def _run_shard(function: Callable[..., Result], index: int, arguments: tuple[Any, ...]) -> Result:
    assert _report_queue is not None and _stop_event is not None
    reports, stop_event = _report_queue, _stop_event
    with _working:
        if stop_event.is_set():
            raise Interrupted
        return function(*arguments, report=lambda done: reports.put((index, done)), stop=stop_event.is_set)
