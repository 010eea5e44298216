"""Drawn starts, and what is refused as a state or as a configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from soo_marl.agents import MADDPGConfig, TrainingConfig
from soo_marl.envs import (
    PhysicalDeception,
    PhysicalDeceptionConfig,
    PhysicalDeceptionState,
    SimpleAdversaryConfig,
    preset,
)
from soo_marl.envs.particle_world import draw_pauses, draw_start

NOTHING = np.zeros((2, 2))


def test_starts_have_the_stated_shares_and_places() -> None:
    config = preset("trackable").replace(alone_share=0.3, trapped_start_share=0.2)
    generator = np.random.default_rng(0)
    starts = [draw_start(config, generator) for _ in range(3000)]
    assert np.mean([state.alone for state in starts]) == pytest.approx(0.3, abs=0.04)
    assert np.mean([state.trapped for state in starts]) == pytest.approx(0.2, abs=0.04)
    assert np.mean([state.goal for state in starts]) == pytest.approx(0.5, abs=0.04)
    everything = np.array([[*state.positions, *state.landmarks] for state in starts])
    assert np.abs(everything).max() <= 0.825
    assert everything[:, 2:].std(axis=0) == pytest.approx(0.825 / np.sqrt(3), abs=0.03)
    plain = [state for state in starts if not state.trapped]
    apart = np.array([np.linalg.norm(state.positions[0] - state.positions[1]) for state in plain])
    assert apart.max() <= 0.35 and apart.mean() == pytest.approx(0.35 / 2, abs=0.02)
    for state in starts:
        assert not state.velocities.any()
        if state.trapped:
            np.testing.assert_array_equal(state.positions[0], state.landmarks[state.fake])


def test_paper_starts_lie_within_the_papers_sight() -> None:
    generator = np.random.default_rng(0)
    starts = [draw_start(preset("paper"), generator) for _ in range(200)]
    assert 0.1 < max(np.linalg.norm(state.positions[0] - state.positions[1]) for state in starts) <= 0.125


def test_a_red_drawn_at_the_fake_is_trapped_in_the_papers_game() -> None:
    config, later = preset("paper"), preset("paper").replace(trap_at_start=False)
    drawn = 0
    for seed in range(1000):
        state = draw_start(config, np.random.default_rng(seed))
        at_fake = np.linalg.norm(state.positions[0] - state.landmarks[state.fake]) < config.landmark_radius
        assert state.trapped == at_fake
        assert not draw_start(later, np.random.default_rng(seed)).trapped
        drawn += state.trapped
        if state.trapped:
            game = PhysicalDeception(config)
            # A state that is given says itself whether red is trapped.
            _, infos = game.reset(options={"state": replace(state, trapped=False)})
            assert infos["agent_0"]["red_at_fake"] and not infos["agent_0"]["trapped"]
    assert 15 <= drawn <= 40


def test_an_absent_red_is_not_trapped_where_it_is_drawn() -> None:
    config = preset("paper").replace(alone_share=1.0)
    assert not any(draw_start(config, np.random.default_rng(seed)).trapped for seed in range(300))


def test_starts_of_watch_have_separate_landmarks_and_a_red_of_their_own() -> None:
    generator = np.random.default_rng(0)
    starts = [draw_start(preset("watch"), generator) for _ in range(2000)]
    apart = np.array([np.linalg.norm(state.landmarks[0] - state.landmarks[1]) for state in starts])
    assert 0.4 <= apart.min() < 0.45 and apart.max() > 1.6
    limits = np.array([state.red_speed_limit for state in starts], dtype=float)
    assert limits.min() >= 0.3 and limits.max() <= 0.9
    assert limits.mean() == pytest.approx(0.6, abs=0.02) and limits.std() == pytest.approx(0.6 / 12**0.5, abs=0.01)
    pauses = np.array([state.red_pauses for state in starts])
    assert pauses.shape == (2000, 70) and pauses.dtype == np.bool_
    assert pauses[:, 0].mean() == pytest.approx(0.05, abs=0.015)
    # Late in an episode, 8 steps of pause come on 19 steps without.
    assert pauses[:, 40:].mean() == pytest.approx(8 / 27, abs=0.02)


@settings(max_examples=50, deadline=None)
@given(separation=st.floats(0.01, 1.1), margin=st.floats(0.0, 0.2), seed=st.integers(0, 2**32))
def test_landmarks_are_never_nearer_than_their_separation(separation: float, margin: float, seed: int) -> None:
    config = preset("trackable").replace(landmark_separation=separation, start_margin=margin, trapped_start_share=0.5)
    generator = np.random.default_rng(seed)
    for _ in range(20):
        state = draw_start(config, generator)
        assert np.linalg.norm(state.landmarks[0] - state.landmarks[1]) >= separation - 1e-12
        assert np.abs(state.landmarks).max() <= 1 - margin
        assert not state.trapped or (state.positions[0] == state.landmarks[state.fake]).all()


@settings(max_examples=50, deadline=None)
@given(chance=st.floats(0.01, 0.3), fewest=st.integers(1, 9), more=st.integers(0, 9), seed=st.integers(0, 2**32))
def test_pauses_are_of_the_stated_lengths(chance: float, fewest: int, more: int, seed: int) -> None:
    config = preset("watch").replace(
        red_pause_chance=chance, red_pause_steps=(fewest, fewest + more), episode_length=300
    )
    for length in runs(draw_pauses(config, np.random.default_rng(seed))):
        # Several pauses may follow each other at once; none is shorter.
        assert length >= fewest and any(n * fewest <= length <= n * (fewest + more) for n in range(1, 301))


def runs(pauses: Any) -> list[int]:
    """Lengths of the stretches of True that do not touch the end."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], pauses))))
    return [int(end - start) for start, end in zip(edges[::2], edges[1::2], strict=False)]


@pytest.mark.parametrize("name", ["positions", "velocities", "landmarks"])
@pytest.mark.parametrize("value", [np.zeros(4), np.full((2, 2), np.nan)])
def test_a_malformed_state_is_refused_by_name(name: str, value: Any) -> None:
    good = {"positions": NOTHING, "velocities": NOTHING, "landmarks": NOTHING}
    with pytest.raises(ValueError, match=name):
        PhysicalDeceptionState(**{**good, name: value}, goal=0)


def test_an_impossible_state_is_refused() -> None:
    with pytest.raises(ValueError, match="between the walls"):
        PhysicalDeceptionState(np.full((2, 2), 1.1), NOTHING, NOTHING, goal=0)
    with pytest.raises(ValueError, match="goal"):
        PhysicalDeceptionState(NOTHING, NOTHING, NOTHING, goal=2)
    with pytest.raises(ValueError, match="absent red"):
        PhysicalDeceptionState(NOTHING, NOTHING, NOTHING, goal=0, alone=True, trapped=True)
    with pytest.raises(ValueError, match="absent red"):
        PhysicalDeceptionState(NOTHING, np.full((2, 2), 0.1), NOTHING, goal=0, alone=True)
    for limit in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="red_speed_limit must be a finite number above 0"):
            PhysicalDeceptionState(NOTHING, NOTHING, NOTHING, goal=0, red_speed_limit=limit)
    for pauses in ([[True]], [0.5], [0, 1], True):
        with pytest.raises(ValueError, match="red_pauses must be a row of booleans"):
            PhysicalDeceptionState(NOTHING, NOTHING, NOTHING, goal=0, red_pauses=pauses)  # type: ignore[arg-type]


def test_unknown_fields_and_impossible_values_of_a_configuration_are_refused() -> None:
    with pytest.raises(ValidationError, match="sight"):
        PhysicalDeceptionConfig(sight=0.3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="integration"):
        preset("paper").replace(integration="leapfrog")
    with pytest.raises(ValidationError, match="alone_share"):
        preset("paper").replace(alone_share=0.7, trapped_start_share=0.7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"landmark_separation": -0.1}, "landmark_separation"),
        ({"landmark_separation": 1.17}, "landmark_separation must be less than 1.16673, half the diagonal"),
        ({"landmark_separation": 0.75, "start_margin": 0.5}, "landmark_separation must be less than 0.707107"),
        ({"red_speed_range": (0.0, 0.5)}, "red_speed_range takes two speeds above 0, the lower one first"),
        ({"red_speed_range": (0.6, 0.5)}, "red_speed_range takes two speeds above 0, the lower one first"),
        ({"red_speed_range": (0.6, float("inf"))}, r"red_speed_range.1\n  Input should be a finite number"),
        ({"trap_reward": float("nan")}, r"trap_reward\n  Input should be a finite number"),
        ({"red_speed_range": (0.6,)}, "red_speed_range"),
        ({"red_pause_steps": (0, 3)}, "red_pause_steps takes two numbers from 1 upwards, the lower one first"),
        ({"red_pause_steps": (4, 3)}, "red_pause_steps takes two numbers from 1 upwards, the lower one first"),
        ({"red_pause_steps": (1.5, 3)}, "red_pause_steps"),
        ({"red_pause_chance": 1.1}, "red_pause_chance"),
        ({"red_policy": "clever"}, "red_policy"),
    ],
)
def test_impossible_games_are_refused_in_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as refused:
        preset("watch").replace(**changes)
    assert refused.value.error_count() >= 1 and "\n" not in refused.value.errors()[0]["msg"]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_by_the_name_of_their_field(number: float) -> None:
    settings = (preset("trackable"), SimpleAdversaryConfig(), MADDPGConfig(), TrainingConfig())
    named = [(config, name) for config in settings for name, value in config if isinstance(value, float)]
    assert len(named) > 30
    for config, name in [*named, (preset("trackable"), "goal_reward_untrapped"), (preset("paper"), "blue_speed_limit")]:
        with pytest.raises(ValidationError) as refused:
            type(config)(**{**config.model_dump(), name: number})
        assert [error["loc"] for error in refused.value.errors()] == [(name,)]
