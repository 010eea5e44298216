"""Stock ``simple_adversary`` of mpe2, thousands of worlds at a time, as tensors.

The reference game of Lowe et al. 2017 (there called physical deception): N good agents and one adversary among N landmarks.
It is here to hold learners against published curves; equal to ``mpe2.simple_adversary_v3`` step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from soo_marl.envs.batched_physics import BatchedStep, integrate, push
from soo_marl.envs.configuration import IntegrationOrder
from soo_marl.random_streams import RandomStreams


class SimpleAdversaryConfig(BaseModel):
    """Settings of the stock game; immutable and validated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    good_agents: int = Field(2, ge=1, description="N: number of good agents, and of landmarks (mpe2: 2).")
    episode_length: int = Field(25, ge=1, description="Steps after which an episode is truncated (mpe2: 25).")
    continuous_actions: bool = Field(False, description="Forces in [-1, 1]^2, or one of stay, left, right, down, up.")
    integration: IntegrationOrder = Field(
        "mpe2", description="classic: OpenAI's MPE, in which the published curves were made."
    )
    squared_adversary_distance: bool = Field(
        False,
        description="The adversary is paid its negative squared distance from the goal (OpenAI's MPE), not the plain one (mpe2).",
    )


class BatchedSimpleAdversary:
    """``[R, E]`` worlds of the stock game; agent 0 is the adversary, agents 1 ... N are good.

    Args:
        config: the game.
        seeds: one seed per run.
        worlds: ``E``, worlds per run.
        device, dtype: of all tensors.
    """

    def __init__(
        self,
        config: SimpleAdversaryConfig,
        seeds: Sequence[int],
        worlds: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        self.dtype = dtype
        self.random = RandomStreams(seeds, "worlds", device)
        self.shape = (len(seeds), worlds)
        self.agents = config.good_agents + 1
        self.observation_sizes = (4 * config.good_agents,) + (2 + 4 * config.good_agents,) * config.good_agents
        self.action_sizes = (2 if config.continuous_actions else 5,) * self.agents
        self.reset()

    def reset(self) -> tuple[Tensor, ...]:
        """Start a new episode in every world and return the observations, per agent ``[R, E, observation size]``."""
        worlds, landmarks = self.shape[1], self.config.good_agents
        self.goal = self.random.integers(landmarks, worlds)
        uniform = self.random.uniform(worlds, self.agents + landmarks, 2).to(self.dtype) * 2.0 - 1.0
        self.position, self.landmarks = uniform.split((self.agents, landmarks), dim=2)
        self.velocity = torch.zeros_like(self.position)
        self.steps = 0
        return self.observe()

    def step(self, actions: Sequence[Tensor]) -> BatchedStep:
        """Advance every world by one step under actions, per agent ``[R, E, 2 or 5]``."""
        config = self.config
        force = push(torch.stack(tuple(actions), dim=2).to(self.dtype), config.continuous_actions, 5.0)
        self.position, self.velocity = integrate(
            self.position, self.velocity, force, dt=0.1, damping=0.25, order=config.integration
        )
        self.steps += 1
        return BatchedStep(
            observations=self.observe(),
            rewards=self.rewards(),
            terminated=torch.zeros(self.shape, dtype=torch.bool, device=self.goal.device),
            truncated=self.steps >= config.episode_length,
        )

    def rewards(self) -> Tensor:
        """Rewards ``[R, E, agents]``: good agents share the adversary's distance from the goal less the nearest one's own."""
        distance = torch.linalg.vector_norm(self.position - self.goal_position[:, :, None], dim=-1)
        adversary, good = distance[..., :1], distance[..., 1:]
        shared = adversary - good.amin(dim=-1, keepdim=True)
        own = -adversary.square() if self.config.squared_adversary_distance else -adversary
        return torch.cat((own, shared.expand_as(good)), dim=-1)

    def observe(self) -> tuple[Tensor, ...]:
        """Observations per agent: goal (good agents only), landmarks and other agents, relative to oneself."""
        observations = []
        for agent in range(self.agents):
            own = self.position[:, :, agent, None]
            others = [other for other in range(self.agents) if other != agent]
            seen = [self.landmarks - own, self.position[:, :, others] - own]
            if agent > 0:
                seen.insert(0, self.goal_position[:, :, None] - own)
            observations.append(torch.cat(seen, dim=2).flatten(2))
        return tuple(observations)

    def context(self) -> Tensor:
        """The context of every world ``[R, E]``: there is only one."""
        return torch.zeros(self.shape, dtype=torch.int64, device=self.goal.device)

    def events(self) -> Mapping[str, Tensor]:
        """Named facts of the present state ``[R, E]`` to average in logs (NaN where they do not apply)."""
        distance = torch.linalg.vector_norm(self.position - self.goal_position[:, :, None], dim=-1)
        return {"adversary_distance": distance[..., 0], "good_distance": distance[..., 1:].amin(dim=-1)}

    @property
    def goal_position(self) -> Tensor:
        """``[R, E, 2]``."""
        return self.landmarks.gather(2, self.goal[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]

    def state(self) -> dict[str, Tensor]:
        """Everything needed to continue, as named tensors."""
        return {
            "position": self.position,
            "velocity": self.velocity,
            "landmarks": self.landmarks,
            "goal": self.goal,
            "steps": torch.tensor(self.steps),
            "counter": torch.tensor(self.random.counter),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned."""
        self.position, self.velocity = state["position"].clone(), state["velocity"].clone()
        self.landmarks, self.goal = state["landmarks"].clone(), state["goal"].clone()
        self.steps, self.random.counter = int(state["steps"]), int(state["counter"])
