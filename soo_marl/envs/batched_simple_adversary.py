"""Stock ``simple_adversary`` of mpe2, thousands of worlds at a time, as tensors.

The reference game of Lowe et al. 2017 (there called physical deception): N good agents and one adversary among N
landmarks. It is here to hold learners against published curves; equal to ``mpe2.simple_adversary_v3`` step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from soo_marl.envs.batched_physics import BatchedStep, integrate, push, stack_actions, stored
from soo_marl.envs.configuration import IntegrationOrder
from soo_marl.random_streams import RandomStreams, distinct_seeds


class SimpleAdversaryConfig(BaseModel):
    """Settings of the stock game. Immutable and validated.

    Raises:
        pydantic.ValidationError: a field is unknown, of the wrong type, or out of its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    good_agents: int = Field(2, ge=1, description="N: number of good agents, and of landmarks (mpe2: 2).")
    episode_length: int = Field(25, ge=1, description="Steps after which an episode is truncated (mpe2: 25).")
    continuous_actions: bool = Field(False, description="Forces in [-1, 1]^2, or one of stay, left, right, down, up.")
    integration: IntegrationOrder = Field(
        "mpe2", description="classic: OpenAI's MPE, in which the published curves were made."
    )
    squared_adversary_distance: bool = Field(
        False,
        description="The adversary is paid its negative squared distance from the goal (OpenAI's MPE), "
        "not the plain one (mpe2).",
    )


class BatchedSimpleAdversary:
    """``[R, E]`` worlds of the stock game; agent 0 is the adversary, agents 1 ... N are good.

    Args:
        config: the game.
        seeds: one seed per run; a run's episodes depend on its own seed alone.
        worlds: ``E``, worlds per run.
        device, dtype: of all tensors.
        stream: name of the random streams; evaluations use another than training.

    Raises:
        ValueError: a seed is given twice, or there is no seed or no world.
    """

    def __init__(
        self,
        config: SimpleAdversaryConfig,
        seeds: Sequence[int],
        worlds: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        stream: str = "worlds",
    ) -> None:
        if worlds < 1:
            raise ValueError(f"a run needs at least one world, not {worlds}")
        self.config = config
        self.dtype = dtype
        self.random = RandomStreams(distinct_seeds(seeds), stream, device)
        self.shape = (len(seeds), worlds)
        self.agents = config.good_agents + 1
        good_sizes = (2 + 4 * config.good_agents,) * config.good_agents
        self.observation_sizes: tuple[int, ...] = (4 * config.good_agents, *good_sizes)
        self.action_sizes: tuple[int, ...] = (2 if config.continuous_actions else 5,) * self.agents
        self.reset()

    def reset(self) -> tuple[Tensor, ...]:
        """Start a new episode in every world and return the observations, per agent ``[R, E, observation size]``.

        Everything starts at rest, uniform in [-1, 1]^2; the goal is a landmark drawn for each world.
        """
        worlds, landmarks = self.shape[1], self.config.good_agents
        self.goal = self.random.integers(landmarks, worlds)
        uniform = self.random.uniform(worlds, self.agents + landmarks, 2).to(self.dtype) * 2.0 - 1.0
        self.position, self.landmarks = torch.split(uniform, [self.agents, landmarks], dim=2)
        self.velocity = torch.zeros_like(self.position)
        self.steps = 0
        return self.observe()

    def step(self, actions: Sequence[Tensor]) -> BatchedStep:
        """Advance every world by one step.

        Args:
            actions: per agent, forces in [-1, 1] ``[R, E, 2]``, or weights ``[R, E, 5]`` (see ``push``).

        Raises:
            ValueError: an action is missing or of another shape.
        """
        config = self.config
        stacked = stack_actions(actions, self.shape, self.action_sizes, like=self.position)
        force = push(stacked, config.continuous_actions, 5.0)
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
        """Rewards ``[R, E, agents]`` of the present state.

        Good agents share the adversary's distance from the goal less that of the nearest good agent.
        """
        distance = self.goal_distance
        adversary, good = distance[..., :1], distance[..., 1:]
        shared = adversary - good.amin(dim=-1, keepdim=True)
        own = -adversary.square() if self.config.squared_adversary_distance else -adversary
        return torch.cat((own, shared.expand_as(good)), dim=-1)

    def observe(self) -> tuple[Tensor, ...]:
        """Observations per agent ``[R, E, size]``, relative to the observer.

        The goal (good agents only), all landmarks, the other agents in order.
        """
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
        distance = self.goal_distance
        return {"adversary_distance": distance[..., 0], "good_distance": distance[..., 1:].amin(dim=-1)}

    @property
    def goal_position(self) -> Tensor:
        """``[R, E, 2]``."""
        goal: Tensor = self.landmarks.gather(2, self.goal[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
        return goal

    @property
    def goal_distance(self) -> Tensor:
        """Distance of every agent from the goal ``[R, E, agents]``."""
        distance: Tensor = torch.linalg.vector_norm(self.position - self.goal_position[:, :, None], dim=-1)
        return distance

    def state(self) -> dict[str, Tensor]:
        """Return copies of everything needed to continue, as named tensors."""
        return {
            "position": self.position.clone(),
            "velocity": self.velocity.clone(),
            "landmarks": self.landmarks.clone(),
            "goal": self.goal.clone(),
            "steps": torch.tensor(self.steps),
            "counter": torch.tensor(self.random.counter),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned, or from a state made elsewhere, of any dtype and on any device.

        Raises:
            KeyError: an entry is missing.
            ValueError: an entry is of another shape.
        """
        self.position = stored(state, "position", self.position)
        self.velocity = stored(state, "velocity", self.velocity)
        self.landmarks = stored(state, "landmarks", self.landmarks)
        self.goal = stored(state, "goal", self.goal)
        self.steps, self.random.counter = int(state["steps"]), int(state["counter"])
