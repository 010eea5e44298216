"""The rules that the preset ``watch`` adds: hand-worked steps, and properties that hold in any play."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soo_marl.envs import BLUE, RED, PhysicalDeception, PhysicalDeceptionState, preset
from soo_marl.envs.state import STATE, state_size

INTEGRATIONS = ("classic", "mpe2")
GOAL, FAKE = (0.7, 0.7), (0.7, -0.7)
FIXED: dict[str, Any] = {"red_speed_range": None, "red_pause_chance": 0.0}
"""A scripted red of one speed limit that never pauses."""


def make_state(
    red: Any = (0.0, 0.0), blue: Any = (-0.5, -0.5), red_velocity: Any = (0.0, 0.0), **fields: Any
) -> PhysicalDeceptionState:
    """Landmark 0 is the goal."""
    return PhysicalDeceptionState([red, blue], [red_velocity, (0.0, 0.0)], [GOAL, FAKE], goal=0, **fields)  # type: ignore[arg-type]


def start(state: PhysicalDeceptionState, **changes: Any) -> PhysicalDeception:
    env = PhysicalDeception(preset("watch").replace(**changes))
    env.reset(seed=0, options={"state": state})
    return env


def push(red: Any = (0.0, 0.0), blue: Any = (0.0, 0.0)) -> dict[str, Any]:
    return {"adversary_0": np.array(red, np.float32), "agent_0": np.array(blue, np.float32)}


def path(env: PhysicalDeception, steps: int, red: Any = (-1.0, -1.0)) -> tuple[Any, Any]:
    """Positions and velocities of red after each of some steps, in which its own action goes the wrong way."""
    states = []
    for _ in range(steps):
        env.step(push(red=red))
        states.append(env.get_state())
    return np.array([state.positions[0] for state in states]), np.array([state.velocities[0] for state in states])


# The scripted red


def test_scripted_red_speeds_up_towards_blue_and_stops_at_it() -> None:
    env = start(make_state(blue=(0.3, 0.0)), **FIXED, red_speed_limit=0.6)
    positions, velocities = path(env, 8)
    # 0.5; 0.75 * 0.5 + 0.5 = 0.875, cut to 0.6; ...; at last no more than what is left.
    np.testing.assert_allclose(velocities[:, 0], [0.5, 0.6, 0.6, 0.6, 0.6, 0.1, 0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(positions[:, 0], [0.05, 0.11, 0.17, 0.23, 0.29, 0.3, 0.3, 0.3], atol=1e-9)
    assert not positions[:, 1].any()


def test_scripted_red_stops_at_blue_in_mpe2s_order_too() -> None:
    env = start(make_state(blue=(0.3, 0.0)), **FIXED, red_speed_limit=0.6, integration="mpe2")
    positions, velocities = path(env, 9)
    np.testing.assert_allclose(velocities[:, 0], [0.5, 0.6, 0.6, 0.6, 0.6, 0.1, 0.0, 0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(positions[:, 0], [0.0, 0.05, 0.11, 0.17, 0.23, 0.29, 0.3, 0.3, 0.3], atol=1e-9)


def test_scripted_red_pushes_straight_with_one_full_force() -> None:
    env = start(make_state(blue=(0.18, 0.24)), **FIXED)
    _, velocities = path(env, 1)
    # Not (0.5, 0.5), as a full push along both axes would give.
    np.testing.assert_allclose(velocities[0], [0.3, 0.4], atol=1e-9)


@pytest.mark.parametrize(("integration", "drift"), [("classic", 0.0), ("mpe2", 0.04)])
def test_scripted_red_stands_still_as_soon_as_it_sees_no_blue(integration: str, drift: float) -> None:
    env = start(make_state(blue=(0.0, 0.36), red_velocity=(0.4, 0.0)), **FIXED, integration=integration)
    positions, velocities = path(env, 3)
    assert not velocities.any()
    np.testing.assert_allclose(positions, [[drift, 0.0]] * 3, atol=1e-12)
    assert start(make_state(blue=(0.0, 0.34)), **FIXED).step(push())[4]["agent_0"]["blue_in_sight"]


def test_scripted_red_does_not_move_where_it_is_trapped_or_absent() -> None:
    for flags in ({"trapped": True}, {"alone": True}):
        positions, velocities = path(start(make_state(blue=(0.1, 0.0), **flags), **FIXED), 3)
        assert not positions.any() and not velocities.any()


@pytest.mark.parametrize("continuous", [True, False])
def test_reds_actions_make_no_difference_to_a_scripted_red(continuous: bool) -> None:
    one, other = (PhysicalDeception(preset("watch").replace(continuous_actions=continuous)) for _ in range(2))
    one.reset(seed=5)
    other.reset(seed=5)
    still = np.zeros(2, np.float32) if continuous else 0
    while one.agents:
        actions = {agent: one.action_space(agent).sample() for agent in one.agents}
        first, second = one.step(actions), other.step({**actions, "adversary_0": still})
        np.testing.assert_array_equal(first[0]["agent_0"], second[0]["agent_0"])
        assert first[1] == second[1]
    with pytest.raises(ValueError, match="adversary_0"):
        other.reset(seed=5)
        other.step({**actions, "adversary_0": None})


# Where no wall is felt.
inner = st.floats(-0.4, 0.4)


@settings(max_examples=60, deadline=None)
@given(
    blue=st.tuples(inner, inner),
    angle=st.floats(0, 6.3),
    gap=st.floats(0, 0.34),
    limit=st.one_of(st.none(), st.floats(0.3, 2.0)),
    integration=st.sampled_from(INTEGRATIONS),
)
def test_scripted_red_never_passes_a_blue_that_stands_still_and_ends_where_it_is(
    blue: Any, angle: float, gap: float, limit: float | None, integration: str
) -> None:
    red = np.array(blue) + gap * np.array([np.cos(angle), np.sin(angle)])
    env = start(make_state(red=red, blue=blue), **FIXED, red_speed_limit=limit, integration=integration, start_margin=0)
    positions, velocities = path(env, 20)
    assert np.linalg.norm(velocities, axis=1).max() <= (limit or 100) + 1e-9
    # How far it still is, along the line on which it started.
    left = (positions - blue) @ np.array([np.cos(angle), np.sin(angle)])
    assert left.min() >= -1e-9 and (np.diff(left) <= 1e-9).all()
    np.testing.assert_allclose(positions[-1], blue, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    blue=st.tuples(inner, inner),
    velocity=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    integration=st.sampled_from(INTEGRATIONS),
)
def test_scripted_red_comes_to_rest_at_blue_whatever_its_first_speed(
    blue: Any, velocity: Any, integration: str
) -> None:
    state = make_state(red=np.add(blue, (0.1, 0.05)), blue=blue, red_velocity=velocity)
    positions, _ = path(start(state, **FIXED, red_speed_limit=0.9, red_sight_radius=3.0, integration=integration), 40)
    np.testing.assert_allclose(positions[-1], blue, atol=1e-6)


# Speed limits and pauses


@pytest.mark.parametrize("red_policy", ["learnt", "scripted"])
@pytest.mark.parametrize(("integration", "lag"), [("classic", 0), ("mpe2", 1)])
def test_red_stands_still_while_it_pauses(red_policy: str, integration: str, lag: int) -> None:
    state = make_state(blue=(0.3, 0.0), red_speed_limit=0.2, red_pauses=[False, True, True, False, True, False])
    env = start(state, red_policy=red_policy, integration=integration)
    _, velocities = path(env, 8, red=(1.0, 0.0))
    expected = [0.2, 0.0, 0.0, 0.2, 0.0, 0.2, 0.2, 0.2]
    np.testing.assert_allclose(velocities[:, 0], expected, atol=1e-9)
    moved = np.cumsum([0.0] * lag + expected)[:8] * 0.1
    np.testing.assert_allclose(env.get_state().positions[0], [moved[-1], 0.0], atol=1e-9)


def test_a_state_counts_down_the_pauses_to_come() -> None:
    env = start(make_state(red_speed_limit=0.5, red_pauses=[True, True, False, True]))
    left = []
    for _ in range(6):
        left.append((env.get_state().pause_left, len(env.get_state().red_pauses)))  # type: ignore[arg-type]
        env.step(push())
    assert left == [(2, 4), (1, 3), (0, 2), (1, 1), (0, 0), (0, 0)]


def test_each_episode_has_a_speed_limit_and_pauses_of_its_own_that_seeds_determine() -> None:
    env, again = PhysicalDeception("watch"), PhysicalDeception("watch")
    states = []
    for seed in (3, None, None):
        env.reset(seed=seed)
        again.reset(seed=seed)
        states.append(env.get_state())
        assert again.get_state().red_speed_limit == states[-1].red_speed_limit
        np.testing.assert_array_equal(again.get_state().red_pauses, states[-1].red_pauses)
    assert len({state.red_speed_limit for state in states}) == 3
    assert len({state.red_pauses.tobytes() for state in states}) == 3  # type: ignore[union-attr]


def test_a_play_goes_on_the_same_from_a_copied_state() -> None:
    original, replayed = PhysicalDeception("watch"), PhysicalDeception("watch")
    original.reset(seed=1)
    generator = np.random.default_rng(0)
    for _ in range(15):
        original.step(push(blue=generator.uniform(-1, 1, 2)))
    replayed.reset(seed=2, options={"state": original.get_state()})
    while original.agents:
        actions = push(blue=generator.uniform(-1, 1, 2))
        expected, actual = original.step(actions), replayed.step(actions)
        np.testing.assert_array_equal(expected[0]["agent_0"], actual[0]["agent_0"])
        assert expected[1] == actual[1]


def test_states_of_another_game_are_refused_and_change_nothing() -> None:
    watch, plain = PhysicalDeception("watch"), PhysicalDeception("trackable")
    watch.reset(seed=0)
    plain.reset(seed=0)
    before = watch.state(), plain.state()
    with pytest.raises(ValueError, match="give the state a red_speed_limit"):
        watch.set_state(make_state())
    with pytest.raises(ValueError, match="leave red_speed_limit out of the state"):
        plain.set_state(make_state(red_speed_limit=0.5))
    with pytest.raises(ValueError, match="leave red_pauses out of the state"):
        plain.set_state(make_state(red_pauses=[True]))
    np.testing.assert_array_equal(watch.state(), before[0])
    np.testing.assert_array_equal(plain.state(), before[1])
    watch.set_state(make_state(red_speed_limit=0.5))
    assert watch.get_state().red_pauses is not None and not watch.get_state().pause_left


@pytest.mark.parametrize(
    ("changes", "fields", "last"),
    [
        ({}, {"red_speed_limit": 0.5, "red_pauses": [True, True, False]}, [0.5, 2.0]),
        ({"red_speed_range": None}, {"red_pauses": [False]}, [0.0, 0.0]),
        ({"red_pause_chance": 0.0}, {"red_speed_limit": 0.75}, [0.75, 0.0]),
        (FIXED, {}, []),
    ],
)
def test_the_state_vector_grows_where_red_is_drawn(
    changes: dict[str, Any], fields: dict[str, Any], last: list[float]
) -> None:
    env = start(make_state(**fields), **changes)
    vector = env.state()
    assert vector.shape == env.state_space.shape == (16 + len(last),) == (state_size(env.config),)
    assert vector in env.state_space and vector[16:].tolist() == last
    if last:
        assert vector[STATE.red_speed_limit].tolist() == last[:1] and vector[STATE.pause_left].tolist() == last[1:]


# Rewards and observations


@pytest.mark.parametrize(
    ("state", "blue"),
    [
        (make_state(red=GOAL), 15.0),
        (make_state(red=GOAL, blue=GOAL), 20.0),
        (make_state(blue=GOAL), 5.0),
        (make_state(red=GOAL, trapped=True), 10.0),
        (make_state(red=GOAL, blue=GOAL, alone=True), 5.0),
        (make_state(red=FAKE), 10.0),
    ],
    ids=["red at goal", "both at goal", "blue at goal", "trapped at goal", "alone", "trapped now"],
)
def test_blue_is_paid_for_a_free_red_at_the_goal(state: PhysicalDeceptionState, blue: float) -> None:
    rewards = start(state, **FIXED, trap_reward=10.0).step(push())[1]
    assert rewards["agent_0"] == blue and type(rewards["agent_0"]) is float


def test_the_bonus_is_paid_in_the_one_step_in_which_red_is_trapped() -> None:
    env = start(make_state(red=FAKE), **FIXED, trap_reward=10.0, trap_bonus=300.0)
    assert [env.step(push())[1]["agent_0"] for _ in range(3)] == [310.0, 10.0, 10.0]
    trapped_before = start(make_state(red=FAKE, trapped=True), **FIXED, trap_bonus=300.0)
    assert trapped_before.step(push())[1]["agent_0"] == 0.0


def test_the_visible_bit_tells_a_red_at_blues_place_from_an_unseen_one() -> None:
    for red, seen, field in (((-0.5, -0.5), 1.0, 0.0), ((0.9, 0.9), 0.0, 0.0), ((-0.25, -0.5), 1.0, 0.25)):
        env = start(make_state(red=red), **FIXED, visible_bit=True)
        observation = env.step(push())[0]["agent_0"] if red[0] == 0.9 else env._observe()["agent_0"]
        assert observation.shape == (11,) and observation in env.observation_space("agent_0")
        assert observation[BLUE.visible].tolist() == [seen]
        assert observation[BLUE.red_position].tolist() == [pytest.approx(field), 0.0]
    alone = start(make_state(red=(-0.5, -0.5), alone=True), **FIXED, visible_bit=True)
    assert alone.step(push())[0]["agent_0"][BLUE.visible].tolist() == [0.0]
    assert np.full(11, -1.0, np.float32) not in alone.observation_space("agent_0")


@pytest.mark.parametrize("visible_bit", [False, True])
def test_a_blind_blue_reads_zeros_and_nothing_else_changes(visible_bit: bool) -> None:
    seeing, blind = (
        PhysicalDeception(preset("watch").replace(visible_bit=visible_bit, blind=value)) for value in (False, True)
    )
    generator = np.random.default_rng(0)
    first, second = seeing.reset(seed=4), blind.reset(seed=4)
    ever_seen = False
    while seeing.agents:
        assert first[-1] == second[-1]
        np.testing.assert_array_equal(first[0]["adversary_0"], second[0]["adversary_0"])
        expected = first[0]["agent_0"].copy()
        ever_seen |= bool(expected[BLUE.red_position].any())
        expected[BLUE.red_position] = 0.0
        expected[BLUE.visible] = 0.0
        np.testing.assert_array_equal(second[0]["agent_0"], expected)
        actions = push(blue=generator.uniform(-1, 1, 2))
        first, second = seeing.step(actions), blind.step(actions)  # type: ignore[assignment]
        assert first[1] == second[1] or len(first) == 2
    assert ever_seen and first[0]["adversary_0"].shape == (RED.size,)
