"""Where and how the shards of a study are computed: in this process, in local worker processes, or on a Ray cluster."""

from soo_marl.engines.compute import (
    LOCAL_WORKERS,
    Compute,
    check_machine,
    one_torch_thread,
    threads_per_shard,
    torch_threads,
    usable_cores,
    usable_memory,
)
from soo_marl.engines.run import run_shards
from soo_marl.engines.shards import Interrupted, WorkerLostError

__all__ = [
    "LOCAL_WORKERS",
    "Compute",
    "Interrupted",
    "WorkerLostError",
    "check_machine",
    "one_torch_thread",
    "run_shards",
    "threads_per_shard",
    "torch_threads",
    "usable_cores",
    "usable_memory",
]
