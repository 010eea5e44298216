"""Stock ``simple_adversary`` of mpe2, thousands of worlds at a time, as tensors.

The reference game of Lowe et al. 2017 (there called physical deception): N good agents and one adversary among N
landmarks. It is here to hold learners against published curves; equal to ``mpe2.simple_adversary_v3`` step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from soo_marl.envs.batched_physics import (
    BatchedStep,
    accelerate,
    as_planes,
    as_points,
    as_rows,
    move,
    push,
    refuse_after_end,
    stack_actions,
    stored,
    stored_index,
)
from soo_marl.envs.configuration import IntegrationOrder
from soo_marl.random_streams import RandomStreams, distinct_seeds


class SimpleAdversaryConfig(BaseModel):
    """Settings of the stock game. Immutable and validated.

    Raises:
        pydantic.ValidationError: a field is unknown, of the wrong type, or out of its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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

    The properties are copies of the present state, which nothing but ``step``, ``reset`` and ``load_state`` changes.

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
        self._seen = _seen_points(config.good_agents).to(device)
        self.reset()

    def reset(self) -> tuple[Tensor, ...]:
        """Start a new episode in every world and return the observations, per agent ``[R, E, observation size]``.

        Everything starts at rest, uniform in [-1, 1]^2; the goal is a landmark drawn for each world.
        """
        worlds, landmarks = self.shape[1], self.config.good_agents
        goal = self.random.integers(landmarks, worlds)
        uniform = self.random.uniform(worlds, self.agents + landmarks, 2).to(self.dtype) * 2.0 - 1.0
        self._position = as_planes(uniform[:, :, : self.agents])
        self._velocity = torch.zeros_like(self._position)
        self._place(uniform[:, :, self.agents :], goal)
        self.steps = 0
        return self.observe()

    def _place(self, landmarks: Tensor, goal: Tensor) -> None:
        """Set what stands still during an episode: landmarks ``[R, E, N, 2]`` and the index of the goal ``[R, E]``."""
        self._goal = goal
        goal_position = landmarks.gather(2, goal[..., None, None].expand(-1, -1, 1, 2))
        # The goal, then all landmarks: what a good agent sees first.
        self._places = as_planes(torch.cat((goal_position, landmarks), dim=2))

    def step(self, actions: Sequence[Tensor]) -> BatchedStep:
        """Advance every world by one step.

        Args:
            actions: per agent, forces in [-1, 1] ``[R, E, 2]``, or weights ``[R, E, 5]`` (see ``push``).

        Raises:
            gymnasium.error.ResetNeeded: the episodes are over.
            ValueError: an action is missing, of another shape or not finite.
        """
        refuse_after_end(self.steps, self.config.episode_length)
        config = self.config
        # Fewer checks in every operation. What is handed out are copies made outside, and so ordinary tensors.
        with torch.inference_mode():
            stacked = stack_actions(actions, self.shape, self.action_sizes, like=self._position)
            force = push(stacked, config.continuous_actions) * 5.0
            velocity = accelerate(self._velocity, force, dt=0.1, damping=0.25)
            self._position = move(self._position, self._velocity, velocity, dt=0.1, order=config.integration)
            self._velocity = velocity
            relative = self._relative()
            rewards, observations = self._rewards(relative), self._observations(relative)
        self.steps += 1
        return BatchedStep.of_planes(observations, rewards, truncated=self.steps >= config.episode_length)

    def rewards(self) -> Tensor:
        """Rewards ``[R, E, agents]`` of the present state.

        Good agents share the adversary's distance from the goal less that of the nearest good agent.
        """
        return as_rows(self._rewards(self._relative()))

    def observe(self) -> tuple[Tensor, ...]:
        """Observations per agent ``[R, E, size]``, relative to the observer.

        The goal (good agents only), all landmarks, the other agents in order.
        """
        return tuple(as_rows(own) for own in self._observations(self._relative()))

    def _relative(self) -> Tensor:
        """Goal, landmarks and agents relative to each agent, ``[agents, 1 + N + agents, 2, R, E]``."""
        return torch.cat((self._places, self._position)) - self._position[:, None]

    def _observations(self, relative: Tensor) -> tuple[Tensor, ...]:
        """Observations as planes ``[size, R, E]``."""
        seen = relative.flatten(0, 1).index_select(0, self._seen).flatten(0, 1)
        return torch.split(seen, list(self.observation_sizes))

    def _rewards(self, relative: Tensor) -> Tensor:
        """Rewards as planes ``[agents, R, E]``."""
        distance = _goal_distance(relative)
        adversary, nearest_good = distance[0], distance[1:].amin(dim=0)
        own = -adversary.square() if self.config.squared_adversary_distance else -adversary
        return torch.stack((own, *[adversary - nearest_good] * self.config.good_agents))

    def context(self) -> Tensor:
        """The context of every world ``[R, E]``: there is only one."""
        return torch.zeros(self.shape, dtype=torch.int64, device=self._position.device)

    def events(self) -> Mapping[str, Tensor]:
        """Named facts of the present state ``[R, E]`` to average in logs (NaN where they do not apply)."""
        distance = _goal_distance(self._relative())
        return {"adversary_distance": distance[0], "good_distance": distance[1:].amin(dim=0)}

    @property
    def position(self) -> Tensor:
        """Of all agents ``[R, E, agents, 2]``."""
        return as_points(self._position)

    @property
    def velocity(self) -> Tensor:
        """Of all agents ``[R, E, agents, 2]``."""
        return as_points(self._velocity)

    @property
    def landmarks(self) -> Tensor:
        """``[R, E, N, 2]``."""
        return as_points(self._places[1:])

    @property
    def goal(self) -> Tensor:
        """Index of the goal among the landmarks: int64 ``[R, E]``."""
        return self._goal.clone()

    def state(self) -> dict[str, Tensor]:
        """Return copies of everything needed to continue, as named tensors."""
        return {
            "position": self.position,
            "velocity": self.velocity,
            "landmarks": self.landmarks,
            "goal": self.goal,
            "steps": torch.tensor(self.steps),
            "counter": torch.tensor(self.random.counter),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned, or from a state made elsewhere, of any dtype and on any device.

        Raises:
            KeyError: an entry is missing.
            ValueError: an entry is of another shape, or the goal is no landmark.
        """
        position, velocity = stored(state, "position", self.position), stored(state, "velocity", self.velocity)
        landmarks = stored(state, "landmarks", self.landmarks)
        goal = stored_index(state, "goal", self.goal, below=self.config.good_agents)
        self.steps, self.random.counter = int(state["steps"]), int(state["counter"])
        self._position, self._velocity = as_planes(position), as_planes(velocity)
        self._place(landmarks, goal)


def _goal_distance(relative: Tensor) -> Tensor:
    """Distance of every agent from the goal ``[agents, R, E]``; the goal is the first of the points seen."""
    return torch.hypot(*relative[:, 0].unbind(dim=1))


def _seen_points(good_agents: int) -> Tensor:
    """Which of the ``[agents, 1 + N + agents]`` relative points are observed, as rows of the flattened ones."""
    agents = good_agents + 1
    seen = torch.ones(agents, 1 + good_agents + agents, dtype=torch.bool)
    seen[:, 1 + good_agents :].fill_diagonal_(False)  # Nobody observes itself,
    seen[0, 0] = False  # and the adversary does not know the goal.
    return seen.flatten().nonzero().flatten()
