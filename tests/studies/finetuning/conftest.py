"""Lets the tests here import their hand-made agents, which need no training, and puts such agents on disk."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.evaluation import evaluate_baselines
from soo_marl.studies.learning.agents_on_disk import save_agents
from soo_marl.studies.learning.recipes import BaselineConfig

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    """Intervals of all measures of all conditions would take longer than everything else together."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("soo_marl.statistics.intervals.RESAMPLES", 499)
        yield


@pytest.fixture(scope="session")
def competent(tmp_path_factory: pytest.TempPathFactory) -> tuple[BaselineConfig, StudyDirectory]:
    """A study of three seeds whose agents pass the gate, as if trained and evaluated. Not to be changed."""
    from hand_made_agents import HONEST, LURES, baselines, hand_made

    from soo_marl.studies.baselines.study import open_study

    config = baselines()
    directory = open_study(tmp_path_factory.mktemp("competent") / "study", config)
    for condition, policy in (("red", HONEST), ("honest", HONEST), ("deceptive", LURES)):
        save_agents(directory, condition, hand_made(config.game, config.maddpg, config.seeds, policy))
    agents = evaluate_baselines(config, directory)
    assert all(agent.competent for agent in agents)
    directory.mark_done("train", [])
    directory.mark_done("evaluate", [directory.results / "agents.json"])
    return config, directory
