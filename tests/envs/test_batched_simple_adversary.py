"""The batched stock game against mpe2's, and its older dialect against numbers worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mpe2 import simple_adversary_v3
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import one_hot

from soo_marl.envs import BatchedSimpleAdversary, SimpleAdversaryConfig

EPISODES = {1: (2, 28), 2: (2, 28), 3: (2, 28)}
"""Runs and worlds by number of good agents, for each of three kinds of actions: 504 episodes in all."""


def read_state(envs: list[Any], shape: tuple[int, int]) -> dict[str, Tensor]:
    """The states of mpe2's environments as that of batched worlds."""
    worlds = [env.unwrapped.world for env in envs]

    def stack(values: Any) -> Tensor:
        tensor = torch.tensor(np.array(values))
        return tensor.view(*shape, *tensor.shape[1:])

    goals = [[landmark is world.agents[0].goal_a for landmark in world.landmarks].index(True) for world in worlds]
    return {
        "position": stack([[agent.state.p_pos for agent in world.agents] for world in worlds]),
        "velocity": stack([[agent.state.p_vel for agent in world.agents] for world in worlds]),
        "landmarks": stack([[landmark.state.p_pos for landmark in world.landmarks] for world in worlds]),
        "goal": stack(goals),
        "steps": torch.tensor(0),
        "counter": torch.tensor(0),
    }


@pytest.mark.parametrize("good_agents", EPISODES)
@pytest.mark.parametrize("kind", ["moves", "weights", "forces"])
def test_batched_worlds_are_mpe2s_step_by_step(good_agents: int, kind: str) -> None:
    """Moves are integers for mpe2 and one-hot here; weights are the same five numbers; forces two instead of five."""
    shape, generator = EPISODES[good_agents], np.random.default_rng(good_agents)
    envs = [
        simple_adversary_v3.parallel_env(N=good_agents, max_cycles=25, continuous_actions=kind != "moves")
        for _ in range(shape[0] * shape[1])
    ]
    first = [env.reset(seed=number)[0] for number, env in enumerate(envs)]
    config = SimpleAdversaryConfig(good_agents=good_agents, continuous_actions=kind == "forces")
    worlds = BatchedSimpleAdversary(config, range(shape[0]), shape[1], dtype=torch.float64)
    worlds.load_state(read_state(envs, shape))
    names = envs[0].possible_agents
    assert len(names) == good_agents + 1

    def assert_equal(observations: tuple[Tensor, ...], expected: list[dict[str, Any]]) -> None:
        for agent, name in enumerate(names):
            both = np.stack([values[name] for values in expected])
            assert observations[agent].shape[-1] == worlds.observation_sizes[agent]
            np.testing.assert_allclose(observations[agent].flatten(0, 1), both, rtol=0, atol=1e-5)

    assert_equal(worlds.observe(), first)
    for step in range(25):
        if kind == "moves":
            numbers = generator.integers(5, size=(len(names), *shape))
            actions = one_hot(torch.tensor(numbers), 5)
            theirs = torch.tensor(numbers)
        elif kind == "weights":
            actions = theirs = torch.tensor(
                generator.dirichlet(np.ones(5), size=(len(names), *shape)), dtype=torch.float32
            )
        else:
            actions = torch.tensor(generator.uniform(-1, 1, (len(names), *shape, 2)), dtype=torch.float32)
            x, y = actions.unbind(-1)
            theirs = torch.stack(
                (torch.zeros_like(x), -x.clamp(max=0), x.clamp(min=0), -y.clamp(max=0), y.clamp(min=0)), -1
            )
        result = worlds.step(tuple(actions))
        per_env = theirs.flatten(1, 2).transpose(0, 1).numpy()
        outcomes = [env.step(dict(zip(names, per_env[number], strict=True))) for number, env in enumerate(envs)]
        assert_equal(result.observations, [outcome[0] for outcome in outcomes])
        for agent, name in enumerate(names):
            rewards = np.array([outcome[1][name] for outcome in outcomes])
            np.testing.assert_allclose(result.rewards[..., agent].flatten(), rewards, rtol=0, atol=1e-5)
        assert result.truncated == (step == 24) == all(outcome[3][names[0]] for outcome in outcomes)
        assert not bool(result.terminated.any())
        if not result.truncated:
            for name, tensor in read_state(envs, shape).items():
                if tensor.dim() >= 2:
                    torch.testing.assert_close(worlds.state()[name], tensor, rtol=0, atol=1e-5, msg=name)


def hand_made(**config: Any) -> BatchedSimpleAdversary:
    """The adversary at (0, 0) with velocity (0.4, 0), good agents at (1, 0) and (0, 2); the goal is at (0, 1)."""
    worlds = BatchedSimpleAdversary(SimpleAdversaryConfig(**config), (0,), 1, dtype=torch.float64)
    worlds.load_state(
        {
            "position": torch.tensor([[[[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]]]),
            "velocity": torch.tensor([[[[0.4, 0.0], [0.0, 0.0], [0.0, 0.0]]]]),
            "landmarks": torch.tensor([[[[0.5, 0.5], [0.0, 1.0]]]]),
            "goal": torch.tensor([[1]]),
            "steps": torch.tensor(0),
            "counter": torch.tensor(0),
        }
    )
    return worlds


def actions(*moves: int) -> tuple[Tensor, ...]:
    return tuple(one_hot(torch.tensor([[move]]), 5).double() for move in moves)


def test_classic_order_and_squared_distance_worked_by_hand() -> None:
    worlds = hand_made(integration="classic", squared_adversary_distance=True)
    result = worlds.step(actions(4, 1, 0))
    # Velocities (0.4 * 0.75, 0.5), (-0.5, 0), (0, 0), and positions move with the new ones.
    torch.testing.assert_close(worlds.velocity[0, 0], torch.tensor([[0.3, 0.5], [-0.5, 0.0], [0.0, 0.0]]).double())
    torch.testing.assert_close(worlds.position[0, 0], torch.tensor([[0.03, 0.05], [0.95, 0.0], [0.0, 2.0]]).double())
    squared = 0.03**2 + 0.95**2
    adversary, *good = result.rewards[0, 0].tolist()
    assert adversary == pytest.approx(-squared)
    # The nearest good agent is the second, at distance 1; good agents are paid by the plain distance all the same.
    assert good == pytest.approx([squared**0.5 - 1.0] * 2)


def test_mpe2_order_and_plain_distance_worked_by_hand() -> None:
    worlds = hand_made()
    result = worlds.step(actions(4, 1, 0))
    torch.testing.assert_close(worlds.position[0, 0], torch.tensor([[0.04, 0.0], [1.0, 0.0], [0.0, 2.0]]).double())
    adversary = (0.04**2 + 1.0) ** 0.5
    assert result.rewards[0, 0].tolist() == pytest.approx([-adversary, adversary - 1.0, adversary - 1.0])
    assert {name: float(value) for name, value in worlds.events().items()} == pytest.approx(
        {"adversary_distance": adversary, "good_distance": 1.0}
    )


def test_observations_worked_by_hand() -> None:
    adversary, good, _ = hand_made().observe()
    # Landmarks, then the others; good agents see the goal first.
    assert adversary[0, 0].tolist() == [0.5, 0.5, 0.0, 1.0, 1.0, 0.0, 0.0, 2.0]
    assert good[0, 0].tolist() == [-1.0, 1.0, -0.5, 0.5, -1.0, 1.0, -1.0, 0.0, -1.0, 2.0]


def test_starts_are_uniform_at_rest_and_goals_are_drawn_per_world() -> None:
    worlds = BatchedSimpleAdversary(SimpleAdversaryConfig(good_agents=3), (0, 1), 2000, dtype=torch.float64)
    for points in (worlds.position, worlds.landmarks):
        flat = points.flatten(0, 2)
        assert float(flat.abs().max()) <= 1.0
        torch.testing.assert_close(flat.mean(0), torch.zeros(2).double(), rtol=0, atol=0.03)
        torch.testing.assert_close(flat.std(0), torch.full((2,), 3**-0.5).double(), rtol=0, atol=0.03)
    assert not bool(worlds.velocity.any())
    shares = one_hot(worlds.goal, 3).double().mean(dim=(0, 1))
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3).double(), rtol=0, atol=0.03)


def test_a_runs_episodes_are_its_own_and_streams_differ() -> None:
    config = SimpleAdversaryConfig()
    stack, alone = BatchedSimpleAdversary(config, (3, 8), 4), BatchedSimpleAdversary(config, (8,), 4)
    other = BatchedSimpleAdversary(config, (8,), 4, stream="evaluation")
    torch.testing.assert_close(stack.reset()[1][1], alone.reset()[1][0])
    assert not bool((other.reset()[1] == alone.observe()[1]).any())


def test_stored_worlds_go_on_in_the_same_way_and_are_copies() -> None:
    worlds, again = hand_made(), hand_made()
    worlds.step(actions(1, 2, 3))
    state = worlds.state()
    again.load_state(state)
    for tensor in state.values():
        tensor.zero_()
    assert torch.equal(worlds.step(actions(1, 2, 3)).rewards, again.step(actions(1, 2, 3)).rewards)
    assert all(torch.equal(a, b) for a, b in zip(worlds.reset(), again.reset(), strict=True))
    assert not bool(worlds.context().any()) and worlds.context().dtype == torch.int64


def test_what_does_not_fit_is_refused() -> None:
    config = SimpleAdversaryConfig()
    with pytest.raises(ValueError, match="each seed once"):
        BatchedSimpleAdversary(config, (1, 1), 2)
    with pytest.raises(ValueError, match="at least one world"):
        BatchedSimpleAdversary(config, (1,), 0)
    with pytest.raises(ValueError, match="finite numbers"):
        BatchedSimpleAdversary(config, (1,), 2).step([torch.full((1, 2, 5), torch.nan)] * 3)
    with pytest.raises(ValueError, match="one tensor per agent"):
        hand_made().step(actions(1, 2))
    with pytest.raises(ValueError, match="stored position"):
        hand_made().load_state(BatchedSimpleAdversary(config, (1,), 3).state())
    with pytest.raises(ValidationError, match="good_agents"):
        SimpleAdversaryConfig(good_agents=0)
