"""Learning on problems with a known answer: one-step games of two agents, several seeds in one stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from soo_marl.agents import MADDPG, AgentSpaces, MADDPGConfig, Trainer, TrainingConfig
from soo_marl.random_streams import RandomStreams

SEEDS = (0, 1, 2, 3)
TARGETS = torch.tensor([[0, 3, 1, 4], [2, 2, 0, 1]])
"""The right action of each agent for each of the four observations of the discrete game."""


@dataclass(frozen=True)
class OneStep:
    observations: tuple[Tensor, ...]
    rewards: Tensor
    terminated: Tensor
    truncated: bool = True


class OneStepWorlds:
    """Both agents see something, act once, are paid, and the game is over."""

    def __init__(self, game: str, seeds: Sequence[int], worlds: int) -> None:
        self.game, self.shape = game, (len(seeds), worlds)
        self.random = RandomStreams(seeds, "worlds")
        self.observation_sizes = (4, 4) if game == "discrete" else (1, 1)
        self.action_sizes = (5, 5) if game == "discrete" else (1, 1)
        self.reset()

    def reset(self) -> tuple[Tensor, ...]:
        if self.game == "discrete":
            self.seen = one_hot(self.random.integers(4, self.shape[1], 2), 4).float()
        else:
            self.seen = self.random.uniform(self.shape[1], 2, 1) * 2.0 - 1.0
        return self.observe()

    def observe(self) -> tuple[Tensor, ...]:
        if self.game == "pursuit":
            return self.seen[:, :, 0], self.seen[:, :, 0]
        return self.seen[:, :, 0], self.seen[:, :, 1]

    def step(self, actions: Sequence[Tensor]) -> OneStep:
        rewards = {"team": team, "pursuit": pursuit, "discrete": discrete}[self.game](self.observe(), actions)
        return OneStep(self.observe(), rewards, torch.ones(self.shape, dtype=torch.bool))

    def context(self) -> Tensor:
        return torch.zeros(self.shape, dtype=torch.int64)

    def events(self) -> Mapping[str, Tensor]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None: ...


def team(seen: Sequence[Tensor], actions: Sequence[Tensor]) -> Tensor:
    """Both are paid the same, and each must play its own function of what it alone sees."""
    errors = actions[0] - 0.7 * seen[0], actions[1] + 0.5 * seen[1] - 0.2
    reward = -(errors[0].square() + errors[1].square())
    return torch.cat((reward, reward), dim=-1)


def pursuit(seen: Sequence[Tensor], actions: Sequence[Tensor]) -> Tensor:
    """Agent 0 wants to play what agent 1 plays; agent 1 wants 0.75 times what both see, less half of agent 0's action.

    Neither gains by changing its action alone where both play half of what they see.
    """
    pursuer = -(actions[0] - actions[1]).square()
    pursued = -(actions[1] + 0.5 * actions[0] - 0.75 * seen[0]).square()
    return torch.cat((pursuer, pursued), dim=-1)


def discrete(seen: Sequence[Tensor], actions: Sequence[Tensor]) -> Tensor:
    """Each is paid for the right action, and agent 1 loses by agent 0's success."""
    right = [
        (action * one_hot(TARGETS[agent], 5).float()[seen[agent].argmax(-1)]).sum(-1)
        for agent, action in enumerate(actions)
    ]
    return torch.stack((right[0], right[1] - 0.5 * right[0]), dim=-1)


def trained(game: str, updates: int, **config: Any) -> MADDPG:
    worlds = OneStepWorlds(game, SEEDS, 16)
    spaces = AgentSpaces(worlds.observation_sizes, worlds.action_sizes, discrete=game == "discrete")
    settings = {
        "hidden_units": 32,
        "actor_learning_rate": 0.003,
        "critic_learning_rate": 0.01,
        "pre_squash_penalty": 1e-3,
    }
    maddpg = MADDPG(spaces, MADDPGConfig(**(settings | config)), SEEDS)
    training = TrainingConfig(
        worlds=16,
        updates=updates,
        steps_per_update=2,
        batch_size=128,
        warm_up=500,
        replay_capacity=5_000,
        noise_theta=1.0,
        noise_sigma=0.5,
        noise_end=0.2,
        learning_rate_end=0.05,
    )
    Trainer(maddpg, worlds, training, SEEDS).run()
    return maddpg


def grid() -> Tensor:
    return torch.linspace(-0.95, 0.95, 21).view(1, 21, 1).expand(len(SEEDS), -1, -1)


def test_a_team_learns_its_known_best_actions_in_every_seed() -> None:
    first, second = trained("team", 600).networks.act((grid(), grid()))
    torch.testing.assert_close(first, 0.7 * grid(), rtol=0, atol=0.15)
    torch.testing.assert_close(second, 0.2 - 0.5 * grid(), rtol=0, atol=0.15)


def test_agents_with_mixed_motives_reach_the_known_equilibrium_in_every_seed() -> None:
    first, second = trained("pursuit", 500).networks.act((grid(), grid()))
    torch.testing.assert_close(first, 0.5 * grid(), rtol=0, atol=0.15)
    torch.testing.assert_close(second, 0.5 * grid(), rtol=0, atol=0.15)


def test_discrete_agents_with_mixed_motives_learn_their_known_best_actions_in_every_seed() -> None:
    maddpg = trained("discrete", 400)
    seen = torch.eye(4).expand(len(SEEDS), 4, 4)
    for agent, action in enumerate(maddpg.networks.act((seen, seen))):
        assert torch.equal(action.argmax(-1), TARGETS[agent].expand(len(SEEDS), 4))
