"""The interface of Physical Deception: PettingZoo's own tests, seeds, copies, errors and pictures."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pettingzoo
import pygame
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from pettingzoo.test import api_test, max_cycles_test, parallel_api_test, parallel_seed_test, render_test, seed_test

from soo_marl.envs import (
    PhysicalDeception,
    PhysicalDeceptionConfig,
    PhysicalDeceptionState,
    physical_deception_v0,
    preset,
)
from soo_marl.envs.physical_deception import env, parallel_env, raw_env
from soo_marl.envs.rendering import BLUE_COLOUR, RED_COLOUR

STARTS: dict[str, dict[str, float]] = {
    "plain": {},
    "alone": {"alone_share": 1.0},
    "trapped": {"trapped_start_share": 1.0},
    "mixed": {"alone_share": 0.3, "trapped_start_share": 0.3},
}


@pytest.fixture(params=["paper", "trackable", "watch"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["continuous", "discrete"])
def actions(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["classic", "mpe2"])
def integration(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(STARTS))
def config(request: pytest.FixtureRequest, name: str, actions: str, integration: str) -> PhysicalDeceptionConfig:
    return preset(name).replace(
        continuous_actions=actions == "continuous",
        integration=integration,
        visible_bit=name == "watch" and request.param == "mixed",
        **STARTS[request.param],
    )


# The two observations have different sizes, red's is zero when it is absent: PettingZoo warns of both.
@pytest.mark.filterwarnings("ignore:.*(different|all zeros).*")
def test_pettingzoo_interface(config: PhysicalDeceptionConfig) -> None:
    parallel_api_test(parallel_env(config))
    api_test(env(config))


def test_pettingzoo_seeds(config: PhysicalDeceptionConfig) -> None:
    parallel_seed_test(lambda: parallel_env(config), num_cycles=60)
    seed_test(lambda: env(config), num_cycles=60)


def test_pettingzoo_episode_length(config: PhysicalDeceptionConfig) -> None:
    max_cycles_test(SimpleNamespace(parallel_env=partial(parallel_env, config), env=partial(env, config)))


@pytest.mark.parametrize("kind", ["aec", "parallel"])
def test_pettingzoo_makes_the_game_by_its_name(kind: Literal["aec", "parallel"]) -> None:
    made = pettingzoo.make(kind, "soo_marl/physical_deception-v0", config="watch", max_cycles=3)
    assert made.unwrapped.config == preset("watch").replace(episode_length=3)
    made.reset(seed=0)


def test_the_versioned_module_has_the_same_games() -> None:
    max_cycles_test(physical_deception_v0)
    discrete = physical_deception_v0.parallel_env(continuous_actions=False)
    assert discrete.config == preset("trackable").replace(continuous_actions=False)
    assert discrete.action_space("agent_0") == spaces.Discrete(5)
    with pytest.raises(ValueError, match="episode_length"):
        physical_deception_v0.env(max_cycles=0)


def test_starts_come_from_the_generator_that_wrappers_look_for(name: str) -> None:
    game, other = PhysicalDeception(name), PhysicalDeception(name)
    for each in (game, other):
        each.reset(seed=5)
    other.np_random.random()
    assert game.np_random.bit_generator.state != other.np_random.bit_generator.state
    game.np_random.random()
    np.testing.assert_array_equal(game.reset()[0]["agent_0"], other.reset()[0]["agent_0"])


@pytest.mark.parametrize("start", list(STARTS))
def test_pettingzoo_rendering(monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setitem(raw_env.metadata, "render_fps", 1000)
    config = preset("paper").replace(**STARTS[start])
    render_test(lambda render_mode: env(config, render_mode))


def test_parallel_and_agent_by_agent_play_are_the_same_game() -> None:
    parallel, turns = parallel_env("paper"), env("paper")
    parallel.reset(seed=3)
    turns.reset(seed=3)
    while parallel.agents:
        actions = {agent: parallel.action_space(agent).sample() for agent in parallel.agents}
        observations, rewards, _, truncations, infos = parallel.step(actions)
        for agent in parallel.possible_agents:
            assert turns.agent_selection == agent
            turns.step(actions[agent])
        for agent in parallel.possible_agents:
            np.testing.assert_array_equal(turns.observe(agent), observations[agent])
        assert (turns.rewards, turns.truncations, turns.infos) == (rewards, truncations, infos)


def test_episodes_are_truncated_at_their_length_and_never_terminate(name: str) -> None:
    game = PhysicalDeception(name)
    game.reset(seed=0)
    length = {"paper": 50, "trackable": 50, "watch": 70}[name]
    for step in range(1, length + 1):
        _, _, terminations, truncations, _ = game.step({agent: np.zeros(2) for agent in game.agents})
        assert not any(terminations.values())
        assert set(truncations.values()) == {step == length}
    assert game.agents == []
    with pytest.raises(ResetNeeded, match=r"reset\(\)"):
        game.step({agent: np.zeros(2) for agent in game.possible_agents})


def test_seed_zero_is_a_seed() -> None:
    game = PhysicalDeception()
    first = game.reset(seed=0)[0]["agent_0"]
    second = game.reset()[0]["agent_0"]
    assert not np.array_equal(first, second), "no seed goes on with the random numbers"
    np.testing.assert_array_equal(game.reset(seed=0)[0]["agent_0"], first)
    np.testing.assert_array_equal(PhysicalDeception().reset(seed=0)[0]["agent_0"], first)
    assert not np.array_equal(game.reset(seed=1)[0]["agent_0"], first)
    assert not np.array_equal(PhysicalDeception().reset()[0]["agent_0"], first)


def test_starting_from_a_state_leaves_the_later_random_numbers_as_they_were() -> None:
    one, other = PhysicalDeception(), PhysicalDeception()
    one.reset(seed=0)
    other.reset(seed=0, options={"state": one.get_state()})
    np.testing.assert_array_equal(one.reset()[0]["agent_0"], other.reset()[0]["agent_0"])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda game: pickle.loads(pickle.dumps(game))])
@pytest.mark.parametrize(("name", "render_mode"), [("paper", None), ("paper", "rgb_array"), ("watch", None)])
def test_copies_go_on_where_the_original_stands(
    duplicate: Callable[[Any], Any], name: str, render_mode: str | None
) -> None:
    game = PhysicalDeception(preset(name).replace(episode_length=7), render_mode)
    game.reset(seed=4)
    for _ in range(3):
        game.step({agent: game.action_space(agent).sample() for agent in game.agents})
    twin = duplicate(game)
    for _ in range(2):
        while game.agents:
            actions = {agent: game.action_space(agent).sample() for agent in game.agents}
            assert all(np.array_equal(twin.action_space(agent).sample(), actions[agent]) for agent in game.agents)
            expected, actual = game.step(actions), twin.step(actions)
            np.testing.assert_array_equal(expected[0]["agent_0"], actual[0]["agent_0"])
            assert expected[1:] == actual[1:]
        assert twin.agents == []
        np.testing.assert_array_equal(game.reset()[0]["agent_0"], twin.reset()[0]["agent_0"])


def test_a_copy_does_not_share_the_world() -> None:
    game = env("paper")
    game.reset(seed=0)
    twin = copy.deepcopy(game)
    before = twin.state()
    for _ in range(4):
        game.step(np.ones(2, np.float32))
    np.testing.assert_array_equal(twin.state(), before)


def test_events_are_plain_booleans_and_not_shared() -> None:
    game = PhysicalDeception()
    infos = game.reset(seed=0)[1]
    assert all(type(value) is bool for info in infos.values() for value in info.values())
    infos["agent_0"]["trapped"] = True
    _, _, _, _, after = game.step({agent: np.zeros(2) for agent in game.agents})
    assert not after["agent_0"]["trapped"] and not infos["adversary_0"]["trapped"]


def test_metadata() -> None:
    for game in (PhysicalDeception(), raw_env(), env()):
        assert game.metadata == {
            "name": "physical_deception_v0",
            "render_modes": ["human", "rgb_array"],
            "is_parallelizable": True,
            "render_fps": 10,
        }
        assert str(game.unwrapped) == "physical_deception_v0"


# Errors


@pytest.mark.parametrize("make", [PhysicalDeception, raw_env, env, parallel_env])
def test_unknown_presets_and_render_modes_are_refused(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="no preset 'papers'; choose one of paper, trackable, watch"):
        make("papers")
    with pytest.raises(ValueError, match="no render mode 'ascii'"):
        make("paper", "ascii")
    with pytest.raises(ValueError, match="config"):
        make({"preset": "paper"})


@pytest.mark.parametrize("action", [np.zeros(3), np.zeros((1, 2)), 1, None, [np.nan, 0.0], "left", {}])
def test_a_malformed_continuous_action_is_refused(action: Any) -> None:
    game, turns = PhysicalDeception(), raw_env()
    game.reset(seed=0)
    turns.reset(seed=0)
    with pytest.raises(ValueError, match="adversary_0 must be two finite numbers"):
        game.step({"adversary_0": action, "agent_0": np.zeros(2)})
    with pytest.raises(ValueError, match="adversary_0 must be two finite numbers"):
        turns.step(action)


@pytest.mark.parametrize("action", [5, -1, 1.0, None, np.zeros(2)])
def test_a_malformed_discrete_action_is_refused(action: Any) -> None:
    game = PhysicalDeception(preset("paper").replace(continuous_actions=False))
    game.reset(seed=0)
    with pytest.raises(ValueError, match="agent_0 must be an integer from 0 to 4"):
        game.step({"adversary_0": 0, "agent_0": action})


def test_actions_must_name_both_agents() -> None:
    game = PhysicalDeception()
    game.reset(seed=0)
    with pytest.raises(ValueError, match="adversary_0, agent_0"):
        game.step({"agent_0": np.zeros(2)})
    with pytest.raises(ValueError, match="agent_1"):
        game.step({"adversary_0": np.zeros(2), "agent_0": np.zeros(2), "agent_1": np.zeros(2)})


def test_a_step_needs_a_reset() -> None:
    with pytest.raises(ResetNeeded, match=r"reset\(\)"):
        PhysicalDeception().step({})


def test_a_state_must_be_a_state() -> None:
    with pytest.raises(ValueError, match="PhysicalDeceptionState, not dict"):
        PhysicalDeception().reset(options={"state": {}})


# Pictures


def picture(config: PhysicalDeceptionConfig | None = None, **flags: Any) -> Any:
    state = PhysicalDeceptionState(
        np.array([[-0.5, 0.5], [0.5, 0.5]]), np.zeros((2, 2)), np.array([[0.5, -0.5], [-0.5, -0.5]]), goal=0, **flags
    )
    game = PhysicalDeception(config or preset("trackable"), render_mode="rgb_array")
    game.reset(options={"state": state})
    return game.render()


def pixel(image: Any, x: float, y: float) -> tuple[int, ...]:
    column, row = (round((value + 1.1) / 2.2 * 700) for value in (x, -y))
    return tuple(int(value) for value in image[row, column])


def test_a_picture_shows_who_is_where() -> None:
    image = picture()
    assert image.shape == (700, 700, 3) and image.dtype == np.uint8
    assert pixel(image, -0.5, 0.5) == RED_COLOUR and pixel(image, 0.5, 0.5) == BLUE_COLOUR
    assert pixel(image, 0.0, 0.0) == (255, 255, 255)


def test_a_picture_tells_trapped_and_absent_red_apart() -> None:
    plain, trapped, alone = picture(), picture(trapped=True), picture(alone=True)
    changed = np.argwhere((plain != trapped).any(axis=-1))
    assert len(changed) > 0 and changed[:, 1].max() < 350 and changed[:, 0].max() < 350
    assert pixel(alone, -0.5, 0.5) == (255, 255, 255)
    assert not (alone == np.array(RED_COLOUR)).all(axis=-1).any()
    np.testing.assert_array_equal(plain, picture())


def test_a_picture_shows_a_red_about_to_pause_and_a_blind_blue() -> None:
    game = preset("trackable").replace(red_pause_chance=0.1)
    plain, later = picture(), picture(game, red_pauses=[False, True])
    np.testing.assert_array_equal(plain, later)
    changed = np.argwhere((plain != picture(game, red_pauses=[True, False])).any(axis=-1))
    # Around the centre of red, within its mark.
    assert len(changed) > 0 and np.abs(changed - [191, 191]).max() < 20
    blind = picture(preset("trackable").replace(blind=True))
    assert pixel(plain, 0.5 + 0.35, 0.5) != pixel(blind, 0.5 + 0.35, 0.5) == (255, 255, 255)


def test_closing_one_environment_leaves_the_others_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    window, other = PhysicalDeception(render_mode="human"), PhysicalDeception(render_mode="rgb_array")
    window.reset(seed=0)
    other.reset(seed=0)
    assert pygame.display.get_init()
    other.close()
    assert pygame.display.get_init()
    window.render()
    window.close()
    window.close()
    assert not pygame.display.get_init()
    assert other.render() is not None


def test_neither_importing_nor_drawing_arrays_opens_a_display() -> None:
    program = (
        "import soo_marl.envs, pygame; game = soo_marl.envs.PhysicalDeception(render_mode='rgb_array');"
        "game.reset(seed=0); assert game.render().any(); assert not pygame.display.get_init()"
    )
    variables = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    variables.pop("SDL_VIDEODRIVER", None)
    outcome = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True)
    assert (outcome.returncode, outcome.stdout) == (0, ""), outcome.stderr
