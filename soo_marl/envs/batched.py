"""Physical Deception, thousands of worlds at a time, as tensors: equal to ``PhysicalDeception`` step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from soo_marl.envs.batched_physics import BatchedStep, integrate, push, stack_actions, stored, wall_force
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import BLUE, RED
from soo_marl.random_streams import RandomStreams, distinct_seeds

RED_AGENT, BLUE_AGENT = 0, 1
"""Indices of the two agents on every axis of agents."""

CONTEXTS = ("red in play", "red absent or trapped")
"""What ``context()`` numbers mean."""


class BatchedPhysicalDeception:
    """``[R, E]`` worlds of Physical Deception; agent 0 is red, agent 1 is blue.

    All worlds of all runs start and end their episodes together, and an episode never terminates before its time.

    Args:
        config: the game, the same in all worlds.
        seeds: one seed per run; a run's episodes depend on its own seed alone.
        worlds: ``E``, worlds per run.
        device, dtype: of all tensors.
        stream: name of the random streams; evaluations use another than training.

    Raises:
        ValueError: a seed is given twice, or there is no seed or no world.
    """

    def __init__(
        self,
        config: PhysicalDeceptionConfig,
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
        self.observation_sizes: tuple[int, ...] = (RED.size, BLUE.size)
        self.action_sizes: tuple[int, ...] = (2, 2) if config.continuous_actions else (5, 5)
        limits = [math.inf if limit is None else limit for limit in (config.red_speed_limit, config.blue_speed_limit)]
        self._speed_limit = torch.tensor(limits, device=device, dtype=dtype)
        self.reset()

    def reset(self) -> tuple[Tensor, ...]:
        """Start a new episode in every world and return the observations of red ``[R, E, 6]`` and blue ``[R, E, 10]``.

        The distribution is that of ``PhysicalDeception.reset``.
        """
        config, worlds = self.config, self.shape[1]
        uniform = self.random.uniform(worlds, 11).to(self.dtype)
        share, unit_red, unit_blue, angle, radius, unit_landmarks = torch.split(uniform, [1, 2, 2, 1, 1, 4], dim=-1)
        self.goal = self.random.integers(2, worlds)
        edge = 1.0 - config.start_margin
        self.alone = share[..., 0] < config.alone_share
        self.trapped = ~self.alone & (share[..., 0] < config.alone_share + config.trapped_start_share)
        self.landmarks = (unit_landmarks.reshape(*self.shape, 2, 2) * 2.0 - 1.0) * edge

        red = (unit_red * 2.0 - 1.0) * edge
        angle = angle * (2.0 * math.pi)
        offset = torch.cat((torch.cos(angle), torch.sin(angle)), dim=-1) * (radius * config.start_distance)
        near_red = (red + offset).clamp(-edge, edge)
        anywhere = (unit_blue * 2.0 - 1.0) * edge
        trapped = self.trapped[..., None]
        self.position = torch.stack(
            (torch.where(trapped, self.fake_position, red), torch.where(trapped, anywhere, near_red)), dim=2
        )
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
        force = push(stacked, config.continuous_actions, config.force)
        reach = config.agent_size + config.wall_width / 2.0
        force = force + wall_force(self.position, reach, config.contact_force, config.contact_margin)
        speed_limit = self._speed_limit.expand(*self.shape, 2).clone()
        speed_limit[..., RED_AGENT].masked_fill_(self.trapped, 0.0)
        position, velocity = integrate(
            self.position,
            self.velocity,
            force,
            dt=config.dt,
            damping=config.damping,
            order=config.integration,
            speed_limit=speed_limit,
        )
        # A fast body would tunnel through the soft walls in mpe2's order: its centre stops at their mid-lines.
        velocity = torch.where(position.abs() > 1.0, 0.0, velocity)
        position = position.clamp(-1.0, 1.0)
        absent = torch.stack((self.alone, torch.zeros_like(self.alone)), dim=-1)[..., None]
        self.position = torch.where(absent, self.position, position)
        self.velocity = torch.where(absent, 0.0, velocity)
        self.trapped = self.trapped | (self.at_landmark(RED_AGENT, self.fake_position) & ~self.alone)
        self.steps += 1
        return BatchedStep(
            observations=self.observe(),
            rewards=self.rewards(),
            terminated=torch.zeros_like(self.alone),
            truncated=self.steps >= config.episode_length,
        )

    def rewards(self) -> Tensor:
        """Rewards ``[R, E, 2]`` of the present state."""
        config, present = self.config, ~self.alone
        near = self.distance < config.red_sight_radius
        red = self.at_landmark(RED_AGENT, self.goal_position) * config.red_goal_reward + near * config.red_follow_reward
        # Any other state pays blue the plain goal reward: red is trapped, or absent.
        untrapped = present & ~self.trapped
        goal_reward = torch.where(untrapped, config.untrapped_goal_reward, config.goal_reward)
        blue = self.at_landmark(BLUE_AGENT, self.goal_position) * goal_reward + self.trapped * config.trap_reward
        if config.red_distance_reward:
            red_distance = torch.linalg.vector_norm(self.position[..., RED_AGENT, :] - self.goal_position, dim=-1)
            blue = blue + present * red_distance * config.red_distance_reward
        return torch.stack((red * present, blue), dim=-1).to(self.dtype)

    def observe(self) -> tuple[Tensor, Tensor]:
        """Observations of red ``[R, E, 6]`` and blue ``[R, E, 10]``, see ``envs.observations``."""
        red, blue = self.position.unbind(dim=2)
        to_red = red - blue
        landmarks_from_red = (self.landmarks - red[:, :, None]).flatten(2)
        red_observation = torch.cat((landmarks_from_red, -to_red * self.blue_in_sight[..., None]), dim=-1)
        blue_observation = torch.cat(
            (
                self.goal_position - blue,
                (self.landmarks - blue[:, :, None]).flatten(2),
                to_red * self.red_in_sight[..., None],
                self.trapped[..., None].expand(-1, -1, 2).to(self.dtype),
            ),
            dim=-1,
        )
        return red_observation * ~self.alone[..., None], blue_observation

    def at_landmark(self, agent: int, landmark: Tensor) -> Tensor:
        """Whether an agent is at a landmark ``[R, E, 2]``: bool ``[R, E]``."""
        apart: Tensor = torch.linalg.vector_norm(self.position[..., agent, :] - landmark, dim=-1)
        return apart < self.config.landmark_radius

    @property
    def distance(self) -> Tensor:
        """Distance between red and blue ``[R, E]``, also where red is absent."""
        red, blue = self.position.unbind(dim=2)
        apart: Tensor = torch.linalg.vector_norm(red - blue, dim=-1)
        return apart

    @property
    def red_in_sight(self) -> Tensor:
        """Whether blue sees red: bool ``[R, E]``."""
        near: Tensor = self.distance <= self.config.blue_sight_radius
        return near & ~self.alone

    @property
    def blue_in_sight(self) -> Tensor:
        """Whether red sees blue: bool ``[R, E]``."""
        near: Tensor = self.distance <= self.config.red_sight_radius
        return near & ~self.alone

    @property
    def goal_position(self) -> Tensor:
        """``[R, E, 2]``."""
        return self._landmark(self.goal)

    @property
    def fake_position(self) -> Tensor:
        """``[R, E, 2]``."""
        return self._landmark(1 - self.goal)

    def _landmark(self, index: Tensor) -> Tensor:
        chosen: Tensor = self.landmarks.gather(2, index[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
        return chosen

    def context(self) -> Tensor:
        """The context of every world ``[R, E]``: 0 while red is in play, 1 while it is absent or trapped."""
        return (self.alone | self.trapped).long()

    def events(self) -> Mapping[str, Tensor]:
        """Named facts of the present state ``[R, E]`` to average in logs; NaN where they do not apply."""
        nothing = torch.tensor(torch.nan, device=self.alone.device)
        present, untrapped = ~self.alone, ~self.alone & ~self.trapped
        blue_at_goal = self.at_landmark(BLUE_AGENT, self.goal_position).float()
        red_at_goal = self.at_landmark(RED_AGENT, self.goal_position).float()
        return {
            "goal_rate": torch.where(present, blue_at_goal, nothing),
            "goal_rate_alone": torch.where(self.alone, blue_at_goal, nothing),
            "red_goal_rate": torch.where(present, red_at_goal, nothing),
            "trap_rate": torch.where(present, self.trapped.float(), nothing),
            "following_rate": torch.where(untrapped, self.blue_in_sight.float(), nothing),
        }

    def state(self) -> dict[str, Tensor]:
        """Return copies of everything needed to continue, as named tensors."""
        return {
            "position": self.position.clone(),
            "velocity": self.velocity.clone(),
            "landmarks": self.landmarks.clone(),
            "goal": self.goal.clone(),
            "trapped": self.trapped.clone(),
            "alone": self.alone.clone(),
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
        self.trapped, self.alone = stored(state, "trapped", self.trapped), stored(state, "alone", self.alone)
        self.steps, self.random.counter = int(state["steps"]), int(state["counter"])
