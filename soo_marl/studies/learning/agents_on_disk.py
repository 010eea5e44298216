"""Trained agents as files: one ``agent.safetensors`` per condition and seed, with all networks of that run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from soo_marl.agents.agent_networks import AgentNetworks
from soo_marl.agents.configuration import AgentSpaces, MADDPGConfig
from soo_marl.agents.maddpg import MADDPG
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import BLUE, RED, blue_size
from soo_marl.storage.files import DELETE, RunDirectoryError, quoted
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.storage.tensor_files import TensorHeader, read_headers, read_tensors, write_tensors

_ANEW = "delete it and run the command that trained it again"


@dataclass(frozen=True)
class Stop:
    """Where a run was stopped because its training broke down; its networks are those of then."""

    stage: str
    """Stage in which it happened; a blue whose red was stopped has red's."""
    updates: int
    """Updates of that stage after which the run was last in order."""

    def __str__(self) -> str:
        return f"{self.stage}, after {self.updates:,} updates: values exploded or were not finite"


def to_tensor(stops: Sequence[Stop | None], stages: Sequence[str]) -> Tensor:
    """Stops of a stack as int64 ``[R, 2]``: number of the stage among ``stages``, and updates; -1 for None."""
    return torch.tensor([(-1, -1) if stop is None else (stages.index(stop.stage), stop.updates) for stop in stops])


def from_tensor(stored: Tensor, stages: Sequence[str]) -> list[Stop | None]:
    """The inverse of :func:`to_tensor`. Raises IndexError, ValueError: the tensor is no such thing."""
    return [None if stage < 0 else Stop(stages[stage], updates) for stage, updates in stored.tolist()]


def agent_file(directory: StudyDirectory, condition: str, seed: int) -> Path:
    """Where the networks of one trained run lie."""
    return directory.agent_directory(condition, seed) / "agent.safetensors"


def curves_file(directory: StudyDirectory, condition: str, seed: int) -> Path:
    """Where the learning curves of one trained run lie."""
    return directory.agent_directory(condition, seed) / "curves.json"


def trained_files(directory: StudyDirectory, conditions: Iterable[str], seeds: Sequence[int]) -> list[Path]:
    """Where the trained agents of these conditions and their learning curves lie."""
    return [
        file(directory, condition, seed)
        for condition in conditions
        for seed in seeds
        for file in (agent_file, curves_file)
    ]


def agent_spaces(game: PhysicalDeceptionConfig) -> AgentSpaces:
    """What MADDPG must know of the two agents of a game; the field of the other agent is scaled by the sight radius."""
    red_scale, blue_scale = [1.0] * RED.size, [1.0] * blue_size(game)
    red_scale[RED.blue_position] = [1.0 / game.red_sight_radius] * 2
    blue_scale[BLUE.red_position] = [1.0 / game.blue_sight_radius] * 2
    size = 2 if game.continuous_actions else 5
    return AgentSpaces(
        observation_sizes=(len(red_scale), len(blue_scale)),
        action_sizes=(size, size),
        discrete=not game.continuous_actions,
        observation_scales=(tuple(red_scale), tuple(blue_scale)),
    )


def save_agents(
    directory: StudyDirectory, condition: str, maddpg: MADDPG, stops: Sequence[Stop | None] | None = None
) -> None:
    """Write the networks of every run of a stack to the folder of its seed, with where it was stopped if it was.

    Raises:
        RunDirectoryError: a file cannot be written.
    """
    networks = maddpg.networks_state()
    for run, seed in enumerate(maddpg.seeds):
        tensors = {name: tensor[run : run + 1] for name, tensor in networks.items()}
        metadata = {"condition": condition, "seed": str(seed), "study": directory.owner}
        if stops is not None and (stop := stops[run]) is not None:
            metadata["stopped"] = f"{stop.stage} {stop.updates}"
        write_tensors(agent_file(directory, condition, seed), tensors, metadata)


def read_stop(directory: StudyDirectory, condition: str, seed: int) -> Stop | None:
    """Where the training of an agent was stopped; None where it was not.

    Raises:
        RunDirectoryError: the agent's file is missing or damaged.
    """
    path = agent_file(directory, condition, seed)
    text = read_headers(path)[1].get("stopped")
    if text is None:
        return None
    try:
        stage, updates = text.split(" ")
        return Stop(stage, int(updates))
    except ValueError:
        raise RunDirectoryError(
            f"{path} does not say where its training stopped, but {quoted(text)}; {DELETE}"
        ) from None


def load_agents(
    directory: StudyDirectory,
    condition: str,
    seeds: Sequence[int],
    game: PhysicalDeceptionConfig,
    config: MADDPGConfig,
    device: torch.device | str = "cpu",
) -> AgentNetworks:
    """Read the agents of several seeds into one stack, to act and to be measured.

    Raises:
        RunDirectoryError: a file is missing, damaged, or of another configuration or run.
    """
    agents = AgentNetworks(agent_spaces(game), config, seeds, device)
    agents.load_state(_read_networks(agents, directory, condition))
    return agents


def load_learner(
    directory: StudyDirectory,
    condition: str,
    seeds: Sequence[int],
    game: PhysicalDeceptionConfig,
    config: MADDPGConfig,
    device: torch.device | str = "cpu",
) -> MADDPG:
    """The same as a learner, with their targets, to train them on."""
    learner = MADDPG(agent_spaces(game), config, seeds, device)
    learner.load_networks(_read_networks(learner.networks, directory, condition))
    return learner


def _read_networks(agents: AgentNetworks, directory: StudyDirectory, condition: str) -> dict[str, Tensor]:
    """The networks and targets on disk of the same runs."""
    headers = {name: TensorHeader.of(tensor[:1]) for name, tensor in agents.state().items()}
    expected = headers | {f"target_{name}": header for name, header in headers.items()}
    states: list[dict[str, Tensor]] = []
    for seed in agents.seeds:
        path = agent_file(directory, condition, seed)
        state, metadata = read_tensors(path, expected, device=agents.device)
        if (metadata.get("condition"), metadata.get("seed")) != (condition, str(seed)):
            raise RunDirectoryError(
                f"{path} holds the agent of another run, {quoted(metadata.get('condition'))} with seed "
                f"{quoted(metadata.get('seed'))}; {_ANEW}"
            )
        # Agents of version 0.1 do not name their study.
        if metadata.get("study", directory.owner) != directory.owner:
            raise RunDirectoryError(f"{path} holds an agent of another study; {_ANEW}")
        states.append(state)
    return {name: torch.cat([state[name] for state in states]) for name in expected}
