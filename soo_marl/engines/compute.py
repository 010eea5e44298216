"""Where a study computes, as one value, and whether this machine can compute there."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Compute:
    """Where to compute. :func:`check_machine` says whether that is possible."""

    workers: int | None = None
    """Shards at once, one process each; as many as there are cores by default, 0 for this process alone."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1 ...; for language models also auto: one model over all GPUs."""
    engine: Literal["local", "ray"] = "local"
    """local: worker processes on this machine; ray: a Ray cluster, whose nodes must share the study's folder."""
    address: str | None = None
    """Address of the Ray cluster: host:port, or auto for the one that was started on this machine."""


ALL_DEVICES = "auto"
"""The device that stands for all GPUs of this machine; the CPU where there is none."""

LOCAL_WORKERS = Compute()
"""As many local worker processes as there are cores, on the CPU."""


def usable_cores(root: Path = Path("/")) -> int:
    """Number of processor cores this process may use: its affinity, or a container's quota where that is less.

    ``proc`` and ``sys`` lie in ``root``.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [*_limits(root, "cpu.max"), *_limits(root, "cpu.cfs_quota_us", "cpu.cfs_period_us")]
    quotas = [quota / period for quota, period in limits if quota > 0 and period > 0]
    return min([cores, *map(math.ceil, quotas)])


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this machine has, or a container's limit where that is less; ``root`` as above."""
    there = 1 << 62
    with suppress(OSError, ValueError, AttributeError):
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [*_limits(root, "memory.max"), *_limits(root, "memory.limit_in_bytes")]
    return min([there, *(limit for (limit,) in limits)])


def _limits(root: Path, *names: str) -> list[list[int]]:
    """The numbers in these files of every control group (version 1 and 2) around this process; "max" is no limit."""
    limits = []
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            mount = root / "sys/fs/cgroup" / controllers
            folder = mount / group.lstrip("/")
            for place in (place for place in (folder, *folder.parents) if place.is_relative_to(mount)):
                with suppress(OSError, ValueError):
                    limits.append([int(word) for name in names for word in (place / name).read_text().split()])
    return limits


def check_settings(compute: Compute) -> None:
    """Refuse what cannot be on any machine.

    Raises:
        ValueError: a field is out of its range, or two contradict each other.
    """
    if compute.workers is not None and compute.workers < 0:
        raise ValueError(f"workers must be 0 (this process alone) or more, not {compute.workers}")
    if compute.engine not in ("local", "ray"):
        raise ValueError(f"there is no engine {compute.engine!r}; choose one of local, ray")
    if compute.device == ALL_DEVICES and (compute.engine != "local" or (compute.workers or 0) > 1):
        raise ValueError(
            "--device auto spreads one model over all GPUs of a machine: it needs --engine local and --workers 0 or 1"
        )
    if compute.engine == "local":
        if compute.address is not None:
            raise ValueError("--address names a Ray cluster, so it needs --engine ray")
        return
    if compute.workers == 0:
        raise ValueError("with --engine ray nothing is computed in this process, so workers must be 1 or more, not 0")
    if compute.address not in (None, "auto") and not re.fullmatch(r"[^/]+:\d{1,5}", compute.address):
        raise ValueError(f"--address takes host:port or auto, not {compute.address!r}")
    if compute.device.startswith("cuda:"):
        raise ValueError(f"with --engine ray give the device as cuda, not {compute.device}: Ray chooses which GPU")
    if compute.address is None:
        raise ValueError(
            "--engine ray needs --address: host:port of the cluster's head, or auto for the one started on this "
            "machine (under the same TMPDIR); without a cluster, local workers do all that Ray would"
        )


def local_workers(compute: Compute) -> int:
    """Local worker processes; 0 for this process alone."""
    if compute.workers is None:
        return 1 if compute.device == ALL_DEVICES else usable_cores()
    return compute.workers


def check_machine(compute: Compute, spreads: bool = False) -> None:
    """Find out before anything is begun whether this machine can compute as asked.

    Args:
        compute: where to compute.
        spreads: whether what is computed can be spread over several devices.

    Raises:
        ValueError: a field is out of its range, there is no such device here, or Ray is not installed.
    """
    check_settings(compute)
    if compute.engine == "ray" and importlib.util.find_spec("ray") is None:
        raise ValueError('--engine ray needs the extra: pip install "soo-marl[cluster]"')
    if compute.device == ALL_DEVICES:
        if not spreads:
            raise ValueError("--device auto spreads a language model over several GPUs; here name cpu, cuda or cuda:0")
        return
    import torch  # only here and below: it takes seconds to load

    try:
        torch.zeros(1, device=compute.device).sum().item()
    except (RuntimeError, AssertionError) as error:
        # Torch adds paragraphs of advice.
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"cannot compute on the device {compute.device!r}: {reason}") from error


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with so many torch threads within the block, and in float32, whatever the session's default is."""
    import torch

    before = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(count)
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_default_dtype(before[1])


def threads_per_shard(compute: Compute, shards: int) -> int:
    """Torch threads for each of so few shards that some of the local workers would stand idle; 1 otherwise."""
    if compute.engine != "local" or compute.workers == 0:
        return 1
    return max(1, local_workers(compute) // max(1, shards))


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Compute with one torch thread; for networks this small two that share busy cores are many times slower."""
    with torch_threads(1):
        yield
