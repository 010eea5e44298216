"""The one entry to all engines, and who works on which shard when."""

from __future__ import annotations

import itertools
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from soo_marl.engines.compute import LOCAL_WORKERS, Compute, check_settings, local_workers, one_torch_thread
from soo_marl.engines.local import LocalCrew
from soo_marl.engines.shards import Attempts, Interrupted, Lost, OnFailure, Outcome, WorkerLostError

Shards = Sequence[tuple[Any, ...]]
OnProgress = Callable[[int, float], None]


class Crew(Protocol):
    """The workers of an engine, seen from the process that began the work. Every attempt at a shard has a number."""

    def has_room(self) -> bool:
        """Whether one more attempt can begin."""

    def start(self, attempt: int, call: bytes) -> None:
        """Have a call carried out, see :func:`soo_marl.engines.shards.answer`."""

    def messages(self) -> Iterator[tuple[int, float | Outcome | Lost | WorkerLostError]]:
        """What attempts say, one by one: units of work done, or how they ended; nothing after a moment of silence.

        An error tells that no worker can be started.
        """

    def stop(self) -> None:
        """Ask all attempts to stop, and wait until they have."""

    def dismiss(self) -> None:
        """Let the workers go; those still at work, after a second Ctrl-C, are killed."""


def run_shards(
    function: Callable[..., Any],
    shards: Shards,
    compute: Compute = LOCAL_WORKERS,
    on_progress: OnProgress | None = None,
    on_failure: OnFailure | None = None,
) -> list[Any]:
    """Call ``function(*shard, report=..., stop=...)`` for every shard and return the results in order.

    The function calls ``report(units of work done)`` now and then, at first with what an earlier call has left done,
    and raises :class:`Interrupted` soon once ``stop()`` is true. That is so after Ctrl-C, when another shard failed,
    and when the process that began the work is gone. A shard whose worker process or node dies is called again
    elsewhere while the others go on, so the function must take up what it had stored.

    Args:
        function: a module-level function, since other processes must find it; with one torch thread, if its module
            loads torch.
        shards: the arguments of each call.
        compute: where to compute; the device is the function's own matter.
        on_progress: called in this process as ``on_progress(shard index, units of work done)``.
        on_failure: called in this process as ``on_failure(shard index, what it raised)`` for a shard that fails, which
            then returns None while the others go on; without it, the first failure ends everything.

    Raises:
        ValueError: ``compute`` cannot be, or the Ray cluster cannot be used.
        WorkerLostError: a shard lost its worker again and again, or no worker can be started.
        KeyboardInterrupt: Ctrl-C; all shards were asked to stop and have done so.
        Exception: whatever the first failing shard raised; the others were asked to stop and have done so.
    """
    check_settings(compute)
    on_progress = on_progress or (lambda shard, done: None)
    if not shards:
        return []
    if compute.engine == "ray":
        from soo_marl.engines.ray_cluster import RayCrew, connection

        with connection(compute):
            return _run_over(RayCrew(compute), function, shards, on_progress, on_failure)
    if compute.workers == 0:
        return _run_here(function, shards, on_progress, on_failure)
    crew = LocalCrew(min(local_workers(compute), len(shards)))
    return _run_over(crew, function, shards, on_progress, on_failure)


def _run_here(
    function: Callable[..., Any], shards: Shards, on_progress: OnProgress, on_failure: OnFailure | None
) -> list[Any]:
    """One shard after the other, without any other process."""
    results: list[Any] = [None] * len(shards)
    with _interrupts_asking() as stop, one_torch_thread():
        for index, shard in enumerate(shards):
            try:
                results[index] = function(*shard, report=partial(on_progress, index), stop=stop)
            except Interrupted:
                raise KeyboardInterrupt from None
            except Exception as error:
                _pass_on(error, index, on_failure)
        if stop():
            raise KeyboardInterrupt
    return results


def _run_over(
    crew: Crew, function: Callable[..., Any], shards: Shards, on_progress: OnProgress, on_failure: OnFailure | None
) -> list[Any]:
    """All shards over a crew, those whose worker is lost again and again until they get no further."""
    results: dict[int, Any] = {}
    waiting = deque(range(len(shards)))
    histories = [Attempts() for _ in shards]
    numbers, shard_of = itertools.count(), dict[int, int]()
    with _interrupts_asking() as interrupted:
        try:
            while len(results) < len(shards):
                while waiting and crew.has_room():
                    shard, attempt = waiting.popleft(), next(numbers)
                    shard_of[attempt] = shard
                    histories[shard].start()
                    crew.start(attempt, pickle.dumps((function, shards[shard])))
                for attempt, message in crew.messages():
                    shard = shard_of[attempt]
                    if isinstance(message, WorkerLostError):
                        raise message
                    if isinstance(message, float):
                        histories[shard].report(message)
                        on_progress(shard, message)
                        continue
                    try:
                        if isinstance(message, Outcome):
                            results[shard] = message.get()
                        else:
                            histories[shard].lose(message.how)
                            waiting.appendleft(shard)
                    except Exception as error:
                        _pass_on(error, shard, on_failure)
                        results[shard] = None
                if interrupted():
                    raise KeyboardInterrupt
        except BaseException:
            crew.stop()
            raise
        finally:
            crew.dismiss()
    return [results[index] for index in range(len(shards))]


def _pass_on(error: Exception, shard: int, on_failure: OnFailure | None) -> None:
    """Tell of the failure of a shard, or raise it where it is the end of everything."""
    if on_failure is None or isinstance(error, Interrupted):
        raise error
    on_failure(shard, error)


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
