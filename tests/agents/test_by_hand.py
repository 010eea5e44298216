"""The gradients written out by hand against the equations of the update, differentiated automatically."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from soo_marl.agents import MADDPG, AgentSpaces, MADDPGConfig, by_hand
from soo_marl.agents.replay import Transitions
from soo_marl.random_streams import RandomStreams

SEEDS = (4, 0, 11)
CONTINUOUS = AgentSpaces((3, 2), (2, 1), observation_scales=((1.0, 2.0, 0.5), (3.0, 1.0)))
DISCRETE = AgentSpaces((3, 2, 2), (5, 3, 3), discrete=True)


def make(spaces: AgentSpaces, **config: Any) -> MADDPG:
    maddpg = MADDPG(spaces, MADDPGConfig(**({"hidden_units": 8, "tau": 0.1} | config)), SEEDS)
    # Larger outputs than an untrained actor's, so that what squashing does to gradients is seen.
    for actor in maddpg.networks.actors:
        actor.output.weight.data.mul_(100.0 if not spaces.discrete else 3.0)
    return maddpg


def make_batch(spaces: AgentSpaces, draw: int = 0, size: int = 12) -> Transitions:
    random = RandomStreams(SEEDS, f"batch/{draw}")
    actions = (random.normal(size, width) for width in spaces.action_sizes)
    return Transitions(
        observations=tuple(random.normal(size, width) for width in spaces.observation_sizes),
        actions=tuple(torch.softmax(action, -1) if spaces.discrete else torch.tanh(action) for action in actions),
        rewards=random.normal(size, len(spaces.action_sizes)) * 3.0 + 1.0,
        next_observations=tuple(random.normal(size, width) for width in spaces.observation_sizes),
        terminated=(random.uniform(size) < 0.3).float(),
        context=random.integers(2, size),
        next_context=random.integers(2, size),
    )


CASES = [
    (spaces, changes)
    for spaces in (CONTINUOUS, DISCRETE)
    for changes in (
        {},
        {"activation": "leaky_relu", "pre_squash_penalty": 0.5},
        {"contexts": 2, "clip_scope": "tensor"},
        {"contexts": 2, "context_weights": (1.0, 4.0), "reward_scale": 0.3, "gamma": 0.7},
    )
]


@pytest.mark.parametrize(("spaces", "changes"), CASES)
def test_gradients_losses_and_values_are_those_of_the_equations(
    spaces: AgentSpaces, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_hand, "_NUMBERS_PER_LAYER", 2 * 12 * 8)  # blocks of two runs and of one
    batch, maddpg = make_batch(spaces), make(spaces, **changes)
    assert [block.runs for block in maddpg._by_hand.blocks(12)] == [slice(0, 2), slice(2, 3)]
    random = maddpg.networks.random
    accelerated = maddpg._by_hand.of(batch)
    drawn, random.counter = random.counter, 0
    targets = zip(maddpg.targets.actors, batch.next_observations, strict=True)
    next_actions = [maddpg.targets.squash(actor(observation)) for actor, observation in targets]
    assert random.counter == drawn
    for i in range(maddpg.agents):
        found_loss = accelerated.critic(i)
        loss = maddpg.critic_loss(i, batch, next_actions)
        compare(maddpg.networks.critics[i], maddpg.critic_optimisers[i].gradient, found_loss, loss)
        before = random.counter
        found_loss, found_value = accelerated.actor(i)
        random.counter = before  # the same samples once more
        loss, value = maddpg.actor_loss(i, batch)
        compare(maddpg.networks.actors[i], maddpg.actor_optimisers[i].gradient, found_loss, loss)
        torch.testing.assert_close(found_value, value.detach(), rtol=1e-4, atol=1e-6)


def compare(network: nn.Module, gradient: Tensor, found_loss: Tensor, loss: Tensor) -> None:
    """Hold loss and gradient against a loss with its graph; gradients of all parameters in one row per run."""
    found = gradient.clone()
    expected = torch.cat([part.flatten(1) for part in torch.autograd.grad(loss.sum(), list(network.parameters()))], 1)
    assert float(expected.abs().max()) > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found_loss, loss.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("spaces", "changes"), CASES)
def test_learning_goes_the_same_way(spaces: AgentSpaces, changes: dict[str, Any]) -> None:
    by_hand, by_autograd = make(spaces, **changes), make(spaces, **changes)
    by_autograd.gradients = "autograd"
    for draw in range(5):
        batch = make_batch(spaces, draw)
        found, expected = by_hand.update(batch), by_autograd.update(batch)
        for name in ("critic_loss", "actor_loss", "value"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-4)
    for name, tensor in by_autograd.networks_state().items():
        # Adam makes whole steps of gradients near zero, which rounding may turn round.
        torch.testing.assert_close(by_hand.networks_state()[name], tensor, rtol=1e-3, atol=2e-4)


def test_minibatches_may_change_in_size_and_networks_be_loaded_between_updates() -> None:
    by_hand, by_autograd = make(CONTINUOUS), make(CONTINUOUS)
    by_autograd.gradients = "autograd"
    other = make(CONTINUOUS).networks_state()
    for draw, size in enumerate((12, 7, 12)):
        for maddpg in (by_hand, by_autograd):
            maddpg.update(make_batch(CONTINUOUS, draw, size))
            if draw == 1:
                maddpg.load_networks({name: tensor * 0.5 for name, tensor in other.items()})
    for name, tensor in by_autograd.networks_state().items():
        torch.testing.assert_close(by_hand.networks_state()[name], tensor, rtol=1e-3, atol=2e-4)


def test_one_runs_broken_numbers_do_not_reach_another() -> None:
    broken, sound = make(CONTINUOUS), make(CONTINUOUS)
    batch = make_batch(CONTINUOUS)
    rewards = batch.rewards.clone()
    rewards[1] = torch.nan
    broken.update(replace(batch, rewards=rewards))
    sound.update(batch)
    for name, tensor in sound.networks_state().items():
        assert torch.equal(broken.networks_state()[name][[0, 2]], tensor[[0, 2]])
    assert bool(broken.networks_state()["critic/0/networks.0.output.weight"][1].isnan().all())


def test_frozen_runs_stay_whatever_their_numbers_and_the_others_learn_on() -> None:
    frozen, free = make(CONTINUOUS), make(CONTINUOUS)
    frozen.freeze(torch.tensor([False, True, False]))
    batch = make_batch(CONTINUOUS)
    rewards = batch.rewards.clone()
    rewards[1] = torch.inf
    before = frozen.networks_state()
    for _ in range(3):
        frozen.update(replace(batch, rewards=rewards))
        free.update(batch)
    for name, tensor in frozen.networks_state().items():
        if not name.startswith("target"):
            assert torch.equal(tensor[1], before[name][1])
        assert torch.equal(tensor[[0, 2]], free.networks_state()[name][[0, 2]])
