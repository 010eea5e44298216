"""The one entry to all engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from soo_marl.engines.compute import LOCAL_WORKERS, Compute, check_settings, local_workers
from soo_marl.engines.here import run_here
from soo_marl.engines.local import run_in_workers
from soo_marl.engines.shards import OnFailure


def run_shards(
    function: Callable[..., Any],
    shards: Sequence[tuple[Any, ...]],
    compute: Compute = LOCAL_WORKERS,
    on_progress: Callable[[int, float], None] | None = None,
    on_failure: OnFailure | None = None,
) -> list[Any]:
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
        from soo_marl.engines.ray_cluster import run_on_ray

        return run_on_ray(function, shards, compute, on_progress, on_failure)
    if compute.workers == 0:
        return run_here(function, shards, on_progress, on_failure)
    return run_in_workers(function, shards, min(local_workers(compute), len(shards)), on_progress, on_failure)
