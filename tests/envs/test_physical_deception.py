"""The rules of Physical Deception: hand-worked steps, and properties that hold in any play."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from soo_marl.envs import BLUE, RED, PhysicalDeception, PhysicalDeceptionState, preset
from soo_marl.envs.particle_world import PhysicalDeceptionScenario
from soo_marl.envs.state import STATE


def assert_close(actual: Any, expected: Any, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


STAY = {"adversary_0": np.zeros(2, np.float32), "agent_0": np.zeros(2, np.float32)}
FAR = (0.7, 0.7)
INTEGRATIONS = ("classic", "mpe2")


def make_state(
    red: Any = (0.0, 0.0),
    blue: Any = (-0.5, -0.5),
    red_velocity: Any = (0.0, 0.0),
    blue_velocity: Any = (0.0, 0.0),
    goal_at: Any = FAR,
    fake_at: Any = (0.7, -0.7),
    **flags: Any,
) -> PhysicalDeceptionState:
    """Landmark 0 is the goal."""
    return PhysicalDeceptionState([red, blue], [red_velocity, blue_velocity], [goal_at, fake_at], goal=0, **flags)  # type: ignore[arg-type]


def start(state: PhysicalDeceptionState, name: str = "trackable", **changes: Any) -> PhysicalDeception:
    env = PhysicalDeception(preset(name).replace(**changes))
    env.reset(seed=0, options={"state": state})
    return env


def push(red: Any = (0.0, 0.0), blue: Any = (0.0, 0.0)) -> dict[str, Any]:
    return {"adversary_0": np.array(red, np.float32), "agent_0": np.array(blue, np.float32)}


# Movement


def test_classic_order_moves_with_the_new_velocity() -> None:
    env = start(make_state(red_velocity=(0.4, 0.0)))
    env.step(push(red=(1.0, -0.5)))
    state = env.get_state()
    # 0.4 * 0.75 + 5 * 0.1 = 0.8, and -2.5 * 0.1 = -0.25.
    assert_close(state.velocities[0], [0.8, -0.25])
    assert_close(state.positions[0], [0.08, -0.025])


def test_mpe2_order_moves_with_the_old_velocity_so_that_an_action_shows_one_step_later() -> None:
    env = start(make_state(red_velocity=(0.4, 0.0)), integration="mpe2")
    env.step(push(red=(1.0, -0.5)))
    state = env.get_state()
    assert_close(state.velocities[0], [0.8, -0.25])
    assert_close(state.positions[0], [0.04, 0.0])
    env.step(STAY)
    assert_close(env.get_state().positions[0], [0.12, -0.025])


def test_actions_are_clipped_to_a_full_push() -> None:
    env = start(make_state())
    env.step(push(red=(3.0, -7.0)))
    assert_close(env.get_state().velocities[0], [0.5, -0.5])


@pytest.mark.parametrize(
    ("action", "velocity"),
    [(0, (0.0, 0.0)), (1, (-0.4, 0.0)), (2, (0.4, 0.0)), (3, (0.0, -0.4)), (4, (0.0, 0.4))],
)
def test_discrete_actions_are_stay_left_right_down_up(action: int, velocity: tuple[float, float]) -> None:
    env = start(make_state(), continuous_actions=False, force=4.0)
    env.step({"adversary_0": action, "agent_0": 0})
    assert_close(env.get_state().velocities, [velocity, (0.0, 0.0)])


def test_continuous_axes_point_the_same_way_as_discrete_actions() -> None:
    continuous, discrete = start(make_state()), start(make_state(), continuous_actions=False)
    for force, action in (((-1, 0), 1), ((1, 0), 2), ((0, -1), 3), ((0, 1), 4)):
        continuous.step(push(blue=force))
        discrete.step({"adversary_0": 0, "agent_0": action})
        np.testing.assert_array_equal(continuous.get_state().positions, discrete.get_state().positions)


@pytest.mark.parametrize("integration", INTEGRATIONS)
def test_speed_limits_scale_the_velocity(integration: str) -> None:
    state = make_state(red_velocity=(3.0, 0.0), blue_velocity=(1.2, 1.6))
    env = start(state, integration=integration, red_speed_limit=0.5)
    env.step(STAY)
    # Blue has (0.9, 1.2), of length 1.5, left after damping.
    assert_close(env.get_state().velocities, [[0.5, 0.0], [0.72, 0.96]])


def test_paper_preset_has_no_speed_limit() -> None:
    env = start(make_state(blue_velocity=(4.0, 0.0)), "paper")
    env.step(push(blue=(1.0, 0.0)))
    assert_close(env.get_state().velocities[1], [3.5, 0.0])


def test_walls_push_back_from_the_position_before_the_step() -> None:
    env = start(make_state(red=(0.85, 0.8), blue=(-0.85, -0.8)))
    env.step(STAY)
    state = env.get_state()
    # 0.85 is 0.05 inside the touching distance of 0.15 + 0.1 / 2; at 0.8 only the softness of the contact pushes.
    soft = 100 * 1e-3 * np.log(2) * 0.1
    assert_close(state.velocities, [[-0.5, -soft], [0.5, soft]])
    assert_close(state.positions[0], [0.8, 0.8 - 0.1 * soft])


@pytest.mark.parametrize(
    ("integration", "velocity", "expected"),
    [("classic", 5.0, 0.99 + 0.1 * (3.75 - 1.9)), ("mpe2", 2.0, 0.99 + 0.1 * 2.0)],
)
def test_a_centre_stops_at_the_mid_line_of_a_wall(integration: str, velocity: float, expected: float) -> None:
    assert expected > 1  # what the soft wall alone would allow
    env = start(make_state(red=(0.99, 0.0), red_velocity=(velocity, 0.4)), integration=integration)
    env.step(STAY)
    state = env.get_state()
    assert state.positions[0, 0] == 1.0
    assert_close(state.velocities[0], [0.0, 0.3])


@given(x=st.floats(-0.999, 0.999), y=st.floats(-0.999, 0.999))
def test_wall_force_equals_that_of_four_single_walls(x: float, y: float) -> None:
    assume(x and y)
    world = PhysicalDeceptionScenario(preset("paper")).make_world()
    world.set_state(make_state(red=(x, y)))
    force = world.apply_environment_force([np.zeros(2), np.zeros(2), None, None])[0]  # type: ignore[list-item]
    expected = np.zeros(2)
    for axis, coordinate in enumerate((x, y)):
        for wall in (-1.0, 1.0):
            gap = coordinate - wall
            penetration = np.logaddexp(0, -(abs(gap) - 0.2) / 1e-3) * 1e-3
            expected[axis] += 100 * np.sign(gap) * penetration
    assert_close(force, expected)


# Trap


def test_the_step_that_brings_red_to_the_fake_already_sees_it_trapped() -> None:
    env = start(make_state(red=(0.2, 0.0), fake_at=(0.0, 0.0)), trap_reward=10.0)
    observations, rewards, _, _, infos = env.step(push(red=(-1.0, 0.0)))
    assert_close(env.get_state().positions[0], [0.15, 0.0])
    assert infos["agent_0"]["trapped"] and infos["agent_0"]["red_at_fake"]
    assert rewards["agent_0"] == 10.0
    assert observations["agent_0"][BLUE.trapped].tolist() == [1.0, 1.0]


def test_trapped_red_stands_still_at_once_in_classic_order() -> None:
    env = start(make_state(red=(0.2, 0.0), fake_at=(0.0, 0.0)))
    env.step(push(red=(-1.0, 0.0)))
    for _ in range(3):
        env.step(push(red=(1.0, 1.0)))
        assert_close(env.get_state().positions[0], [0.15, 0.0])
        assert not env.get_state().velocities[0].any()


def test_trapped_red_drifts_one_step_more_in_mpe2_order() -> None:
    env = start(make_state(red=(0.2, 0.0), red_velocity=(-0.5, 0.0), fake_at=(0.0, 0.0)), integration="mpe2")
    env.step(STAY)
    assert env.get_state().trapped
    assert_close(env.get_state().positions[0], [0.15, 0.0])
    env.step(push(red=(1.0, 0.0)))
    assert_close(env.get_state().positions[0], [0.15 - 0.375 * 0.1, 0.0])
    env.step(push(red=(1.0, 0.0)))
    assert_close(env.get_state().positions[0], [0.15 - 0.375 * 0.1, 0.0])


def test_being_at_a_landmark_is_nearer_than_its_radius() -> None:
    at_radius = start(make_state(red=(0.25, 0.0), fake_at=(0.0, 0.0)), landmark_radius=0.25)
    inside = start(make_state(red=(0.2499, 0.0), fake_at=(0.0, 0.0)), landmark_radius=0.25)
    assert not at_radius.step(STAY)[4]["agent_0"]["trapped"]
    assert inside.step(STAY)[4]["agent_0"]["trapped"]


def test_red_at_the_goal_is_not_trapped() -> None:
    env = start(make_state(red=FAR))
    infos = env.step(STAY)[4]
    assert infos["adversary_0"]["red_at_goal"] and not infos["adversary_0"]["trapped"]


def test_red_stays_trapped_for_the_rest_of_the_episode_and_the_next_one_is_free() -> None:
    env = start(make_state(red=(0.0, 0.0), fake_at=(0.0, 0.0)), episode_length=3)
    while env.agents:
        infos = env.step(push(red=(1.0, 0.0)))[4]
        assert infos["agent_0"]["trapped"]
    env.reset(seed=1, options={"state": make_state()})
    env.step(push(red=(1.0, 0.0)))
    assert env.get_state().positions[0, 0] > 0 and not env.get_state().trapped


# Rewards

GAME: dict[str, Any] = {"red_goal_reward": 5.0, "red_follow_reward": 1.0, "goal_reward": 4.0, "trap_reward": 10.0}


@pytest.mark.parametrize(
    ("state", "red", "blue"),
    [
        (make_state(), 0.0, 0.0),
        (make_state(red=FAR), 5.0, 0.0),
        (make_state(blue=FAR), 0.0, 4.0),
        (make_state(blue=(0.0, 0.3)), 1.0, 0.0),
        (make_state(red=FAR, blue=FAR), 6.0, 4.0),
        (make_state(trapped=True), 0.0, 10.0),
        (make_state(blue=FAR, trapped=True), 0.0, 14.0),
        (make_state(red=(0.7, -0.7)), 0.0, 10.0),
        (make_state(red=FAR, blue=FAR, alone=True), 0.0, 4.0),
    ],
    ids=["nothing", "red at goal", "blue at goal", "follow", "both", "trapped", "both paid", "trapped now", "alone"],
)
def test_rewards(state: PhysicalDeceptionState, red: float, blue: float) -> None:
    rewards = start(state, **GAME).step(STAY)[1]
    assert rewards == {"adversary_0": red, "agent_0": blue}
    assert all(type(reward) is float for reward in rewards.values())


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({}, 0.5), ({"trapped": True}, 4.0), ({"alone": True}, 4.0)],
    ids=["free", "trapped", "alone"],
)
def test_goal_reward_while_red_is_present_and_free_can_differ(flags: dict[str, bool], expected: float) -> None:
    env = start(make_state(blue=FAR, **flags), goal_reward=4.0, goal_reward_untrapped=0.5)
    assert env.step(STAY)[1]["agent_0"] == expected


def test_blue_can_be_paid_for_reds_distance_from_the_goal_unless_red_is_absent() -> None:
    place = {"red": (0.0, 0.0), "goal_at": (0.3, 0.4)}
    assert start(make_state(**place), red_distance_reward=2.0).step(STAY)[1]["agent_0"] == pytest.approx(1.0)
    assert start(make_state(**place, alone=True), red_distance_reward=2.0).step(STAY)[1]["agent_0"] == 0.0


# Sight and observations


def test_observations_in_sight() -> None:
    state = make_state(red=(0.1, 0.2), blue=(0.0, 0.0), goal_at=(0.5, 0.6), fake_at=(-0.5, 0.3))
    env = PhysicalDeception()
    observations, infos = env.reset(options={"state": state})
    blue, red = observations["agent_0"], observations["adversary_0"]
    assert_close(blue, [0.5, 0.6, 0.5, 0.6, -0.5, 0.3, 0.1, 0.2, 0, 0], atol=1e-6)
    assert_close(red, [0.4, 0.4, -0.6, 0.1, -0.1, -0.2], atol=1e-6)
    assert infos["agent_0"]["red_in_sight"] and infos["agent_0"]["blue_in_sight"]
    assert blue.dtype == red.dtype == np.float32


def test_the_goal_is_the_only_field_that_tells_which_landmark_is_which() -> None:
    places = {"positions": [(0.0, 0.0), (0.1, 0.0)], "velocities": np.zeros((2, 2)), "landmarks": [FAR, (-0.5, 0.3)]}
    env = PhysicalDeception()
    first, second = (
        env.reset(options={"state": PhysicalDeceptionState(**places, goal=goal)})[0]  # type: ignore[arg-type]
        for goal in (0, 1)
    )
    np.testing.assert_array_equal(first["adversary_0"], second["adversary_0"])
    np.testing.assert_array_equal(first["agent_0"][2:], second["agent_0"][2:])
    np.testing.assert_array_equal(second["agent_0"][BLUE.goal], second["agent_0"][BLUE.landmark_1])


def test_each_agent_has_a_sight_radius_of_its_own() -> None:
    env = start(make_state(blue=(0.0, 0.3)), red_sight_radius=0.2, blue_sight_radius=0.4)
    observations, rewards, _, _, infos = env.step(STAY)
    assert observations["agent_0"][BLUE.red_position].any() and infos["agent_0"]["red_in_sight"]
    assert not observations["adversary_0"][RED.blue_position].any() and not infos["adversary_0"]["blue_in_sight"]
    assert rewards["adversary_0"] == 0.0


def test_sight_includes_its_radius_and_the_reward_for_following_does_not() -> None:
    env = start(make_state(blue=(0.25, 0.0)), red_sight_radius=0.25, blue_sight_radius=0.25)
    _, rewards, _, _, infos = env.step(STAY)
    assert infos["agent_0"]["red_in_sight"] and infos["agent_0"]["blue_in_sight"]
    assert rewards["adversary_0"] == 0.0


def test_state_vector_names_every_number() -> None:
    env = start(
        make_state(red=(0.1, 0.2), blue=(0.3, 0.4), red_velocity=(0.5, 0.6), blue_velocity=(0.7, 0.8), trapped=True)
    )
    vector = env.state()
    expected = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, *FAR, 0.7, -0.7, 1, 0, 1, 0]
    assert_close(vector, expected, rtol=1e-6)
    assert vector in env.state_space
    assert vector[STATE.trapped] == 1 and vector[STATE.goal].tolist() == [1, 0] and vector[STATE.alone] == 0


# Alone


@pytest.mark.parametrize("integration", INTEGRATIONS)
def test_an_absent_red_is_nowhere(integration: str) -> None:
    state = make_state(red=(0.0, 0.0), blue=(0.0, 0.0), goal_at=FAR, fake_at=(0.0, 0.0), alone=True)
    env = start(state, integration=integration, trap_reward=10.0)
    for _ in range(5):
        observations, rewards, _, _, infos = env.step(push(red=(1.0, 1.0)))
    after = env.get_state()
    assert after.positions[0].tolist() == [0.0, 0.0] and not after.velocities[0].any()
    assert not observations["adversary_0"].any() and not observations["agent_0"][BLUE.red_position].any()
    assert rewards == {"adversary_0": 0.0, "agent_0": 0.0}
    assert (
        infos["agent_0"]
        == infos["adversary_0"]
        == {
            "red_in_sight": False,
            "blue_in_sight": False,
            "red_at_goal": False,
            "red_at_fake": False,
            "blue_at_goal": False,
            "blue_at_fake": True,
            "trapped": False,
            "alone": True,
        }
    )


def test_red_moves_again_after_an_alone_episode() -> None:
    env = start(make_state(alone=True))
    env.reset(options={"state": make_state()})
    env.step(push(red=(1.0, 0.0)))
    assert env.get_state().positions[0, 0] > 0


def test_states_are_read_only_copies() -> None:
    env = start(make_state())
    state = env.get_state()
    with pytest.raises(ValueError, match="read-only"):
        state.positions[0, 0] = 1.0
    env.step(push(red=(1.0, 0.0)))
    assert state.positions[0, 0] == 0.0


# Properties of any play

coordinate = st.floats(-1, 1, allow_subnormal=False)
point = st.tuples(coordinate, coordinate)
full_speed = st.floats(-20, 20, allow_subnormal=False)
velocity = st.tuples(full_speed, full_speed)
states = st.builds(
    make_state, red=point, blue=point, red_velocity=velocity, blue_velocity=velocity, goal_at=point, fake_at=point
)
corner = st.tuples(st.sampled_from([-1.0, 1.0]), st.sampled_from([-1.0, 0.0, 1.0]))
plays = st.lists(st.builds(push, red=corner, blue=corner), min_size=1, max_size=12)
presets = st.sampled_from(["paper", "trackable"])
integrations = st.sampled_from(INTEGRATIONS)


@settings(max_examples=60, deadline=None)
@given(state=states, play=plays, name=presets, integration=integrations)
def test_no_centre_passes_the_walls_and_observations_stay_in_their_spaces(
    state: PhysicalDeceptionState, play: list[dict[str, Any]], name: str, integration: str
) -> None:
    env = start(state, name, integration=integration)
    for actions in play:
        observations = env.step(actions)[0]
        assert np.abs(env.get_state().positions).max() <= 1.0
        assert all(observations[agent] in env.observation_space(agent) for agent in env.agents)
        assert env.state() in env.state_space


@settings(max_examples=60, deadline=None)
@given(state=states, play=plays, integration=integrations)
def test_speed_limits_hold(state: PhysicalDeceptionState, play: list[dict[str, Any]], integration: str) -> None:
    env = start(state, integration=integration, red_speed_limit=0.7, blue_speed_limit=1.2)
    for actions in play:
        env.step(actions)
        red_speed, blue_speed = np.linalg.norm(env.get_state().velocities, axis=1)
        assert red_speed <= 0.7 + 1e-9 and blue_speed <= 1.2 + 1e-9


@settings(max_examples=40, deadline=None)
@given(red=point, blue=point, play=plays, integration=integrations)
def test_a_trapped_red_does_not_move(red: Any, blue: Any, play: list[dict[str, Any]], integration: str) -> None:
    env = start(make_state(red=red, blue=blue, trapped=True), integration=integration)
    for actions in play:
        env.step(actions)
        np.testing.assert_array_equal(env.get_state().positions[0], red)


@settings(max_examples=60, deadline=None)
@given(red=point, blue=point, name=presets, alone=st.booleans())
def test_blue_reads_zeros_for_red_if_and_only_if_it_does_not_see_it(
    red: Any, blue: Any, name: str, alone: bool
) -> None:
    apart = float(np.linalg.norm(np.subtract(red, blue)))
    assume(apart > 1e-6)
    env = PhysicalDeception(name)
    observations, infos = env.reset(options={"state": make_state(red=red, blue=blue, alone=alone)})
    assert infos["agent_0"]["red_in_sight"] == (not alone and apart <= env.config.blue_sight_radius)
    assert observations["agent_0"][BLUE.red_position].any() == infos["agent_0"]["red_in_sight"]
    assert observations["adversary_0"][RED.blue_position].any() == infos["adversary_0"]["blue_in_sight"]


@settings(max_examples=30, deadline=None)
@given(state=states, play=plays, integration=integrations)
def test_a_play_goes_on_the_same_from_a_copied_state(
    state: PhysicalDeceptionState, play: list[dict[str, Any]], integration: str
) -> None:
    original, replayed = (
        start(state, integration=integration),
        PhysicalDeception(preset("trackable").replace(integration=integration)),
    )
    original.step(play[0])
    replayed.reset(options={"state": original.get_state()})
    for actions in play:
        expected, actual = original.step(actions), replayed.step(actions)
        np.testing.assert_array_equal(expected[0]["agent_0"], actual[0]["agent_0"])
        np.testing.assert_array_equal(expected[0]["adversary_0"], actual[0]["adversary_0"])
        assert expected[1] == actual[1] and expected[4] == actual[4]
