"""World and scenario of Physical Deception, as subclasses of those of mpe2's ``simple_adversary``.

mpe2 moves the bodies, takes the actions and runs the episode; what is added here are the four walls, the order of
integration, the trap, a red that moves by itself or pauses, and a scenario with two landmarks though there is one good
agent. These classes are not part of mpe2's public interface, which is why its version is bounded in the dependencies.
"""

from __future__ import annotations

import numpy as np
from mpe2._mpe_utils.core import Landmark
from mpe2.simple_adversary.simple_adversary import ExtendedAgent, ExtendedWorld, Scenario
from numpy.typing import NDArray

from soo_marl.envs.configuration import LANDMARK_CANDIDATES, PhysicalDeceptionConfig
from soo_marl.envs.observations import BLUE, RED, blue_size
from soo_marl.envs.state import PhysicalDeceptionState


class PhysicalDeceptionWorld(ExtendedWorld):  # type: ignore[misc]  # mpe2 is untyped
    """mpe2's world with walls, a choice of integration order, a trap, and an absent red in alone episodes."""

    def __init__(self, config: PhysicalDeceptionConfig) -> None:
        super().__init__()
        self.config = config
        self.dt = config.dt
        self.damping = config.damping
        self.contact_force = config.contact_force
        self.contact_margin = config.contact_margin
        self.goal_index = 0
        self.trapped = False
        self.just_trapped = False
        self.alone = False
        self.red_speed_limit = config.red_speed_limit
        self.red_pauses: NDArray[np.bool_] | None = None

    @property
    def red(self) -> ExtendedAgent:
        return self.agents[0]

    @property
    def blue(self) -> ExtendedAgent:
        return self.agents[1]

    @property
    def goal(self) -> Landmark:
        return self.landmarks[self.goal_index]

    @property
    def fake(self) -> Landmark:
        return self.landmarks[1 - self.goal_index]

    def get_state(self) -> PhysicalDeceptionState:
        """Return a copy of the state."""
        return PhysicalDeceptionState(
            positions=np.stack([agent.state.p_pos for agent in self.agents]),
            velocities=np.stack([agent.state.p_vel for agent in self.agents]),
            landmarks=np.stack([landmark.state.p_pos for landmark in self.landmarks]),
            goal=self.goal_index,
            trapped=self.trapped,
            alone=self.alone,
            red_speed_limit=self.red_speed_limit if self.config.red_speed_range is not None else None,
            red_pauses=self.red_pauses,
        )

    def set_state(self, state: PhysicalDeceptionState) -> None:
        """Take over a state.

        Raises:
            ValueError: it lacks what this game draws of red, or has what it does not draw.
        """
        config = self.config
        if config.red_speed_range is not None and state.red_speed_limit is None:
            raise ValueError("this game draws red's speed limit for each episode: give the state a red_speed_limit")
        if config.red_speed_range is None and state.red_speed_limit is not None:
            raise ValueError("this game does not draw red's speed limit: leave red_speed_limit out of the state")
        if config.red_pause_chance == 0 and state.red_pauses is not None:
            raise ValueError("red does not pause in this game: leave red_pauses out of the state")
        self.red_speed_limit = config.red_speed_limit if state.red_speed_limit is None else state.red_speed_limit
        no_pauses = np.zeros(0, np.bool_) if config.red_pause_chance else None
        self.red_pauses = no_pauses if state.red_pauses is None else state.red_pauses
        self.goal_index = state.goal
        self.alone = state.alone
        for agent, position, velocity in zip(self.agents, state.positions, state.velocities, strict=True):
            agent.state.p_pos, agent.state.p_vel = position.copy(), velocity.copy()
            agent.state.c = np.zeros(self.dim_c)
            agent.goal_a = self.goal
        for landmark, position in zip(self.landmarks, state.landmarks, strict=True):
            landmark.state.p_pos, landmark.state.p_vel = position.copy(), np.zeros(self.dim_p)
        # mpe2 applies no action and no force to a body that is not movable: an absent red stays where it was drawn.
        self.red.movable = not state.alone
        self.blue.max_speed = self.config.blue_speed_limit
        self.trapped, self.just_trapped = state.trapped, False

    def step(self) -> None:
        """Advance by ``dt``; the trap closes at once, so that rewards and observations of the same step see it."""
        pausing = False
        if self.red_pauses is not None and self.red_pauses.size:
            pausing, self.red_pauses = bool(self.red_pauses[0]), self.red_pauses[1:]
        limit = self.red_speed_limit
        if self.config.red_policy == "scripted":
            limit = self._script_red()
        # A red whose speed limit is 0 stands still, whatever pushes it.
        self.red.max_speed = 0.0 if pausing or self.trapped else limit
        super().step()
        at_fake = not self.alone and distance(self.red, self.fake) < self.config.landmark_radius
        self.just_trapped = at_fake and not self.trapped
        self.trapped = self.trapped or at_fake

    def apply_environment_force(self, p_force: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        """Add the push of the walls, from the positions before this step.

        For a centre between the walls this equals the ``Wall`` of the authors' ``core.py``.
        """
        p_force = super().apply_environment_force(p_force)
        for index, agent in enumerate(self.agents):
            if agent.movable:
                position = agent.state.p_pos
                p_force[index] = p_force[index] + self.contact_force * (
                    self._penetration(position + 1) - self._penetration(1 - position)
                )
        return p_force

    def integrate_state(self, p_force: list[NDArray[np.float64]]) -> None:
        """Move the bodies with the new velocity (classic) or the old one (mpe2), and stop them at the walls."""
        before = [agent.state.p_pos.copy() for agent in self.agents]
        super().integrate_state(p_force)
        for agent, start in zip(self.agents, before, strict=True):
            if not agent.movable:
                continue
            if self.config.integration == "classic":
                agent.state.p_pos = start + agent.state.p_vel * self.dt
            # The walls are soft, and in mpe2's order their push moves a body only one step later: without this stop
            # at their mid-lines a fast body would tunnel through.
            stopped = np.clip(agent.state.p_pos, -1, 1)
            agent.state.p_vel[stopped != agent.state.p_pos] = 0.0
            agent.state.p_pos = stopped

    def _penetration(self, wall_distance: NDArray[np.float64]) -> NDArray[np.float64]:
        touching = self.config.agent_size + self.config.wall_width / 2
        softness = self.contact_margin
        return np.asarray(np.logaddexp(0, -(wall_distance - touching) / softness) * softness)

    def _script_red(self) -> float:
        """Push a scripted red straight towards blue, and return how fast it may go in this step: 0 if it is idle."""
        if distance(self.red, self.blue) > self.config.red_sight_radius:
            return 0.0
        start = self.red.state.p_pos
        if self.config.integration == "mpe2":
            # The new velocity moves red only from where the old one takes it.
            start = start + self.red.state.p_vel * self.dt
        towards = self.blue.state.p_pos - start
        gap = float(np.linalg.norm(towards))
        self.red.action.u = self.config.force * towards / max(gap, np.finfo(np.float64).tiny)
        # Not so fast that it would pass blue.
        reach = gap / self.dt
        return reach if self.red_speed_limit is None else min(reach, self.red_speed_limit)


class PhysicalDeceptionScenario(Scenario):  # type: ignore[misc]
    """Start, observations, rewards and events of Physical Deception."""

    def __init__(self, config: PhysicalDeceptionConfig) -> None:
        super().__init__()
        self.config = config

    def make_world(self) -> PhysicalDeceptionWorld:
        """Return a world of one red, one blue and two landmarks, not yet at a start."""
        world = PhysicalDeceptionWorld(self.config)
        # The stock scenario gives every good agent a landmark: take its two good agents, and leave one of them out.
        stock = super().make_world(N=2)
        world.dim_c = stock.dim_c
        world.agents, world.landmarks = stock.agents[:2], stock.landmarks
        world.num_agents = len(world.agents)
        for agent in world.agents:
            agent.size = self.config.agent_size
            # mpe2 calls the force of a full action the agent's acceleration.
            agent.accel = self.config.force
        for landmark in world.landmarks:
            landmark.size = self.config.landmark_size
        return world

    def reset_world(self, world: PhysicalDeceptionWorld, np_random: np.random.Generator) -> None:
        """Put the world at a drawn start."""
        world.set_state(draw_start(self.config, np_random))

    def events(self, world: PhysicalDeceptionWorld) -> dict[str, bool]:
        """Return the named events of the present state; an absent red neither sees, is seen nor is anywhere."""
        present = not world.alone
        apart = distance(world.red, world.blue)
        radius = self.config.landmark_radius
        return {
            "red_in_sight": present and apart <= self.config.blue_sight_radius,
            "blue_in_sight": present and apart <= self.config.red_sight_radius,
            "red_at_goal": present and distance(world.red, world.goal) < radius,
            "red_at_fake": present and distance(world.red, world.fake) < radius,
            "blue_at_goal": distance(world.blue, world.goal) < radius,
            "blue_at_fake": distance(world.blue, world.fake) < radius,
            "trapped": world.trapped,
            "alone": world.alone,
        }

    def adversary_reward(self, agent: ExtendedAgent, world: PhysicalDeceptionWorld) -> float:
        """Return red's reward: at the goal, and within its sight radius of blue."""
        if world.alone:
            return 0.0
        reward = self.config.red_goal_reward * (distance(agent, world.goal) < self.config.landmark_radius)
        return reward + self.config.red_follow_reward * (distance(agent, world.blue) < self.config.red_sight_radius)

    def agent_reward(self, agent: ExtendedAgent, world: PhysicalDeceptionWorld) -> float:
        """Return blue's reward: at the goal, for red trapped, red free at it, and red's distance from it."""
        present = not world.alone
        at_goal = self.config.untrapped_goal_reward if present and not world.trapped else self.config.goal_reward
        reward = at_goal * (distance(agent, world.goal) < self.config.landmark_radius)
        reward += self.config.trap_reward * world.trapped + self.config.trap_bonus * world.just_trapped
        if self.config.guide_reward and present and not world.trapped:
            reward += self.config.guide_reward * (distance(world.red, world.goal) < self.config.landmark_radius)
        return reward + self.config.red_distance_reward * (distance(world.red, world.goal) if present else 0.0)

    def observation(self, agent: ExtendedAgent, world: PhysicalDeceptionWorld) -> NDArray[np.float64]:
        """Return red's ``[6]`` or blue's ``[10]`` or ``[11]`` observation, laid out as ``RED`` and ``BLUE`` say."""
        position = agent.state.p_pos
        if agent.adversary:
            observation = np.zeros(RED.size)
            if world.alone:
                return observation
            observation[RED.landmark_0] = world.landmarks[0].state.p_pos - position
            observation[RED.landmark_1] = world.landmarks[1].state.p_pos - position
            if distance(agent, world.blue) <= self.config.red_sight_radius:
                observation[RED.blue_position] = world.blue.state.p_pos - position
            return observation
        observation = np.zeros(blue_size(self.config))
        observation[BLUE.goal] = world.goal.state.p_pos - position
        observation[BLUE.landmark_0] = world.landmarks[0].state.p_pos - position
        observation[BLUE.landmark_1] = world.landmarks[1].state.p_pos - position
        in_sight = not world.alone and distance(agent, world.red) <= self.config.blue_sight_radius
        if in_sight and not self.config.blind:
            observation[BLUE.red_position] = world.red.state.p_pos - position
            observation[BLUE.visible] = 1.0
        observation[BLUE.trapped] = world.trapped
        return observation


def draw_start(config: PhysicalDeceptionConfig, np_random: np.random.Generator) -> PhysicalDeceptionState:
    """Draw the start of an episode.

    Draws, in this order: the kind of episode (one uniform number: alone, trapped start or plain); the goal; red's
    position; the angle and the distance of blue from red; both landmarks, the second again while it is too near the
    first; for a trapped start only, blue's position; and, where the game draws them, red's speed limit and red's
    pauses. The plain start is that of the authors' ``simple_adversary.py``.
    """
    half_width = 1 - config.start_margin
    kind = np_random.random()
    alone = kind < config.alone_share
    trapped = not alone and kind < config.alone_share + config.trapped_start_share
    goal = int(np_random.integers(2))
    red = np_random.uniform(-half_width, half_width, 2)
    angle, radius = np_random.uniform(0, 2 * np.pi), np_random.uniform(0, config.start_distance)
    blue = np.clip(red + radius * np.array([np.cos(angle), np.sin(angle)]), -half_width, half_width)
    landmarks = np_random.uniform(-half_width, half_width, (2, 2))
    if config.landmark_separation:
        landmarks[1] = _separated(config, landmarks, np_random)
    if trapped:
        red = landmarks[1 - goal]
        blue = np_random.uniform(-half_width, half_width, 2)
    elif config.trap_at_start and not alone:
        trapped = bool(np.linalg.norm(red - landmarks[1 - goal]) < config.landmark_radius)
    return PhysicalDeceptionState(
        positions=np.stack([red, blue]),
        velocities=np.zeros((2, 2)),
        landmarks=landmarks,
        goal=goal,
        trapped=trapped,
        alone=alone,
        red_speed_limit=None if config.red_speed_range is None else np_random.uniform(*config.red_speed_range),
        red_pauses=draw_pauses(config, np_random) if config.red_pause_chance else None,
    )


def _separated(
    config: PhysicalDeceptionConfig, landmarks: NDArray[np.float64], np_random: np.random.Generator
) -> NDArray[np.float64]:
    """Return the second landmark, drawn again while it is too near the first, at last in the farthest corner."""
    half_width = 1 - config.start_margin
    first, second = landmarks
    for redrawn in range(LANDMARK_CANDIDATES):
        if redrawn:
            second = np_random.uniform(-half_width, half_width, 2)
        if np.linalg.norm(second - first) >= config.landmark_separation:
            return np.asarray(second)
    return np.where(first > 0, -half_width, half_width)


def draw_pauses(config: PhysicalDeceptionConfig, np_random: np.random.Generator) -> NDArray[np.bool_]:
    """Draw in which steps of an episode red pauses: bool ``[T]``."""
    fewest, most = config.red_pause_steps
    pauses = np.zeros(config.episode_length, np.bool_)
    step = 0
    while step < config.episode_length:
        if np_random.random() < config.red_pause_chance:
            end = step + int(np_random.integers(fewest, most + 1))
            pauses[step:end] = True
            step = end
        else:
            step += 1
    return pauses


def distance(one: ExtendedAgent | Landmark, other: ExtendedAgent | Landmark) -> float:
    """Return the distance between the centres of two entities, in world units."""
    return float(np.linalg.norm(one.state.p_pos - other.state.p_pos))
