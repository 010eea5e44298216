"""Physical Deception, thousands of worlds at a time, as tensors: equal to ``PhysicalDeception`` step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from soo_marl.envs.batched_physics import (
    BatchedStep,
    accelerate,
    as_planes,
    as_points,
    as_rows,
    limit_speed,
    move,
    push,
    refuse_after_end,
    stack_actions,
    stored,
    stored_index,
    wall_force,
)
from soo_marl.envs.configuration import LANDMARK_CANDIDATES, PhysicalDeceptionConfig, game
from soo_marl.envs.observations import BLUE_AGENT, RED, RED_AGENT, blue_size
from soo_marl.random_streams import RandomStreams, distinct_seeds

_FAKE, _GOAL, _FIRST, _SECOND, _OTHER = range(5)
"""Indices on an axis of points that agents see: the landmarks by what they are, the same by number, the other agent."""


class BatchedPhysicalDeception:
    """``[R, E]`` worlds of Physical Deception; agent 0 is red, agent 1 is blue.

    All worlds of all runs start and end their episodes together, and an episode never terminates before its time. The
    properties are copies of the present state, which nothing but ``step``, ``reset`` and ``load_state`` changes.

    Args:
        config: the game, the same in all worlds, or the name of a preset.
        seeds: one seed per run; a run's episodes depend on its own seed alone.
        worlds: ``E``, worlds per run.
        device, dtype: of all tensors.
        stream: name of the random streams; evaluations use another than training.

    Raises:
        ValueError: a seed is given twice, there is no seed or no world, or there is no such preset.
    """

    def __init__(
        self,
        config: PhysicalDeceptionConfig | str,
        seeds: Sequence[int],
        worlds: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        stream: str = "worlds",
    ) -> None:
        if worlds < 1:
            raise ValueError(f"a run needs at least one world, not {worlds}")
        self.config = config = game(config)
        self.dtype = dtype
        self.random = RandomStreams(distinct_seeds(seeds), stream, device)
        self.shape = (len(seeds), worlds)
        self.observation_sizes: tuple[int, ...] = (RED.size, blue_size(config))
        self.action_sizes: tuple[int, ...] = (2, 2) if config.continuous_actions else (5, 5)
        self._red_speed_limit: float | Tensor | None = config.red_speed_limit
        self._pauses: Tensor | None = None

        def both(red: float, blue: float) -> Tensor:
            return torch.tensor((red, blue), device=device, dtype=dtype).view(2, 1, 1)

        # No distance is below the sight radius of a blind blue.
        self._sight_radii = both(config.red_sight_radius, -1.0 if config.blind else config.blue_sight_radius)
        self._goal_rewards = both(config.red_goal_reward, config.goal_reward)
        self.reset()

    def reset(self) -> tuple[Tensor, ...]:
        """Start a new episode in every world and return the observations, see :meth:`observe`.

        The distribution is that of ``PhysicalDeception.reset``.
        """
        config, worlds = self.config, self.shape[1]
        uniform = self.random.uniform(worlds, 11).to(self.dtype).movedim(-1, 0).contiguous()
        share, unit_red, unit_blue, angle, radius, unit_landmarks = torch.split(uniform, [1, 2, 2, 1, 1, 4])
        edge = 1.0 - config.start_margin
        alone = share[0] < config.alone_share
        trapped = ~alone & (share[0] < config.alone_share + config.trapped_start_share)
        landmarks = ((unit_landmarks * 2.0 - 1.0) * edge).view(2, 2, *self.shape)
        goal = self.random.integers(2, worlds)
        if config.landmark_separation:
            landmarks[1] = self._separated(landmarks)
        self._place(landmarks, goal, alone)
        self._draw_red()

        red = (unit_red * 2.0 - 1.0) * edge
        angle = angle * (2.0 * math.pi)
        offset = torch.cat((torch.cos(angle), torch.sin(angle))) * (radius * config.start_distance)
        near_red = (red + offset).clamp(-edge, edge)
        anywhere = (unit_blue * 2.0 - 1.0) * edge
        self._position = torch.stack(
            (torch.where(trapped, self._places[_FAKE], red), torch.where(trapped, anywhere, near_red))
        )
        if config.trap_at_start:
            at_fake = torch.hypot(*(red - self._places[_FAKE])) < config.landmark_radius
            trapped = trapped | (at_fake & ~alone)
        self._trapped = trapped
        self._velocity = torch.zeros_like(self._position)
        self.steps = 0
        return self.observe()

    def _separated(self, landmarks: Tensor) -> Tensor:
        """The second landmark, replaced where it is too near the first: plane ``[2, R, E]``."""
        edge = 1.0 - self.config.start_margin
        unit = self.random.uniform(self.shape[1], LANDMARK_CANDIDATES - 1, 2).to(self.dtype)
        more = as_planes((unit * 2.0 - 1.0) * edge)
        return second_landmark(landmarks[0], torch.cat((landmarks[1:], more)), self.config.landmark_separation, edge)

    def _draw_red(self) -> None:
        """Draw what an episode's red is like, where the game draws that: its speed limit, and when it pauses."""
        config, worlds = self.config, self.shape[1]
        if config.red_speed_range is not None:
            low, high = config.red_speed_range
            self._red_speed_limit = self.random.uniform(worlds).to(self.dtype).mul_(high - low).add_(low)
        if config.red_pause_chance:
            uniform = self.random.uniform(worlds, config.episode_length).movedim(-1, 0).contiguous()
            self._pauses = pause_schedule(uniform, config.red_pause_chance, config.red_pause_steps)

    def _place(self, landmarks: Tensor, goal: Tensor, alone: Tensor) -> None:
        """Set what stays as it is during an episode, and what follows from it.

        Args:
            landmarks: planes ``[2, 2, R, E]``.
            goal: index of the goal, int64 ``[R, E]``.
            alone: where red is absent, bool ``[R, E]``.
        """
        self._goal, self._alone = goal, alone
        self._some_alone = bool(alone.any())
        first, second = landmarks
        fake_position = torch.where(goal == 1, first, second)
        goal_position = torch.where(goal == 1, second, first)
        self._places = torch.stack((fake_position, goal_position, first, second))

    def step(self, actions: Sequence[Tensor]) -> BatchedStep:
        """Advance every world by one step.

        Args:
            actions: per agent, forces in [-1, 1] ``[R, E, 2]``, or weights ``[R, E, 5]`` (see ``push``).

        Raises:
            gymnasium.error.ResetNeeded: the episodes are over.
            ValueError: an action is missing, of another shape or not finite.
        """
        refuse_after_end(self.steps, self.config.episode_length)
        # Fewer checks in every operation. What is handed out are copies made outside, and so ordinary tensors.
        with torch.inference_mode():
            stacked = stack_actions(actions, self.shape, self.action_sizes, like=self._position)
            self._move(push(stacked, self.config.continuous_actions))
            relative, distance = self._look()
            before = self._trapped
            self._trapped = before | (distance[RED_AGENT, _FAKE] < self.config.landmark_radius)
            rewards, observations = self._rewards(distance), self._observations(relative, distance)
            if self.config.trap_bonus:
                rewards[BLUE_AGENT].add_(self._trapped & ~before, alpha=self.config.trap_bonus)
        self.steps += 1
        return BatchedStep.of_planes(observations, rewards, truncated=self.steps >= self.config.episode_length)

    def _move(self, direction: Tensor) -> None:
        """Move both agents, who push in directions ``[2, 2, R, E]``."""
        config = self.config
        red_limit, still = self._red_speed_limit, self._trapped | self._alone
        if config.red_policy == "scripted":
            direction[RED_AGENT], red_limit, idle = self._script_red()
            still = still | idle
        if self._pauses is not None and self.steps < len(self._pauses):
            still = still | self._pauses[self.steps]
        reach = config.agent_size + config.wall_width / 2.0
        force = wall_force(self._position, reach, config.contact_force, config.contact_margin)
        force.add_(direction, alpha=config.force)
        velocity = accelerate(self._velocity, force, config.dt, config.damping)
        for agent, limit in ((RED_AGENT, red_limit), (BLUE_AGENT, config.blue_speed_limit)):
            if limit is not None:
                limit_speed(velocity[agent], limit)
        velocity[RED_AGENT].masked_fill_(still, 0.0)
        position = move(self._position, self._velocity, velocity, config.dt, config.integration)
        # A fast body would tunnel through the soft walls in mpe2's order: its centre stops at their mid-lines.
        self._position = position.clamp(-1.0, 1.0)
        self._velocity = velocity.mul_(self._position == position)

    def _script_red(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where a scripted red pushes ``[2, R, E]``, how fast it may go and whether it is idle ``[R, E]``."""
        config = self.config
        red, blue = self._position
        idle = torch.hypot(*(blue - red)) > config.red_sight_radius
        if config.integration == "mpe2":
            # The new velocity moves red only from where the old one takes it.
            red = red.add(self._velocity[RED_AGENT], alpha=config.dt)
        towards = blue - red
        gap = torch.hypot(*towards.unbind()).clamp_(min=torch.finfo(self.dtype).tiny)
        # Not so fast that it would pass blue.
        limit = gap / config.dt
        if isinstance(self._red_speed_limit, Tensor):
            limit = torch.minimum(limit, self._red_speed_limit)
        elif self._red_speed_limit is not None:
            limit.clamp_(max=self._red_speed_limit)
        return towards / gap, limit, idle

    def _look(self) -> tuple[Tensor, Tensor]:
        """What agents see relative to them ``[2, 5, 2, R, E]``, and how far away it is ``[2, 5, R, E]``.

        An absent red is infinitely far from everything.
        """
        other = self._position.flip(0)[:, None]
        points = torch.cat((self._places.expand(2, -1, -1, -1, -1), other), dim=1)
        relative = points - self._position[:, None]
        distance = torch.hypot(*relative.unbind(dim=2))
        if self._some_alone:
            distance[RED_AGENT].masked_fill_(self._alone, math.inf)
        return relative, distance

    def rewards(self) -> Tensor:
        """Rewards ``[R, E, 2]`` of the present state; a bonus for what just happened is not among them."""
        _, distance = self._look()
        return as_rows(self._rewards(distance))

    def _rewards(self, distance: Tensor) -> Tensor:
        """Rewards as planes ``[2, R, E]``."""
        config = self.config
        at_goal = distance[:, _GOAL] < config.landmark_radius
        rewards = at_goal * self._goal_rewards
        red, blue = rewards.unbind()
        red.add_(distance[RED_AGENT, _OTHER] < config.red_sight_radius, alpha=config.red_follow_reward)
        if config.goal_reward_untrapped is not None:
            # Any other state pays blue the plain goal reward: red is trapped, or absent.
            untrapped = ~(self._trapped | self._alone)
            blue.masked_fill_(untrapped & at_goal[BLUE_AGENT], config.goal_reward_untrapped)
        if config.trap_reward:
            blue.add_(self._trapped, alpha=config.trap_reward)
        if config.guide_reward:
            blue.add_(at_goal[RED_AGENT] & ~self._trapped, alpha=config.guide_reward)
        if config.red_distance_reward:
            red_distance = distance[RED_AGENT, _GOAL].masked_fill(self._alone, 0.0)
            blue.add_(red_distance, alpha=config.red_distance_reward)
        return rewards

    def observe(self) -> tuple[Tensor, ...]:
        """Observations of red ``[R, E, 6]`` and blue ``[R, E, 10]`` (11 with the visible bit), see
        ``envs.observations``."""
        return tuple(as_rows(own) for own in self._observations(*self._look()))

    def _observations(self, relative: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Observations as planes ``[..., R, E]``; what is out of sight is overwritten in ``relative``."""
        out_of_sight = distance[RED_AGENT, _OTHER] > self._sight_radii
        relative[:, _OTHER].masked_fill_(out_of_sight[:, None], 0.0)
        red, blue = relative[RED_AGENT, _FIRST:], relative[BLUE_AGENT, _GOAL:]
        if self._some_alone:
            red.masked_fill_(self._alone, 0.0)
        blue = torch.cat((blue, self._trapped.expand(1, 2, *self.shape)))
        if self.config.visible_bit:
            blue = torch.cat((blue.flatten(0, 1), ~out_of_sight[BLUE_AGENT:]))
        return red, blue

    @property
    def distance(self) -> Tensor:
        """Distance between red and blue ``[R, E]``, also where red is absent."""
        red, blue = self._position
        return torch.hypot(*(red - blue))

    @property
    def red_in_sight(self) -> Tensor:
        """Whether blue sees red: bool ``[R, E]``."""
        return (self.distance <= self.config.blue_sight_radius) & ~self._alone

    @property
    def blue_in_sight(self) -> Tensor:
        """Whether red sees blue: bool ``[R, E]``."""
        return (self.distance <= self.config.red_sight_radius) & ~self._alone

    @property
    def position(self) -> Tensor:
        """Of both agents ``[R, E, 2, 2]``."""
        return as_points(self._position)

    @property
    def velocity(self) -> Tensor:
        """Of both agents ``[R, E, 2, 2]``."""
        return as_points(self._velocity)

    @property
    def landmarks(self) -> Tensor:
        """``[R, E, 2, 2]``."""
        return as_points(self._places[_FIRST:])

    @property
    def goal(self) -> Tensor:
        """Index of the goal among the landmarks: int64 ``[R, E]``."""
        return self._goal.clone()

    @property
    def trapped(self) -> Tensor:
        """Whether red is trapped: bool ``[R, E]``."""
        return self._trapped.clone()

    @property
    def alone(self) -> Tensor:
        """Whether red is absent: bool ``[R, E]``."""
        return self._alone.clone()

    def context(self) -> Tensor:
        """The context of every world ``[R, E]``: 0 while red is in play, 1 while it is absent or trapped."""
        return (self._alone | self._trapped).long()

    def events(self) -> Mapping[str, Tensor]:
        """Named facts of the present state ``[R, E]`` to average in logs; NaN where they do not apply."""
        _, distance = self._look()
        red_at_goal, blue_at_goal = (distance[:, _GOAL] < self.config.landmark_radius).float()
        followed = (distance[RED_AGENT, _OTHER] <= self.config.red_sight_radius).float()
        return {
            "goal_rate": blue_at_goal.masked_fill(self._alone, math.nan),
            "goal_rate_alone": blue_at_goal.masked_fill(~self._alone, math.nan),
            "red_goal_rate": red_at_goal.masked_fill(self._alone, math.nan),
            "trap_rate": self._trapped.float().masked_fill(self._alone, math.nan),
            "following_rate": followed.masked_fill(self._alone | self._trapped, math.nan),
        }

    def state(self) -> dict[str, Tensor]:
        """Return copies of everything needed to continue, as named tensors.

        ``red_speed_limit`` ``[R, E]`` and ``red_pauses`` bool ``[R, E, T]`` (whether red pauses in each step of the
        episode) are among them only where the game draws them.
        """
        state = {
            "position": self.position,
            "velocity": self.velocity,
            "landmarks": self.landmarks,
            "goal": self.goal,
            "trapped": self.trapped,
            "alone": self.alone,
            "steps": torch.tensor(self.steps),
            "counter": torch.tensor(self.random.counter),
        }
        if isinstance(self._red_speed_limit, Tensor):
            state["red_speed_limit"] = self._red_speed_limit.clone()
        if self._pauses is not None:
            state["red_pauses"] = self._pauses.movedim(0, -1).clone(memory_format=torch.contiguous_format)
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned, or from a state made elsewhere, of any dtype and on any device.

        Raises:
            KeyError: an entry is missing.
            ValueError: an entry is of another shape, the goal is no landmark, or a speed limit is not above 0.
        """
        position, velocity = stored(state, "position", self.position), stored(state, "velocity", self.velocity)
        landmarks, goal = stored(state, "landmarks", self.landmarks), stored_index(state, "goal", self._goal, below=2)
        trapped, alone = stored(state, "trapped", self.trapped), stored(state, "alone", self.alone)
        speed_limit, pauses = self._red_speed_limit, self._pauses
        if isinstance(speed_limit, Tensor):
            speed_limit = stored(state, "red_speed_limit", speed_limit)
            if not bool((speed_limit > 0.0).all()):
                raise ValueError("the stored red_speed_limit must be above 0 in all worlds")
        if pauses is not None:
            pauses = stored(state, "red_pauses", pauses.movedim(0, -1)).movedim(-1, 0).contiguous()
        # An absent red does not move.
        velocity[..., RED_AGENT, :].masked_fill_(alone[..., None], 0.0)
        self.steps, self.random.counter = int(state["steps"]), int(state["counter"])
        self._position, self._velocity, self._trapped = as_planes(position), as_planes(velocity), trapped
        self._red_speed_limit, self._pauses = speed_limit, pauses
        self._place(as_planes(landmarks), goal, alone)


def second_landmark(first: Tensor, candidates: Tensor, separation: float, edge: float) -> Tensor:
    """The first of several candidates that is far enough from the first landmark.

    Where none is, it is the corner of the start square that is farthest from the first landmark. Every world uses the
    same number of random numbers so, whatever comes of them.

    Args:
        first: position of the first landmark, plane ``[2, R, E]``.
        candidates: uniform positions for the second one, planes ``[n, 2, R, E]``.
        separation: least distance between the landmarks, less than half the diagonal of the start square.
        edge: half the side of the start square.

    Returns:
        Plane ``[2, R, E]``.
    """
    edges = torch.full_like(first, edge)
    corner = torch.where(first > 0.0, -edges, edges)
    choices = torch.cat((candidates, corner[None]))
    apart = torch.hypot(*(choices - first).unbind(dim=1)) >= separation
    # The corner is far enough whatever rounding says; argmax gives the first of several.
    apart[-1] = True
    index = apart.to(torch.uint8).argmax(dim=0)
    return choices.gather(0, index.expand(1, 2, *index.shape))[0]


def pause_schedule(uniform: Tensor, chance: float, steps: tuple[int, int]) -> Tensor:
    """In which steps of an episode red pauses.

    One number per step decides both whether a pause would begin there (it is below ``chance``) and, since what is
    below ``chance`` is uniform again, how long it would be. Begins within another pause do not count.

    Args:
        uniform: numbers in [0, 1), planes ``[T, R, E]``.
        chance: above 0, that a pause begins in a step, while there is none.
        steps: fewest and most steps of a pause.

    Returns:
        bool ``[T, R, E]``.
    """
    fewest, most = steps
    extra = (uniform / chance * (most - fewest + 1)).floor_().clamp_(max=most - fewest)
    length = torch.where(uniform < chance, extra + fewest, 0.0).to(torch.int32)
    number = torch.arange(len(uniform), dtype=torch.int32, device=uniform.device)[:, None, None]
    end, present = number + length, torch.zeros_like(length[0])
    for step in range(len(uniform)):
        # Without a pause, the end is the step itself.
        present = torch.where(present <= step, end[step], present)
        end[step] = present
    return end > number
