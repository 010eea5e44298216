from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from soo_marl.agents import MADDPG
from soo_marl.envs import preset
from soo_marl.envs.observations import BLUE, RED
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.learning.agents_on_disk import agent_file, agent_spaces, load_learner, save_agents
from soo_marl.studies.learning.recipes import BaselineConfig

Tiny = Callable[..., BaselineConfig]


@pytest.fixture
def saved(tiny: Tiny, study: Path) -> tuple[BaselineConfig, StudyDirectory, MADDPG]:
    config = tiny(seeds=(4, 7))
    directory = open_study(study, config)
    agents = MADDPG(agent_spaces(config.game), config.maddpg, config.seeds)
    save_agents(directory, "honest", agents)
    return config, directory, agents


def load(config: BaselineConfig, directory: StudyDirectory, *seeds: int) -> MADDPG:
    return load_learner(directory, "honest", seeds, config.game, config.maddpg)


def test_only_the_field_of_the_other_agent_is_scaled() -> None:
    game = preset("trackable").replace(red_sight_radius=0.5, blue_sight_radius=0.25)
    red, blue = agent_spaces(game).observation_scales or ()
    assert [red[i] for i in range(RED.size)] == [1, 1, 1, 1, 2, 2]
    assert [blue[i] for i in range(BLUE.size)] == [1, 1, 1, 1, 1, 1, 4, 4, 1, 1]
    assert agent_spaces(game.replace(continuous_actions=False)).action_sizes == (5, 5)
    spaces = agent_spaces(game.replace(visible_bit=True))
    assert spaces.observation_sizes == (RED.size, BLUE.size + 1)
    assert spaces.observation_scales == (red, (*blue, 1.0))


def test_agents_come_back_in_any_order(saved: tuple[BaselineConfig, StudyDirectory, MADDPG]) -> None:
    config, directory, agents = saved
    swapped = load(config, directory, 7, 4)
    assert swapped.seeds == (7, 4)
    for name, tensor in agents.networks_state().items():
        assert torch.equal(swapped.networks_state()[name], tensor[[1, 0]])


def test_missing_and_misplaced_agents_are_named(saved: tuple[BaselineConfig, StudyDirectory, MADDPG]) -> None:
    config, directory, _ = saved
    with pytest.raises(RunDirectoryError, match=r"seed_5/agent\.safetensors is missing"):
        load(config, directory, 4, 5)
    agent_file(directory, "honest", 4).write_bytes(agent_file(directory, "honest", 7).read_bytes())
    with pytest.raises(RunDirectoryError, match=r"seed_4/agent\.safetensors holds the agent of another run, honest wi"):
        load(config, directory, 4)


def test_agents_of_another_configuration_are_refused(saved: tuple[BaselineConfig, StudyDirectory, MADDPG]) -> None:
    config, directory, _ = saved
    wider = config.maddpg.model_copy(update={"hidden_units": 32})
    with pytest.raises(RunDirectoryError, match=r"agent\.safetensors does not fit: .* expected"):
        load_learner(directory, "honest", [4], config.game, wider)
