"""What batched worlds hand out is the caller's, and what they go by is their present state and nothing older."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from soo_marl.envs import BLUE, BatchedPhysicalDeception, BatchedSimpleAdversary, SimpleAdversaryConfig, preset

Worlds = BatchedPhysicalDeception | BatchedSimpleAdversary
Make = Callable[..., Worlds]

SHAPES = [(1, 1), (1, 3), (2, 4)]
PROPERTIES = ("position", "velocity", "landmarks", "goal", "trapped", "alone")


def physical_deception(runs: int, worlds: int, seed: int = 0, **changes: Any) -> BatchedPhysicalDeception:
    config = preset("trackable").replace(**{"trap_reward": 10.0, "goal_reward_untrapped": 1.0, **changes})
    return BatchedPhysicalDeception(config, range(seed, seed + runs), worlds, dtype=torch.float64)


def watch(runs: int, worlds: int, seed: int = 0, **changes: Any) -> BatchedPhysicalDeception:
    config = preset("watch").replace(**{"trap_reward": 10.0, "visible_bit": True, **changes})
    return BatchedPhysicalDeception(config, range(seed, seed + runs), worlds, dtype=torch.float64)


def simple_adversary(runs: int, worlds: int, seed: int = 0) -> BatchedSimpleAdversary:
    config = SimpleAdversaryConfig(continuous_actions=True)
    return BatchedSimpleAdversary(config, range(seed, seed + runs), worlds, dtype=torch.float64)


def forces(worlds: Worlds, seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(*worlds.shape, size, generator=generator) * 3.0 - 1.5 for size in worlds.action_sizes)


def handed_out(worlds: Worlds, seed: int) -> dict[str, Tensor]:
    """Everything that worlds say of a step and of the state after it."""
    step = worlds.step(forces(worlds, seed))
    tensors = {"rewards": step.rewards, "rewards again": worlds.rewards(), "terminated": step.terminated}
    for when, observations in (("then", step.observations), ("now", worlds.observe())):
        tensors.update({f"observation {agent} {when}": tensor for agent, tensor in enumerate(observations)})
    tensors.update({name: getattr(worlds, name) for name in PROPERTIES if hasattr(worlds, name)})
    tensors.update({f"event {name}": tensor for name, tensor in worlds.events().items()})
    tensors.update({f"state {name}": tensor for name, tensor in worlds.state().items()})
    return {**tensors, "context": worlds.context()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [physical_deception, watch, simple_adversary])
def test_changing_what_was_handed_out_changes_nothing_else(make: Make, shape: tuple[int, int]) -> None:
    worlds, twin = make(*shape), make(*shape)
    for observation in worlds.observe():
        observation.fill_(7.0)
    for seed in range(3):
        found, expected = handed_out(worlds, seed), handed_out(twin, seed)
        assert_same(found, expected)
        for tensor in found.values():
            tensor.fill_(1)
    assert all(torch.equal(one, other) for one, other in zip(worlds.reset(), twin.reset(), strict=True))


@pytest.mark.parametrize("make", [physical_deception, watch, simple_adversary])
def test_tensors_handed_out_are_ordinary_contiguous_ones(make: Make) -> None:
    """A learner may differentiate through what it computes from them."""
    worlds = make(2, 3)
    for name, tensor in handed_out(worlds, seed=0).items():
        assert not tensor.is_inference() and not tensor.requires_grad and tensor.is_contiguous(), name
    for observation in worlds.step(forces(worlds, 1)).observations:
        weight = torch.ones(observation.shape[-1], dtype=observation.dtype, requires_grad=True)
        (gradient,) = torch.autograd.grad((observation @ weight).sum(), weight)
        torch.testing.assert_close(gradient, observation.sum(dim=(0, 1)))


@pytest.mark.parametrize("make", [physical_deception, watch, simple_adversary])
def test_actions_are_left_alone_and_may_carry_gradients(make: Make) -> None:
    worlds, twin = make(2, 3), make(2, 3)
    actions = forces(worlds, 0)
    before = [action.clone() for action in actions]
    plain = worlds.step(actions)
    assert all(torch.equal(one, other) for one, other in zip(actions, before, strict=True))
    carrying = twin.step([action.requires_grad_() for action in actions])
    assert torch.equal(plain.rewards, carrying.rewards) and not carrying.rewards.requires_grad


@pytest.mark.parametrize("make", [physical_deception, watch, simple_adversary])
def test_a_state_loaded_in_mid_episode_replaces_all_there_was(make: Make) -> None:
    worlds, source = make(2, 4), make(2, 4, seed=5)
    for seed in range(4):
        worlds.step(forces(worlds, seed))
        source.step(forces(source, seed + 10))
    state = source.state()
    fresh = make(2, 4, seed=9)
    for reached in (worlds, fresh):
        reached.load_state(state)
    for seed in range(3):
        expected = handed_out(source, seed)
        assert_same(handed_out(worlds, seed), expected)
        assert_same(handed_out(fresh, seed), expected)


def test_changed_entries_of_a_state_take_effect_at_once() -> None:
    worlds = physical_deception(1, 4)
    state = worlds.state()
    yes = torch.ones(1, 4, dtype=torch.bool)

    worlds.load_state({**state, "trapped": yes})
    assert bool((worlds.context() == 1).all()) and bool((worlds.observe()[1][..., 8:] == 1.0).all())
    assert bool((worlds.rewards()[..., 1] >= 10.0).all())
    before = worlds.position
    worlds.step(forces(worlds, 0))
    assert torch.equal(worlds.position[:, :, 0], before[:, :, 0])

    worlds.load_state({**state, "goal": 1 - state["goal"]})
    first, second = worlds.landmarks.unbind(dim=2)
    goal = worlds.position[:, :, 1] + worlds.observe()[1][..., BLUE.goal]
    torch.testing.assert_close(goal, torch.where(state["goal"][..., None] == 1, first, second))

    # Landmarks under both agents' feet: red is at goal and fake alike, and trapped by the next step.
    at_red = state["position"][:, :, :1].expand(-1, -1, 2, -1)
    worlds.load_state({**state, "landmarks": at_red})
    assert bool((worlds.rewards()[..., 0] >= 5.0).all())
    worlds.step([torch.zeros(1, 4, 2)] * 2)
    assert bool(worlds.trapped.all())


@pytest.mark.parametrize("integration", ["classic", "mpe2"])
def test_an_absent_red_is_gone_also_where_the_configuration_knows_none_until_the_next_episode(integration: str) -> None:
    worlds = physical_deception(1, 4, integration=integration, red_distance_reward=1.0)
    assert bool(worlds.observe()[0].any(dim=-1).all())
    worlds.step(forces(worlds, 0))
    alone = torch.tensor([[True, False, True, False]])
    worlds.load_state({**worlds.state(), "alone": alone})
    before = worlds.position
    step = worlds.step(forces(worlds, 1))
    assert torch.equal((worlds.position == before).all(dim=-1)[:, :, 0], alone)
    assert not bool(step.observations[0][alone].any()) and bool(step.observations[0][~alone].any(dim=-1).all())
    assert not bool(step.rewards[..., 0][alone].any()) and bool(step.rewards.isfinite().all())
    assert worlds.context().tolist() == [[1, 0, 1, 0]]
    worlds.reset()
    assert bool(worlds.observe()[0].any(dim=-1).all()) and not bool(worlds.alone.any())


def test_blue_is_paid_at_the_goal_before_the_trap_even_where_it_is_paid_nothing_there_later() -> None:
    worlds = physical_deception(1, 2, goal_reward=0.0, goal_reward_untrapped=3.0)
    state = worlds.state()
    state["position"][:, :, 1] += worlds.observe()[1][..., BLUE.goal]
    state["trapped"] = torch.tensor([[False, True]])
    worlds.load_state(state)
    assert worlds.rewards()[..., 1].tolist() == [[3.0, 10.0]]


@pytest.mark.parametrize("make", [physical_deception, watch, simple_adversary])
def test_a_state_cannot_be_changed_past_the_worlds(make: Make) -> None:
    worlds = make(1, 2)
    for name in (name for name in PROPERTIES if hasattr(worlds, name)):
        with pytest.raises(AttributeError, match=name):
            setattr(worlds, name, getattr(worlds, name))
    for goal in (-1, 2):
        before = worlds.state()
        with pytest.raises(ValueError, match="stored goal must hold indices from 0 to 1"):
            worlds.load_state({**make(1, 2, seed=3).state(), "goal": torch.full((1, 2), goal)})
        assert_same(worlds.state(), before)


def test_speed_limits_and_pauses_are_stored_where_the_game_draws_them_and_not_asked_for_elsewhere() -> None:
    plain, drawn = physical_deception(1, 2), watch(1, 2)
    assert not {"red_speed_limit", "red_pauses"} & plain.state().keys()
    plain.load_state(plain.state())
    state = drawn.state()
    assert state["red_speed_limit"].shape == (1, 2)
    assert state["red_pauses"].shape == (1, 2, 70) and state["red_pauses"].dtype == torch.bool
    for name in ("red_speed_limit", "red_pauses"):
        with pytest.raises(KeyError, match=name):
            drawn.load_state({key: value for key, value in state.items() if key != name})
        with pytest.raises(ValueError, match=f"stored {name} has shape"):
            drawn.load_state({**state, name: state[name][:, :1]})
        with pytest.raises(ValueError, match=f"stored {name} has shape"):
            drawn.load_state({**state, name: state[name][..., :1]})
    with pytest.raises(ValueError, match="red_speed_limit must be above 0 in all worlds"):
        drawn.load_state({**state, "red_speed_limit": torch.tensor([[0.5, 0.0]])})
    assert_same(drawn.state(), state)


def test_red_goes_by_the_stored_speed_limit_and_pauses() -> None:
    worlds = watch(1, 2, red_policy="learnt", integration="classic")
    state = worlds.state()
    state["position"][:] = torch.tensor([[0.0, 0.0], [0.5, 0.5]])
    state["red_speed_limit"] = torch.tensor([[0.25, 0.75]])
    state["red_pauses"][:] = False
    state["red_pauses"][0, 1, 1] = True
    worlds.load_state(state)
    speeds = []
    for _ in range(3):
        worlds.step((torch.tensor([[[1.0, 0.0]] * 2]), torch.zeros(1, 2, 2)))
        speeds.append(worlds.velocity[0, :, 0, 0].tolist())
    # 0.5 in the first step, and from a standstill again after the pause.
    assert speeds == [[0.25, 0.5], [0.25, 0.0], [0.25, 0.5]]
