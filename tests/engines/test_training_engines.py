"""Training comes out the same, bit for bit, whatever computes it and whoever dies meanwhile."""

from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from sys import executable
from typing import Any

import pytest
import shard_work
import torch
from safetensors.torch import load_file

from soo_marl.engines import Compute, run_shards
from soo_marl.storage.files import read_json
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.baselines.training import train_baselines
from soo_marl.studies.learning.recipes import BaselineConfig

Trained = tuple[BaselineConfig, StudyDirectory]


def same_agents(found: StudyDirectory, expected: StudyDirectory) -> None:
    """All agents and their curves agree bit for bit."""
    files = sorted(expected.path.rglob("agent.safetensors"))
    assert files
    for theirs in files:
        ours = found.path / theirs.relative_to(expected.path)
        tensors, expected_tensors = load_file(ours), load_file(theirs)
        assert tensors.keys() == expected_tensors.keys()
        assert all(torch.equal(tensors[name], expected_tensors[name]) for name in tensors), ours
        assert read_json(ours.with_name("curves.json")) == read_json(theirs.with_name("curves.json"))


@pytest.mark.slow
def test_agents_are_the_same_on_every_engine(engine: Compute, trained: Trained, study: Path) -> None:
    config, expected = trained
    directory = open_study(study, config)
    train_baselines(config, directory, compute=engine)
    same_agents(directory, expected)


def test_agents_are_the_same_after_the_death_of_workers(engine: Compute, trained: Trained, study: Path) -> None:
    config, expected = trained
    directory = open_study(study, config)
    marks = [study.with_name(f"killed_{number}") for number, _ in enumerate(config.shards)]
    shards = [(mark, config, study, seeds, "cpu") for mark, seeds in zip(marks, config.shards, strict=True)]
    run_shards(shard_work.train_and_die, shards, engine)
    assert all(mark.exists() for mark in marks)
    same_agents(directory, expected)


LONGER = [
    *("--seeds", "0", "1", "2", "--set", "seeds_per_shard=2", "--set", "evaluation_episodes=20"),
    *(f"--set=stages.{stage}.training.{change}" for stage in range(3) for change in ("updates=40", "log_every=10")),
]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A Ray cluster on this machine; its head node computes nothing."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
    try:
        cluster.workers = [cluster.add_node(num_cpus=1, **store) for _ in range(2)]
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_study_outlives_a_node(cluster: Any, tmp_path: Path, until: Callable[[Callable[[], bool]], None]) -> None:
    command = [executable, "-m", "soo_marl.cli", "train", *LONGER, "--output"]
    address = ["--engine", "ray", "--address", cluster.address]
    study = tmp_path / "study"
    with Popen([*command, str(study), *address], stderr=PIPE, text=True) as process:
        until(lambda: len(list(study.glob("steps/train/**/*.json"))) >= 2 or process.poll() is not None)
        assert not (study / "steps" / "train.json").exists(), "it was in the middle"
        cluster.remove_node(cluster.workers[0], allow_graceful=False)
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
    reference = tmp_path / "reference"
    with Popen([*command, str(reference), "--workers", "0"]) as process:
        assert process.wait() == 0
    same_agents(StudyDirectory.read(study), StudyDirectory.read(reference))
