"""Where to compute: what cannot be is refused in one sentence before anything is begun."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine, run_shards, usable_cores, usable_memory
from soo_marl.engines.compute import local_workers


def refused(compute: Compute, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_machine(compute)


def test_possible_settings_pass() -> None:
    for compute in (LOCAL_WORKERS, Compute(workers=0), Compute(workers=5)):
        check_machine(compute)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": -1}, r"^workers must be 0 \(this process alone\) or more, not -1$"),
        ({"engine": "dask"}, r"^there is no engine 'dask'; choose one of local, ray$"),
        ({"address": "head:6379"}, r"^--address names a Ray cluster, so it needs --engine ray$"),
        ({"engine": "ray", "workers": 0}, r"^with --engine ray nothing is computed in this process, so workers"),
        ({"engine": "ray", "device": "cuda:1"}, r"^with --engine ray give the device as cuda, not cuda:1"),
        ({"engine": "ray", "address": "head"}, r"^--address takes host:port or auto, not 'head'$"),
        ({"engine": "ray"}, r"^--engine ray needs --address: host:port of the cluster's head, or auto .* TMPDIR"),
        ({"device": "auto", "workers": 2}, r"^--device auto spreads one model over all GPUs of a machine: it needs"),
        ({"device": "auto", "engine": "ray"}, r"it needs --engine local and --workers 0 or 1$"),
        ({"engine": "ray", "address": "ray://head:10001"}, r"^--address takes host:port or auto"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    refused(Compute(**settings), message)
    with pytest.raises(ValueError, match=message):
        run_shards(check_machine, [()], Compute(**settings))


def test_devices_that_are_not_there() -> None:
    refused(Compute(device="abacus"), r"^cannot compute on the device 'abacus': [^\n]+$")
    if not torch.cuda.is_available():
        refused(Compute(device="cuda"), r"^cannot compute on the device 'cuda': [^\n]+$")


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(Compute(engine="ray", address="auto"), r'^--engine ray needs the extra: pip install "soo-marl\[cluster\]"$')


def test_one_model_over_all_devices_is_for_what_can_be_spread() -> None:
    refused(Compute(device="auto"), r"^--device auto spreads a language model over several GPUs; here name cpu, cuda")
    for workers in (None, 0, 1):
        check_machine(Compute(device="auto", workers=workers), spreads=True)
    with pytest.raises(ValueError, match="auto spreads one model"):
        check_machine(Compute(device="auto", workers=2), spreads=True)
    assert local_workers(Compute(device="auto")) == 1
    assert local_workers(Compute(device="cpu")) == usable_cores()


@pytest.mark.parametrize(
    ("groups", "files", "cores", "memory"),
    [
        ("0::/", {"cpu.max": "50000 100000", "memory.max": "1000000"}, 1, 1_000_000),
        ("0::/pod/container", {"pod/cpu.max": "100000 100000", "pod/container/cpu.max": "max 100000"}, 1, None),
        ("0::/pod", {"cpu.max": "max 100000", "memory.max": "max"}, None, None),
        (
            "4:cpu,cpuacct:/job",
            {"cpu,cpuacct/cpu.cfs_quota_us": "90000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            1,
            None,
        ),
        ("4:cpu:/job", {"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"}, None, None),
        ("9:memory:/job", {"memory/job/memory.limit_in_bytes": "2000000"}, None, 2_000_000),
        ("nonsense", {"cpu.max": "1 1"}, None, None),
    ],
)
def test_the_limits_of_a_container_count(
    groups: str, files: dict[str, str], cores: int | None, memory: int | None, tmp_path: Path
) -> None:
    there = {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}
    for name, text in there.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    nowhere = tmp_path / "nowhere"
    assert usable_cores(tmp_path) == (cores or usable_cores(nowhere))
    assert usable_memory(tmp_path) == (memory or usable_memory(nowhere)) > 0
