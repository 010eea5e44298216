"""Greedy episodes of trained agents in fresh batched worlds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from soo_marl.agents.agent_networks import AgentNetworks
from soo_marl.deception import Trajectories
from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import BLUE_AGENT, RED_AGENT


@dataclass(frozen=True)
class RolloutStep:
    """One greedy step of all episodes: what the agents saw before it, and what it paid."""

    observations: tuple[Tensor, ...]
    """Red ``[R, N, 6]`` and blue ``[R, N, 10]``."""
    rewards: Tensor
    """``[R, N, 2]``."""


@torch.no_grad()
def greedy_steps(agents: AgentNetworks, worlds: BatchedPhysicalDeception) -> Iterator[RolloutStep]:
    """Play the worlds' present episode greedily, yielding each step once the worlds have taken it."""
    observations = worlds.observe()
    truncated = False
    while not truncated:
        step = worlds.step(agents.act(observations))
        yield RolloutStep(observations, step.rewards)
        observations, truncated = step.observations, step.truncated


def roll_out(
    agents: AgentNetworks, game: PhysicalDeceptionConfig, episodes: int, stream: str
) -> tuple[Trajectories, Tensor]:
    """Play greedy episodes and return what happened.

    Args:
        agents: R runs.
        game: the game to play.
        episodes: N, episodes per run.
        stream: name of the random streams that the episodes derive from, together with each run's seed.

    Returns:
        Trajectories with leading shape ``[R, N]``, and blue's return per episode ``[R, N]``.
    """
    worlds = BatchedPhysicalDeception(game, agents.seeds, episodes, agents.device, stream=stream)
    states = [_present(worlds)]
    returns = torch.zeros(worlds.shape, device=agents.device)
    for step in greedy_steps(agents, worlds):
        states.append(_present(worlds))
        returns += step.rewards[..., BLUE_AGENT]
    position, trapped, red_in_sight, blue_in_sight = (torch.stack(field, dim=2) for field in zip(*states, strict=True))
    trajectories = Trajectories(
        blue_position=position[..., BLUE_AGENT, :],
        red_position=position[..., RED_AGENT, :],
        landmarks=worlds.landmarks,
        goal=worlds.goal,
        trapped=trapped,
        alone=worlds.alone,
        red_in_sight=red_in_sight,
        blue_in_sight=blue_in_sight,
    )
    return trajectories, returns


def _present(worlds: BatchedPhysicalDeception) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return worlds.position, worlds.trapped, worlds.red_in_sight, worlds.blue_in_sight
