"""The one entry to all engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from soo_marl.studies.engines.compute import LOCAL_WORKERS, Compute, check_settings, local_workers
from soo_marl.studies.engines.here import run_here
from soo_marl.studies.engines.local import run_in_workers

Result = TypeVar("Result")


def run_shards(
    function: Callable[..., Result],
    shards: Sequence[tuple[Any, ...]],
    compute: Compute = LOCAL_WORKERS,
    on_progress: Callable[[int, float], None] | None = None,
) -> list[Result]:
    """Call ``function(*shard, report=..., stop=...)`` for every shard and return the results in order.

    The function calls ``report(units of work done)`` now and then, at first with what an earlier call has left done,
    and raises :class:`Interrupted` soon once ``stop()`` is true. That is so after Ctrl-C, when another shard failed,
    and when the process that began the work is gone. A shard whose worker process or node dies is called again
    elsewhere while the others go on, so the function must take up what it had stored.

    Args:
        function: a module-level function, since other processes must find it.
        shards: the arguments of each call.
        compute: where to compute; the device is the function's own matter.
        on_progress: called in this process as ``on_progress(shard index, units of work done)``.

    Raises:
        ValueError: ``compute`` cannot be, or the Ray cluster cannot be used.
        WorkerLostError: a shard lost its worker again and again.
        KeyboardInterrupt: Ctrl-C; all shards were asked to stop and have done so.
        Exception: whatever the first failing shard raised; the others were asked to stop and have done so.
    """
    check_settings(compute)
    on_progress = on_progress or (lambda shard, done: None)
    if not shards:
        return []
    if compute.engine == "ray":
        from soo_marl.studies.engines.ray_cluster import run_on_ray

        return run_on_ray(function, shards, compute, on_progress)
    if compute.workers == 0:
        return run_here(function, shards, on_progress)
    return run_in_workers(function, shards, min(local_workers(compute), len(shards)), on_progress)
