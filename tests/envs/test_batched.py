"""The batched worlds against the PettingZoo environment, step by step from shared states."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from scipy import stats
from torch import Tensor
from torch.nn.functional import one_hot

from soo_marl.agents import MADDPG, AgentSpaces, MADDPGConfig, Trainer, TrainingConfig
from soo_marl.envs import (
    BLUE,
    RED,
    BatchedPhysicalDeception,
    PhysicalDeception,
    PhysicalDeceptionConfig,
    PhysicalDeceptionState,
    preset,
)
from soo_marl.envs.observations import BLUE_AGENT, RED_AGENT, blue_size

AGENTS = ("adversary_0", "agent_0")
TOLERANCE = 1e-5
REWARDS = {"trap_reward": 10.0, "goal_reward_untrapped": 2.0, "red_distance_reward": 0.3}
STARTS = {"alone_share": 0.2, "trapped_start_share": 0.2}


def goal_position(worlds: BatchedPhysicalDeception, of: int = 0) -> Tensor:
    """Where the goal is, or with ``of=1`` the fake: ``[R, E, 2]``."""
    index = (worlds.goal + of) % 2
    return worlds.landmarks.gather(2, index[..., None, None].expand(*worlds.shape, 1, 2))[..., 0, :]


def at_landmark(worlds: BatchedPhysicalDeception, agent: int, landmark: Tensor) -> Tensor:
    """Whether an agent, also an absent one, is at a landmark ``[R, E, 2]``: bool ``[R, E]``."""
    apart = torch.hypot(*(worlds.position[..., agent, :] - landmark).unbind(dim=-1))
    return apart < worlds.config.landmark_radius


def to_batched(states: Sequence[PhysicalDeceptionState], shape: tuple[int, int], steps: int = 0) -> dict[str, Tensor]:
    """States of single worlds as the state of batched ones."""

    def stack(values: Any) -> Tensor:
        tensor = torch.tensor(np.array(values))
        return tensor.view(*shape, *tensor.shape[1:])

    drawn = {
        name: stack([getattr(state, name) for state in states])
        for name in ("red_speed_limit", "red_pauses")
        if getattr(states[0], name) is not None
    }
    return drawn | {
        "position": stack([state.positions for state in states]),
        "velocity": stack([state.velocities for state in states]),
        "landmarks": stack([state.landmarks for state in states]),
        "goal": stack([state.goal for state in states]),
        "trapped": stack([state.trapped for state in states]),
        "alone": stack([state.alone for state in states]),
        "steps": torch.tensor(steps),
        "counter": torch.tensor(0),
    }


def to_single(worlds: BatchedPhysicalDeception) -> list[PhysicalDeceptionState]:
    """The states of batched worlds one by one; no pause comes after the end of their episode."""
    flat = {name: tensor.flatten(0, 1).numpy() for name, tensor in worlds.state().items() if tensor.dim() >= 2}
    count = len(flat["goal"])
    limits = flat.get("red_speed_limit", [None] * count)
    pauses = flat.get("red_pauses")
    coming = [None] * count if pauses is None else np.pad(pauses[:, worlds.steps :], ((0, 0), (0, worlds.steps)))
    return [
        PhysicalDeceptionState(position, velocity, landmarks, int(goal), bool(trapped), bool(alone), limit, red_pauses)
        for position, velocity, landmarks, goal, trapped, alone, limit, red_pauses in zip(
            *(flat[name] for name in ("position", "velocity", "landmarks", "goal", "trapped", "alone")),
            limits,
            coming,
            strict=True,
        )
    ]


def random_play(worlds: BatchedPhysicalDeception, generator: np.random.Generator) -> tuple[Tensor, ...]:
    """Uniform forces, some of them beyond what is allowed; or uniform moves."""
    if worlds.config.continuous_actions:
        return tuple(torch.tensor(generator.uniform(-1.3, 1.3, (*worlds.shape, 2))) for _ in AGENTS)
    return tuple(one_hot(torch.tensor(generator.integers(5, size=worlds.shape)), 5) for _ in AGENTS)


def skilled_play(worlds: BatchedPhysicalDeception, generator: np.random.Generator) -> tuple[Tensor, ...]:
    """Blue goes to the fake until red is trapped, then to the goal; red follows what it sees; neither quite steadily.

    Half of the blues are honest and go to the goal at once.
    """
    red, blue = worlds.observe()
    honest = torch.arange(worlds.shape[1]).remainder(2).bool()[:, None]
    goal, first = blue[..., BLUE.goal], blue[..., BLUE.landmark_0]
    fake = torch.where((goal == first).all(-1, keepdim=True), blue[..., BLUE.landmark_1], first)
    to_goal = honest | (blue[..., BLUE.trapped.start, None] > 0) | worlds.alone[..., None]
    sees_blue = red[..., RED.blue_position].any(-1, keepdim=True)
    wanted = (
        torch.where(sees_blue, red[..., RED.blue_position], red[..., RED.landmark_0]),
        torch.where(to_goal, goal, fake),
    )
    actions = []
    for direction in wanted:
        noisy = direction * 4.0 + torch.tensor(generator.normal(0.0, 0.4, direction.shape))
        if worlds.config.continuous_actions:
            actions.append(noisy.clamp(-1.0, 1.0))
        else:
            x, y = noisy.unbind(-1)
            pushes = torch.stack((torch.full_like(x, 0.3), -x, x, -y, y), -1)
            actions.append(one_hot(pushes.argmax(-1), 5))
    return tuple(actions)


def to_env(action: Tensor, continuous: bool) -> Any:
    return action.numpy() if continuous else int(action.argmax())


@dataclass
class Lockstep:
    """Batched worlds in double precision, and as many single ones, that start from the same states."""

    batched: BatchedPhysicalDeception
    singles: list[PhysicalDeception]

    @staticmethod
    def start(config: PhysicalDeceptionConfig, shape: tuple[int, int], seed: int) -> Lockstep:
        batched = BatchedPhysicalDeception(config, range(seed, seed + shape[0]), shape[1], dtype=torch.float64)
        singles = [PhysicalDeception(config) for _ in range(shape[0] * shape[1])]
        for number, env in enumerate(singles):
            env.reset(seed=seed * 1000 + number)
        batched.load_state(to_batched([env.get_state() for env in singles], shape))
        return Lockstep(batched, singles)

    def step(self, actions: tuple[Tensor, ...]) -> None:
        batched, continuous = self.batched, self.batched.config.continuous_actions
        result = batched.step(actions)
        flat = [action.flatten(0, 1) for action in actions]
        outcomes = [
            env.step({name: to_env(flat[agent][number], continuous) for agent, name in enumerate(AGENTS)})
            for number, env in enumerate(self.singles)
        ]
        for agent, name in enumerate(AGENTS):
            expected = np.stack([outcome[0][name] for outcome in outcomes])
            np.testing.assert_allclose(result.observations[agent].flatten(0, 1), expected, rtol=0, atol=TOLERANCE)
            rewards = np.array([outcome[1][name] for outcome in outcomes])
            np.testing.assert_allclose(result.rewards[..., agent].flatten(), rewards, rtol=0, atol=TOLERANCE)
            assert all(outcome[3][name] == result.truncated for outcome in outcomes)
        assert not bool(result.terminated.any()) and tuple(result.terminated.shape) == batched.shape
        for event, values in flags(batched).items():
            np.testing.assert_array_equal(
                values.flatten(), [outcome[4]["agent_0"][event] for outcome in outcomes], event
            )
        states, found = [env.get_state() for env in self.singles], batched.state()
        if "red_pauses" in found:
            # A single world knows no more of the pauses that are over.
            found["red_pauses"] = found["red_pauses"][..., batched.steps :]
        for name, tensor in to_batched(states, batched.shape).items():
            if tensor.dim() >= 2:
                torch.testing.assert_close(found[name], tensor, rtol=0, atol=TOLERANCE, msg=name)


def flags(worlds: BatchedPhysicalDeception) -> dict[str, Tensor]:
    """The events of the single environment, read off the batched one."""
    present = ~worlds.alone
    return {
        "red_in_sight": worlds.red_in_sight,
        "blue_in_sight": worlds.blue_in_sight,
        "red_at_goal": at_landmark(worlds, RED_AGENT, goal_position(worlds)) & present,
        "red_at_fake": at_landmark(worlds, RED_AGENT, goal_position(worlds, of=1)) & present,
        "blue_at_goal": at_landmark(worlds, BLUE_AGENT, goal_position(worlds)),
        "blue_at_fake": at_landmark(worlds, BLUE_AGENT, goal_position(worlds, of=1)),
        "trapped": worlds.trapped,
        "alone": worlds.alone,
    }


def games() -> Iterator[Any]:
    """The presets with a learning red, both integration orders, both kinds of actions; then reds of other kinds."""
    for name in ("paper", "trackable"):
        for integration in ("classic", "mpe2"):
            for continuous in (True, False):
                game = preset(name).replace(
                    integration=integration,
                    continuous_actions=continuous,
                    **REWARDS,
                    **STARTS,
                    red_speed_limit=0.9 if name == "trackable" and continuous else None,
                )
                yield pytest.param(game, id=f"{name}-{integration}-{'continuous' if continuous else 'discrete'}")
    watch = preset("watch").replace(trap_reward=10.0, trap_bonus=300.0, goal_reward_untrapped=2.0, **STARTS)
    yield pytest.param(watch, id="watch")
    yield pytest.param(watch.replace(integration="mpe2", continuous_actions=False, visible_bit=True), id="watch-mpe2")
    yield pytest.param(watch.replace(red_policy="learnt", visible_bit=True, episode_length=40), id="watch-learnt")
    fixed = {"red_speed_range": None, "red_pause_chance": 0.0}
    yield pytest.param(watch.replace(**fixed, red_speed_limit=0.6, blind=True, visible_bit=True), id="watch-blind")
    yield pytest.param(watch.replace(**fixed, integration="mpe2", dt=0.05), id="watch-unlimited")


@pytest.mark.parametrize("config", list(games()))
def test_batched_worlds_are_the_single_ones_step_by_step(config: PhysicalDeceptionConfig) -> None:
    """64 episodes for each of 13 games, random and skilled: every observation, reward, flag and state."""
    seen: dict[str, int] = {}
    # Each game from starts of its own.
    for seed, play in enumerate(
        (random_play, skilled_play), 10 * zlib.crc32(config.model_dump_json().encode()) % 10**6
    ):
        generator = np.random.default_rng(seed)
        worlds = Lockstep.start(config, (2, 16), seed)
        for _ in range(config.episode_length):
            worlds.step(play(worlds.batched, generator))
            walls = {"walls": (worlds.batched.position.abs() > 0.85).any(-1)}
            for name, values in (flags(worlds.batched) | walls).items():
                seen[name] = seen.get(name, 0) + int(values.sum())
    # The comparison means something: everything that can happen did.
    assert all(count > 0 for count in seen.values()), seen


@pytest.mark.parametrize("integration", ["classic", "mpe2"])
@pytest.mark.parametrize("name", ["paper", "trackable", "watch"])
def test_batched_worlds_are_the_single_ones_under_trained_play(name: str, integration: str) -> None:
    """128 episodes for each of six games, with agents that learnt a little and explore a little."""
    config = preset(name).replace(
        integration=integration, trap_reward=10.0, alone_share=0.2, visible_bit=name == "watch"
    )
    seeds, training = (0, 1), TrainingConfig(updates=200, noise_start=1.5)
    learner = MADDPG(
        AgentSpaces((RED.size, blue_size(config)), (2, 2)), MADDPGConfig(tau=0.05, reward_scale=0.1), seeds
    )
    Trainer(learner, BatchedPhysicalDeception(config, seeds, training.worlds), training, seeds).run()
    worlds = Lockstep.start(config, (2, 64), seed=7)
    generator = np.random.default_rng(7)
    for _ in range(config.episode_length):
        greedy = learner.networks.act([observation.float() for observation in worlds.batched.observe()])
        worlds.step(
            tuple((a.double() + torch.tensor(generator.normal(0.0, 0.1, a.shape))).clamp(-1.0, 1.0) for a in greedy)
        )


@pytest.mark.parametrize("config", list(games()))
def test_single_worlds_go_on_from_batched_states(config: PhysicalDeceptionConfig) -> None:
    batched = BatchedPhysicalDeception(config, (0, 1), 4, dtype=torch.float64)
    generator = np.random.default_rng(0)
    for _ in range(20):
        batched.step(skilled_play(batched, generator))
    singles = [PhysicalDeception(config) for _ in range(8)]
    for env, state in zip(singles, to_single(batched), strict=True):
        env.reset(seed=0)
        env.set_state(state)
    batched.load_state(to_batched([env.get_state() for env in singles], batched.shape))
    worlds = Lockstep(batched, singles)
    for _ in range(5):
        worlds.step(skilled_play(batched, generator))


@pytest.mark.parametrize("config", list(games()))
def test_one_step_in_single_precision(config: PhysicalDeceptionConfig) -> None:
    """From states met in play; where a distance lies on a threshold to within rounding, flags may go either way."""
    generator = np.random.default_rng(0)
    exact = BatchedPhysicalDeception(config, range(4), 64, dtype=torch.float64)
    rounded = BatchedPhysicalDeception(config, range(4), 64)
    compared = 0
    for step in range(config.episode_length):
        rounded.load_state(exact.state())
        before = exact.distance
        actions = (skilled_play if step % 2 else random_play)(exact, generator)
        expected, found = exact.step(actions), rounded.step(actions)
        clear = torch.ones(exact.shape, dtype=torch.bool)
        thresholds = [(apart, config.red_sight_radius) for apart in (before, exact.distance)]
        thresholds.append((exact.distance, config.blue_sight_radius))
        for agent in (RED_AGENT, BLUE_AGENT):
            for landmark in (goal_position(exact), goal_position(exact, of=1)):
                apart = (exact.position[..., agent, :] - landmark).norm(dim=-1)
                thresholds.append((apart, config.landmark_radius))
        for apart, threshold in thresholds:
            clear &= (apart - threshold).abs() > 1e-6
        compared += int(clear.sum())
        assert all(value.dtype == torch.float32 for value in (*found.observations, found.rewards))
        for one, other in zip(
            (*found.observations, found.rewards), (*expected.observations, expected.rewards), strict=True
        ):
            torch.testing.assert_close(one[clear].double(), other[clear], rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(rounded.position.double(), exact.position, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(rounded.velocity.double(), exact.velocity, rtol=0, atol=TOLERANCE)
    assert compared > 0.99 * 4 * 64 * config.episode_length


# Starts


@pytest.mark.parametrize("name", ["paper", "trackable", "watch"])
def test_starts_have_the_distribution_of_the_single_environment(name: str) -> None:
    config = preset(name).replace(alone_share=0.3, trapped_start_share=0.2)
    count = 3000
    env = PhysicalDeception(config)
    single = []
    for seed in range(count):
        env.reset(seed=seed if seed == 0 else None)
        single.append(env.get_state())
    batched = BatchedPhysicalDeception(config, (5, 6), count // 2, dtype=torch.float64)
    one, other = to_batched(single, (1, count)), batched.state()
    for share in ("alone", "trapped", "goal"):
        counts = [float(state[share].double().mean()) for state in (one, other)]
        # Three standard deviations of the difference of two shares.
        assert counts[0] == pytest.approx(counts[1], abs=3 * (2 * 0.25 / count) ** 0.5)
        # Also within each run: worlds are drawn one by one.
        for run in other[share].double().mean(dim=1).tolist():
            assert run == pytest.approx(counts[0], abs=3 * (3 * 0.25 / count) ** 0.5)
    assert not bool(other["velocity"].any()) and not bool((other["alone"] & other["trapped"]).any())

    def features(state: dict[str, Tensor], trapped: bool) -> dict[str, np.ndarray[Any, Any]]:
        chosen = state["trapped"] == trapped
        position, landmarks = state["position"][chosen], state["landmarks"][chosen]
        offset = position[:, 1] - position[:, 0]
        table = {"apart": offset.norm(dim=-1), "angle": torch.atan2(offset[:, 1], offset[:, 0])}
        table["landmarks apart"] = (landmarks[:, 0] - landmarks[:, 1]).norm(dim=-1)
        if "red_speed_limit" in state:
            table["speed limit"] = state["red_speed_limit"][chosen]
            pauses = state["red_pauses"][chosen].double()
            table["pauses"], table["first pause"] = pauses.sum(dim=-1), pauses.argmax(dim=-1).double()
        for axis in range(2):
            for index in range(2):
                table[f"position {index} {axis}"] = position[:, index, axis]
                table[f"landmark {index} {axis}"] = landmarks[:, index, axis]
        return {key: value.numpy() for key, value in table.items()}

    for trapped in (False, True):
        expected, found = features(one, trapped), features(other, trapped)
        for feature, values in found.items():
            assert stats.ks_2samp(values, expected[feature]).pvalue > 1e-4, feature
            mean, spread = {"angle": (0.3, 0.15), "pauses": (1.5, 1.0), "first pause": (2.0, 2.0)}.get(
                feature, (0.1, 0.05)
            )
            assert values.mean() == pytest.approx(expected[feature].mean(), abs=mean), feature
            assert values.std() == pytest.approx(expected[feature].std(), abs=spread), feature
    edge = 1.0 - config.start_margin
    assert float(other["position"].abs().max()) <= edge and float(other["landmarks"].abs().max()) <= edge
    fake = other["landmarks"].gather(2, (1 - other["goal"])[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
    # Where red is trapped although it was drawn elsewhere, that was within the radius.
    apart = (other["position"][:, :, 0] - fake).norm(dim=-1)[other["trapped"]]
    assert float(apart.max()) < (config.landmark_radius if config.trap_at_start else 1e-12)


@pytest.mark.parametrize("name", ["paper", "trackable", "watch"])
@pytest.mark.parametrize("at_start", [True, False])
def test_a_red_drawn_at_the_fake_is_trapped_at_once_where_the_game_says_so(name: str, at_start: bool) -> None:
    config = preset(name).replace(trap_at_start=at_start, trap_bonus=7.0, alone_share=0.2, red_policy="learnt")
    batched = BatchedPhysicalDeception(config, (0,), 2000, dtype=torch.float64)
    at_fake = at_landmark(batched, RED_AGENT, goal_position(batched, of=1)) & ~batched.alone
    assert 0.015 < float(at_fake.double().mean()) < 0.03
    assert torch.equal(batched.trapped, at_fake & at_start) and torch.equal(
        batched.observe()[1][..., BLUE.trapped].bool().all(-1), batched.trapped
    )
    # As in single worlds from there on; red pushes away from the fake with all its force.
    chosen = at_fake[0].nonzero()[:, 0].tolist()[:12]
    states = [to_single(batched)[number] for number in chosen]
    few = BatchedPhysicalDeception(config, (0,), len(chosen), dtype=torch.float64)
    singles = [PhysicalDeception(config) for _ in chosen]
    for env, state in zip(singles, states, strict=True):
        env.reset(seed=0, options={"state": state})
        assert env.state()[14] == at_start
    few.load_state(to_batched([env.get_state() for env in singles], few.shape))
    away = few.position[..., RED_AGENT, :] - goal_position(few, of=1)
    push = away / away.abs().amax(-1, keepdim=True)
    worlds = Lockstep(few, singles)
    for _ in range(3):
        worlds.step((push, torch.zeros_like(push)))
    stays = (few.position[..., RED_AGENT, :] - goal_position(few, of=1) - away).abs().amax(-1) < 1e-12
    assert bool(stays.all()) if at_start else not bool(stays.all())
    # The bonus is for trapping red, which nobody did.
    assert not at_start or float(few.rewards()[..., BLUE_AGENT].max()) <= 5.0 + config.guide_reward


@pytest.mark.parametrize("name", ["trackable", "watch"])
def test_a_runs_episodes_do_not_depend_on_the_other_runs_and_differ_between_worlds_and_episodes(name: str) -> None:
    config = preset(name).replace(**STARTS)
    stack, alone = BatchedPhysicalDeception(config, (3, 8), 4), BatchedPhysicalDeception(config, (8,), 4)
    first, landmarks = stack.position, stack.landmarks
    for _ in range(2):
        torch.testing.assert_close(stack.position[1], alone.position[0])
        for one, other in zip(stack.state().values(), alone.state().values(), strict=True):
            torch.testing.assert_close(one[1:] if one.dim() else one, other)
        stack.reset()
        alone.reset()
    assert not bool((first == stack.position).any())
    assert len({tuple(point) for point in stack.landmarks.flatten(0, 1).flatten(1).tolist()}) == 8
    evaluation = BatchedPhysicalDeception(config, (3, 8), 4, stream="evaluation")
    assert not bool((evaluation.landmarks == landmarks).any())


# What a trainer sees


def test_episodes_end_together_after_their_length_and_reset_starts_anew() -> None:
    worlds = BatchedPhysicalDeception(preset("paper").replace(episode_length=3), (0,), 2)
    still = (torch.zeros(1, 2, 2),) * 2
    assert [worlds.step(still).truncated for _ in range(3)] == [False, False, True]
    with pytest.raises(ResetNeeded, match="call reset"):
        worlds.step(still)
    worlds.reset()
    assert not worlds.step(still).truncated


def test_contexts_and_events_of_hand_made_states() -> None:
    worlds = BatchedPhysicalDeception(preset("trackable"), (0,), 3, dtype=torch.float64)
    landmarks, none = [[0.5, 0.5], [-0.5, -0.5]], np.zeros((2, 2))
    states = [
        PhysicalDeceptionState([[0.5, 0.4], [0.5, 0.6]], none, landmarks, goal=0),  # type: ignore[arg-type]
        PhysicalDeceptionState([[-0.5, -0.5], [0.0, 0.0]], none, landmarks, goal=0, trapped=True),  # type: ignore[arg-type]
        PhysicalDeceptionState([[0.5, 0.5], [0.5, 0.5]], none, landmarks, goal=0, alone=True),  # type: ignore[arg-type]
    ]
    worlds.load_state(to_batched(states, (1, 3)))
    assert worlds.context().tolist() == [[0, 1, 1]]
    nan = torch.nan
    expected = {
        "goal_rate": [1.0, 0.0, nan],
        "goal_rate_alone": [nan, nan, 1.0],
        "red_goal_rate": [1.0, 0.0, nan],
        "trap_rate": [0.0, 1.0, nan],
        "following_rate": [1.0, nan, nan],
    }
    events = worlds.events()
    assert events.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(events[name].double(), torch.tensor([values], dtype=torch.float64), equal_nan=True)
    assert worlds.rewards().tolist() == [[[6.0, 5.0], [0.0, 0.0], [0.0, 5.0]]]


def test_an_absent_red_is_not_trapped_and_does_not_move() -> None:
    worlds = BatchedPhysicalDeception(preset("trackable"), (0,), 1, dtype=torch.float64)
    on_fake = PhysicalDeceptionState(
        [[-0.5, -0.5], [0.0, 0.0]], np.zeros((2, 2)), [[0.5, 0.5], [-0.5, -0.5]], 0, alone=True
    )  # type: ignore[arg-type]
    worlds.load_state(to_batched([on_fake], (1, 1)))
    result = worlds.step((torch.ones(1, 1, 2),) * 2)
    assert not bool(worlds.trapped) and worlds.position[0, 0, 0].tolist() == [-0.5, -0.5]
    assert not bool(result.observations[0].any()) and bool(worlds.velocity[0, 0, 1].any())


@pytest.mark.parametrize("name", ["trackable", "watch"])
def test_stored_worlds_go_on_in_the_same_way_and_are_copies(name: str) -> None:
    config = preset(name).replace(episode_length=4, **STARTS)
    generator = np.random.default_rng(0)
    worlds, again = (BatchedPhysicalDeception(config, (1, 2), 3) for _ in range(2))
    for _ in range(2):
        worlds.step(random_play(worlds, generator))
    state = worlds.state()
    again.load_state(state)
    for tensor in state.values():
        tensor.zero_()
    for _ in range(6):
        actions = random_play(worlds, generator)
        one, other = worlds.step(actions), again.step(actions)
        assert one.truncated == other.truncated and torch.equal(one.rewards, other.rewards)
        assert all(torch.equal(a, b) for a, b in zip(one.observations, other.observations, strict=True))
        if one.truncated:
            assert all(torch.equal(a, b) for a, b in zip(worlds.reset(), again.reset(), strict=True))


def test_handed_out_observations_do_not_change_later() -> None:
    worlds = BatchedPhysicalDeception(preset("trackable"), (0,), 3)
    before = worlds.observe()
    kept = [tensor.clone() for tensor in before]
    worlds.step(random_play(worlds, np.random.default_rng(0)))
    worlds.reset()
    assert all(torch.equal(a, b) for a, b in zip(before, kept, strict=True))


def test_what_does_not_fit_is_refused() -> None:
    game = preset("trackable")
    with pytest.raises(ValueError, match="each seed once"):
        BatchedPhysicalDeception(game, (1, 1), 2)
    with pytest.raises(ValueError, match="at least one world"):
        BatchedPhysicalDeception(game, (1,), 0)
    worlds = BatchedPhysicalDeception(game, (1, 2), 3)
    for actions in ([torch.zeros(2, 3, 2)], [torch.zeros(1, 3, 2)] * 2, [torch.zeros(2, 3, 5)] * 2):
        with pytest.raises(ValueError, match="one tensor per agent of shapes"):
            worlds.step(actions)
    before = worlds.position
    for number in (torch.nan, torch.inf, -torch.inf):
        bad = torch.zeros(2, 3, 2)
        bad[1, 2, 0] = number
        with pytest.raises(ValueError, match="finite numbers, but that of agent 1 in run 1, world 2"):
            worlds.step([torch.zeros(2, 3, 2), bad])
    assert torch.equal(worlds.position, before) and worlds.steps == 0
    # Numbers so large that their sum is not finite are clipped as any others.
    assert not bool(worlds.step([torch.full((2, 3, 2), 3e38)] * 2).observations[1].isnan().any())
    with pytest.raises(ValueError, match="no preset 'trackabel'"):
        BatchedPhysicalDeception("trackabel", (1,), 3)
    assert BatchedPhysicalDeception("watch", (1,), 3).config == preset("watch")
    with pytest.raises(ValueError, match="stored position"):
        worlds.load_state(BatchedPhysicalDeception(game, (1,), 3).state())
    with pytest.raises(KeyError, match="alone"):
        worlds.load_state({name: tensor for name, tensor in worlds.state().items() if name != "alone"})
