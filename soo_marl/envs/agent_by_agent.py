"""Physical Deception agent by agent (PettingZoo AEC): the game of ``physical_deception.py``, run by mpe2's loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pygame
from gymnasium import spaces
from mpe2._mpe_utils.simple_env import SimpleEnv, make_env
from numpy.typing import NDArray
from pettingzoo import AECEnv

from soo_marl.envs.configuration import PhysicalDeceptionConfig, game
from soo_marl.envs.observations import BLUE, RED, blue_size
from soo_marl.envs.particle_world import PhysicalDeceptionScenario
from soo_marl.envs.rendering import draw
from soo_marl.envs.state import STATE, PhysicalDeceptionState, state_size

METADATA: dict[str, Any] = {
    "name": "physical_deception_v0",
    "render_modes": ["human", "rgb_array"],
    "is_parallelizable": True,
    "render_fps": 10,
}
"""What PettingZoo wants to know of the game."""


class raw_env(SimpleEnv):  # type: ignore[misc]  # mpe2 and PettingZoo are untyped
    """The game agent by agent (PettingZoo AEC), without the wrappers that check how it is used; see :func:`env`.

    Args:
        config: The game, or the name of a preset.
        render_mode: None, ``"human"`` (a window, drawn at each step) or ``"rgb_array"``.
        max_cycles: The game's ``episode_length`` under PettingZoo's name; None leaves it as it is.
        continuous_actions: The game's field of that name; None leaves it as it is.

    Raises:
        ValueError: there is no such preset or render mode, or a value does not fit its field.
    """

    metadata = METADATA

    def __init__(
        self,
        config: PhysicalDeceptionConfig | str = "trackable",
        render_mode: str | None = None,
        max_cycles: int | None = None,
        continuous_actions: bool | None = None,
    ) -> None:
        given = {"episode_length": max_cycles, "continuous_actions": continuous_actions}
        self.config = game(config).replace(**{name: value for name, value in given.items() if value is not None})
        if render_mode is not None and render_mode not in METADATA["render_modes"]:
            raise ValueError(f"there is no render mode {render_mode!r}; choose None, 'human' or 'rgb_array'")
        scenario = PhysicalDeceptionScenario(self.config)
        super().__init__(
            scenario=scenario,
            world=scenario.make_world(),
            max_cycles=self.config.episode_length,
            render_mode=render_mode,
            continuous_actions=self.config.continuous_actions,
        )
        for name, size in zip(self.possible_agents, (RED.size, blue_size(self.config)), strict=True):
            # Nothing passes the mid-lines of the walls: two points are never farther apart than 2 along an axis.
            low, high = np.full(size, -2.0, np.float32), np.full(size, 2.0, np.float32)
            if size != RED.size:
                # The trapped flag, and the visible bit where there is one.
                low[BLUE.trapped.start :], high[BLUE.trapped.start :] = 0.0, 1.0
            self.observation_spaces[name] = spaces.Box(low, high, dtype=np.float32)
            self.action_spaces[name] = (
                spaces.Box(-1.0, 1.0, (2,), np.float32) if self.config.continuous_actions else spaces.Discrete(5)
            )
        self.state_space = STATE.space(state_size(self.config))

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start an episode; see ``PhysicalDeception.reset``."""
        super().reset(seed=seed, options=options)
        self.set_state((options or {}).get("state", self.get_state()))

    def step(self, action: Any) -> None:
        """Take the action of the agent whose turn it is; the world moves once both have acted.

        Raises:
            ValueError: the action does not fit the action space.
        """
        agent = self.agent_selection
        if not (self.terminations[agent] or self.truncations[agent]):
            action = self._checked_action(agent, action)
        super().step(action)

    def step_together(self, actions: Mapping[str, Any]) -> None:
        """Take the actions of both agents at once and move the world.

        Raises:
            ValueError: an agent's action is missing or does not fit the action space.
        """
        if set(actions) != set(self.possible_agents):
            raise ValueError(f"actions must name exactly {', '.join(self.possible_agents)}, not {sorted(actions)}")
        self.current_actions = [self._checked_action(name, actions[name]) for name in self.possible_agents]
        self._execute_world_step()
        self.steps += 1
        self.truncations = dict.fromkeys(self.possible_agents, self.steps >= self.max_cycles)

    def get_state(self) -> PhysicalDeceptionState:
        """Return a copy of the state of the world."""
        state: PhysicalDeceptionState = self.world.get_state()
        return state

    def set_state(self, state: PhysicalDeceptionState) -> None:
        """Put the world into a state; see ``PhysicalDeception.set_state``."""
        if not isinstance(state, PhysicalDeceptionState):
            raise ValueError(f"a state must be a PhysicalDeceptionState, not {type(state).__name__}")
        self.world.set_state(state)
        self._update_infos()

    def state(self) -> NDArray[np.float32]:
        """Return the state vector ``[16]`` or ``[18]``, laid out as ``STATE`` says."""
        return self.get_state().to_vector()

    def draw(self) -> None:
        """Draw the world on the screen surface; ``render`` calls this."""
        draw(self.screen, self.get_state(), self.config)

    def close(self) -> None:
        """Close the window, if there is one. Other environments keep theirs, and their fonts, unlike with mpe2's."""
        if self.renderOn:
            pygame.display.quit()
            self._make_screen()

    def __getstate__(self) -> dict[str, Any]:
        # Copies go on where the original stands, random numbers included; only what pygame holds is made anew.
        return {key: value for key, value in self.__dict__.items() if key not in ("screen", "game_font", "clock")}

    def __setstate__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)
        self._make_screen()

    def _make_screen(self) -> None:
        self.screen = pygame.Surface((self.width, self.height), depth=32)
        self.renderOn = False

    def _execute_world_step(self) -> None:
        super()._execute_world_step()
        self._update_infos()

    def _update_infos(self) -> None:
        events = self.scenario.events(self.world)
        self.infos = {name: dict(events) for name in self.possible_agents}

    def _set_action(self, action: Any, agent: Any, action_space: spaces.Space[Any], time: Any = None) -> None:
        if self.continuous_actions and agent.movable:
            # mpe2 takes five numbers, of which the third and the fifth push right and up.
            x, y = np.clip(action[0], -1, 1)
            action = [np.array([0.0, 0.0, x, 0.0, y])]
        super()._set_action(action, agent, action_space, time)

    def _checked_action(self, agent: str, action: Any) -> Any:
        if not self.continuous_actions:
            if not self.action_space(agent).contains(action):
                raise ValueError(f"the action of {agent} must be an integer from 0 to 4, not {action!r}")
            return int(action)
        try:
            force = np.asarray(action, dtype=np.float64)
        except (TypeError, ValueError):
            force = np.empty(0)
        if force.shape != (2,) or not np.isfinite(force).all():
            raise ValueError(f"the action of {agent} must be two finite numbers (force along x and y), not {action!r}")
        return force


def env(
    config: PhysicalDeceptionConfig | str = "trackable", render_mode: str | None = None, **changes: Any
) -> AECEnv[str, Any, Any]:
    """Return the game agent by agent (PettingZoo AEC), with PettingZoo's wrappers for bounds and order of calls.

    Arguments and errors are those of :class:`raw_env`.
    """
    return make_env(raw_env)(config=config, render_mode=render_mode, **changes)
