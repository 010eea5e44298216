"""Studies small enough to train in a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from soo_marl.agents import MADDPGConfig, TrainingConfig
from soo_marl.engines import Compute
from soo_marl.envs import preset
from soo_marl.envs.observations import BLUE_AGENT
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.baselines.training import train_baselines
from soo_marl.studies.learning.recipes import BaselineConfig, Stage

torch.set_num_threads(1)


def _training(updates: int = 6, learners: tuple[int, ...] | None = None) -> TrainingConfig:
    return TrainingConfig(
        worlds=8,
        updates=updates,
        steps_per_update=3,
        batch_size=16,
        replay_capacity=400,
        warm_up=64,
        log_every=2,
        learners=learners,
    )


def tiny_config(**changes: object) -> BaselineConfig:
    """A staged study whose agents train in a moment and learn nothing."""
    blue = {"alone_share": 0.5}
    fields: dict[str, object] = {
        "game": preset("trackable").replace(episode_length=12),
        "regime": "staged",
        "seeds": (0, 1),
        "maddpg": MADDPGConfig(hidden_units=16, contexts=2, reward_scale=0.1),
        "stages": (
            Stage(name="follow", training=_training()),
            Stage(name="lure", training=_training(learners=(BLUE_AGENT,)), goal_needs_trap=True, **blue),
            Stage(name="settle", training=_training(learners=(BLUE_AGENT,)), **blue),
        ),
        "seeds_per_shard": 2,
        "evaluation_episodes": 40,
    }
    return BaselineConfig.model_validate(fields | changes)


@pytest.fixture
def tiny() -> Callable[..., BaselineConfig]:
    """Makes tiny configurations; fields can be changed by name."""
    return tiny_config


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[BaselineConfig, StudyDirectory]:
    """A tiny study of three seeds in two shards, trained without interruption. Its agents are not to be changed."""
    config = tiny_config(seeds=(0, 1, 2))
    directory = open_study(tmp_path_factory.mktemp("trained") / "study", config)
    train_baselines(config, directory, compute=Compute(workers=0))
    return config, directory


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Where a test's own study goes."""
    return tmp_path / "study"
